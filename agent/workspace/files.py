"""Files: read in lines, replaced as a whole, edited in places."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from agent.workspace import READ_LIMIT, WorkspaceError


def _check_file(file: Path, path: str) -> None:
    """Refuse what cannot be read as a file; opening a FIFO, for one, would block indefinitely."""
    if not file.exists():
        raise WorkspaceError(f"no such file: {path}")
    if file.is_dir():
        raise WorkspaceError(f"{path} is a directory; list it instead")
    if not stat.S_ISREG(file.stat().st_mode):
        raise WorkspaceError(f"{path} is not a regular file")


def read_lines(file: Path, path: str, offset: int, limit: int | None) -> str:
    """Lines of a text file. `path` is its name in messages. Raises WorkspaceError and OSError."""
    if offset < 1 or (limit is not None and limit < 1):
        raise WorkspaceError("offset and limit count from 1")
    _check_file(file, path)
    with file.open("rb") as stream:
        if b"\0" in stream.read(8192):
            raise WorkspaceError(f"{path} is a binary file ({file.stat().st_size} bytes)")
    lines: list[str] = []
    size = number = 0
    # Lines end where the shell's tools end them, at \n alone.
    with file.open(encoding="utf-8", errors="replace", newline="\n") as text:
        # readline is bounded, so that one endless line cannot fill the memory.
        while line := text.readline(READ_LIMIT + 1):
            number += 1
            if number < offset:
                continue
            if limit is not None and len(lines) == limit:
                break
            size += len(line)
            if size > READ_LIMIT:
                raise WorkspaceError(
                    f"{path} has more than {READ_LIMIT} characters there; read less of it with offset and limit"
                )
            lines.append(line)
    if not lines and offset > 1:
        raise WorkspaceError(f"{path} has only {number} lines")
    return "".join(lines)


def replace_file(file: Path, path: str, content: bytes) -> None:
    """Write beside the target and rename, so that no reader, and no kill, ever sees half a file."""
    if file.is_dir():
        raise WorkspaceError(f"{path} is a directory")
    if file.exists() and not stat.S_ISREG(file.stat().st_mode):
        raise WorkspaceError(f"{path} is not a regular file")
    if file.exists() and not file.stat().st_mode & 0o222:
        raise WorkspaceError(f"{path} is read-only; change its mode first if that is not on purpose")
    file = file.resolve()  # a link stays a link: what it points to is replaced
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o666 & ~_umask()
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:64]}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, mode)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    """This process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def edit_file(file: Path, path: str, old: str, new: str, replace_all: bool) -> int:
    """Replace text in a file; returns the number of replacements. Raises WorkspaceError and OSError."""
    if not old:
        raise WorkspaceError("the text to replace is empty; create a file by writing it")
    if old == new:
        raise WorkspaceError("the text to replace and its replacement are the same")
    _check_file(file, path)
    # surrogateescape carries bytes that are not UTF-8 through unharmed.
    text = file.read_bytes().decode("utf-8", "surrogateescape")
    lines, foreign = text.count("\n"), text.count("\r\n")
    if foreign and (lines == foreign or old not in text):  # what the model sends has the shell's line ends
        old, new = (part.replace("\r\n", "\n").replace("\n", "\r\n") for part in (old, new))
    count = text.count(old)
    if count == 0:
        raise WorkspaceError(f"the text to replace does not occur in {path}; read the file and copy it exactly")
    if count > 1 and not replace_all:
        raise WorkspaceError(f"the text to replace occurs {count} times in {path}; add lines around it, or replace all of them")
    replace_file(file, path, text.replace(old, new).encode("utf-8", "surrogateescape"))
    return count
