"""Files: read in lines, replaced as a whole, edited in places.

`path` is a file's name in messages. All of it raises WorkspaceError and OSError.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from agent.workspace import READ_LIMIT, ImageFile, WorkspaceError
from agent.workspace.edits import nearest, pattern, replaced
from agent.workspace.images import HEAD, IMAGE_LIMIT, described, media_type, problem

EDIT_LIMIT = 64 * 1024 * 1024
"""Bytes of a file that can be edited: it is in memory several times."""

MEGABYTE = 1_000_000


def read_lines(file: Path, path: str, offset: int, limit: int | None) -> str:
    """Lines of a text file from line `offset`, at most `limit` of them, each with its end."""
    if offset < 1 or (limit is not None and limit < 1):
        raise WorkspaceError("offset and limit count from 1")
    status = _regular(file, path)
    with file.open("rb") as stream:
        head = stream.read(8192)
        if media_type(head) is not None:
            raise ImageFile(f"{path} is no text: {described(head + stream.read(HEAD), status.st_size)}")
        if b"\0" in head:
            raise WorkspaceError(f"{path} is a binary file ({status.st_size} bytes)")
    lines: list[str] = []
    size = number = 0
    ended = True
    # Lines end where the shell's tools end them, at \n alone.
    with file.open(encoding="utf-8", errors="replace", newline="\n") as text:
        # readline is bounded, so that one endless line cannot fill the memory.
        while piece := text.readline(READ_LIMIT + 1):
            if ended:
                number += 1
                if limit is not None and len(lines) == limit:
                    break
            ended = piece.endswith("\n")
            if number < offset:
                continue
            if len(piece) > READ_LIMIT:
                raise WorkspaceError(
                    f"line {number} of {path} has more than {READ_LIMIT} characters; look at parts of it with bash, for "
                    f"example `sed -n {number}p FILE | cut -c 1-1000`"
                )
            size += len(piece)
            if size > READ_LIMIT:
                raise WorkspaceError(
                    f"{path} has more than {READ_LIMIT} characters there; read less of it with offset and limit"
                )
            lines.append(piece)
    if not lines and offset > 1:
        raise WorkspaceError(f"{path} has only {number} lines")
    return "".join(lines)


def read_image_file(file: Path, path: str) -> bytes:
    """All of an image file, if it can be shown to a model."""
    size = _regular(file, path).st_size
    with file.open("rb") as stream:
        content = stream.read(IMAGE_LIMIT + 1)
    if why := problem(content[:HEAD], max(size, len(content))):
        raise WorkspaceError(f"{path} is {why}")
    return content


def replace_file(file: Path, path: str, content: bytes) -> None:
    """Write beside the target and rename, so that no reader, and no kill, ever sees half a file.

    A file with several names (hard links) is written in place, and stays one.
    """
    status = _status(file)
    if status is not None:
        _check_regular(status, path)
        if not status.st_mode & 0o222:
            raise WorkspaceError(f"{path} is read-only; change its mode first if that is not on purpose")
    file = file.resolve()  # a link stays a link: what it points to is replaced
    file.parent.mkdir(parents=True, exist_ok=True)
    if status is not None and status.st_nlink > 1:
        _write_in_place(file, content)
        return
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:64]}.")
    except PermissionError:  # a folder in which nothing can be made may still have files that can be written
        if status is None:
            raise
        _write_in_place(file, content)
        return
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o666 & ~_umask() if status is None else stat.S_IMODE(status.st_mode))
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def edit_file(file: Path, path: str, old: str, new: str, replace_all: bool) -> int:
    """Replace text in a file; returns the number of replacements."""
    if not old:
        raise WorkspaceError("the text to replace is empty; create a file by writing it")
    if old == new:
        raise WorkspaceError("the text to replace and its replacement are the same")
    size = _regular(file, path).st_size
    if size > EDIT_LIMIT:
        raise WorkspaceError(
            f"{path} has {size // MEGABYTE} MB, and files of at most {EDIT_LIMIT // MEGABYTE} MB can be edited; use sed in bash"
        )
    content = file.read_bytes()
    # surrogateescape carries bytes that are not UTF-8 through unharmed.
    wanted, instead = (text.encode("utf-8", "surrogateescape") for text in (old, new))
    count = sum(1 for _ in pattern(wanted).finditer(content))
    if count == 0:
        raise WorkspaceError(_not_found(path, nearest(content, wanted)))
    if count > 1 and not replace_all:
        raise WorkspaceError(f"the text to replace occurs {count} times in {path}; add lines around it, or replace all of them")
    replace_file(file, path, replaced(content, wanted, instead))
    return count


def _not_found(path: str, lines: str) -> str:
    what = f"the text to replace does not occur in {path}"
    if not lines:
        return f"{what}; read the file and copy it exactly"
    return f"{what}; copy it exactly, without line numbers. The nearest lines are:\n{lines}"


def _status(file: Path) -> os.stat_result | None:
    """None when there is no such file. Raises OSError for what cannot be looked at, such as a loop of links."""
    try:
        return file.stat()
    except FileNotFoundError:
        return None


def _regular(file: Path, path: str) -> os.stat_result:
    """Refuse what cannot be read as a file; opening a FIFO, for one, would block indefinitely."""
    status = _status(file)
    if status is None:
        raise WorkspaceError(f"no such file: {path}")
    _check_regular(status, path)
    return status


def _check_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise WorkspaceError(f"{path} is a directory; list it instead")
    if not stat.S_ISREG(status.st_mode):
        raise WorkspaceError(f"{path} is not a regular file")


def _write_in_place(file: Path, content: bytes) -> None:
    with file.open("r+b") as stream:
        stream.write(content)
        stream.truncate()


def _umask() -> int:
    """This process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
