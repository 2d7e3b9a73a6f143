"""Where the tools act: a folder in which commands run and files are read and written.

This module needs nothing but the standard library and Python 3.9: it is copied into any image that the workspace
container runs, and serves there behind a socket. Paths are relative to the workspace's root; absolute ones are
allowed, because a command could reach them anyway: the boundary is the container, not this module.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import shutil
import stat
import tempfile
import uuid
from collections import deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Callable, Iterator, Mapping, Protocol, TypeVar  # noqa: UP035 - Python 3.9

from agent.workspace_processes import CALL_MARK, drain, kill_all

_T = TypeVar("_T")

HEAD_LIMIT = 64 * 1024
"""Characters kept from the beginning of a command's output."""

TAIL_LIMIT = 192 * 1024
"""Characters kept from the end of a command's output."""

READ_LIMIT = 1024 * 1024
"""Most characters that one `read` returns."""

LIST_LIMIT = 1000
"""Most entries that one `list` returns."""

SCAN_LIMIT = 100_000
"""Most entries that one `list` looks at, including what its glob leaves out."""

PIPE_GRACE = 0.2
"""Seconds to wait for the rest of the output once the command itself has ended.

A process left in the background keeps the pipe open for as long as it lives; its output is not waited for.
"""


BACKGROUND_NOTE = (
    "\n[processes of this command still run in the background; what they print from now on is dropped, so redirect it to a "
    "file if it is needed]"
)


class WorkspaceError(Exception):
    """A file operation that could not be done; the message says why, for a person and for the model."""


@dataclass(frozen=True)
class CommandResult:
    """How a command ended."""

    exit_code: int | None
    """None when it was killed because its time was up; negative when a signal ended it."""
    output: str
    """Standard output and error as they came, interleaved."""
    timed_out: bool = False
    truncated: bool = False
    """True when the middle of the output was dropped, to bound the memory that it takes."""


@dataclass(frozen=True)
class Entry:
    """One entry of a folder."""

    path: str
    """Relative to the folder that was listed."""
    kind: str
    """`file`, `folder`, `link` (which is not followed) or `other`."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Listing:
    """What is in a folder."""

    entries: tuple[Entry, ...]
    """Sorted by path."""
    truncated: bool = False
    """True when there was more to see than `LIST_LIMIT` or `SCAN_LIMIT` allows; what lies deepest is left out."""


class Workspace(Protocol):
    """What the workspace tools need; `LocalWorkspace` here, a client over a socket in a session pod."""

    async def run(self, command: str, *, timeout: float, on_output: Callable[[str], None] | None = None) -> CommandResult:
        """Run a shell command for at most `timeout` seconds; cancelling the call kills it with all it started."""
        ...

    async def read(self, path: str, *, offset: int = 1, limit: int | None = None) -> str:
        """Lines of a text file from line `offset` (the first is 1), at most `limit` of them."""
        ...

    async def write(self, path: str, content: str) -> None:
        """Create or replace a text file, with the folders it needs."""
        ...

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> int:
        """Replace `old`, which must occur exactly once unless `replace_all`; returns the number of replacements."""
        ...

    async def list(self, path: str = ".", *, glob: str = "*", depth: int = 1) -> Listing:
        """What is in a folder, and `depth` - 1 levels of folders below it; only names that match `glob`."""
        ...


class LocalWorkspace:
    """A workspace on this machine, below `root`.

    `environment` is the whole environment of the commands; None passes on this process's own.
    """

    def __init__(self, root: Path, environment: Mapping[str, str] | None = None) -> None:
        self._root = Path(root)
        self._environment = None if environment is None else dict(environment)
        self._shell = shutil.which("bash") or "/bin/sh"

    async def run(self, command: str, *, timeout: float, on_output: Callable[[str], None] | None = None) -> CommandResult:
        output = _Output(on_output)
        mark = f"{CALL_MARK}={uuid.uuid4().hex}"
        process, transport = await self._start(command, output, mark)
        background = False
        try:
            await asyncio.wait_for(process.wait(), timeout)
            timed_out = False
        except asyncio.TimeoutError:  # noqa: UP041 - Python 3.9, where it is not the builtin TimeoutError
            timed_out = True
        finally:
            # Also on the way out of a cancellation. A command that ended by itself may have left a server in the
            # background on purpose; one that was cut off takes everything it started with it.
            if process.returncode is None:
                await kill_all(process, mark)
            if not output.ended.done():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.shield(output.ended), PIPE_GRACE)
            if not output.ended.done():
                background = True
                drain(transport)
            transport.close()
        return CommandResult(
            exit_code=None if timed_out else process.returncode,
            output=output.text() + (BACKGROUND_NOTE if background else ""),
            timed_out=timed_out,
            truncated=output.dropped > 0,
        )

    async def _start(
        self, command: str, output: _Output, mark: str
    ) -> tuple[asyncio.subprocess.Process, asyncio.ReadTransport]:
        """Start the command with one pipe for both of its outputs.

        The pipe is ours and not the subprocess module's, because asyncio's `Process.wait` waits for its own pipes to
        close as well (bpo-119710, changed in 3.12.4), that is, for every process in the background.
        """
        reader, writer = os.pipe()
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: output, os.fdopen(reader, "rb", buffering=0)
            )
        except BaseException:
            os.close(writer)
            raise
        try:
            process = await asyncio.create_subprocess_exec(
                self._shell,
                "-c",
                command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                cwd=self._root,
                env={**(os.environ if self._environment is None else self._environment), CALL_MARK: mark.partition("=")[2]},
                start_new_session=True,
            )
        except OSError as error:
            transport.close()
            raise WorkspaceError(f"the shell could not be started in {self._root}: {error.strerror}") from error
        except BaseException:
            transport.close()
            raise
        finally:
            os.close(writer)
        return process, transport

    async def read(self, path: str, *, offset: int = 1, limit: int | None = None) -> str:
        return await _in_thread(lambda: _read_lines(self._resolve(path), path, offset, limit))

    async def write(self, path: str, content: str) -> None:
        await _in_thread(lambda: _replace_file(self._resolve(path), path, content.encode("utf-8", "surrogateescape")))

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> int:
        return await _in_thread(lambda: _edit_file(self._resolve(path), path, old, new, replace_all))

    async def list(self, path: str = ".", *, glob: str = "*", depth: int = 1) -> Listing:
        return await _in_thread(lambda: _list_folder(self._resolve(path), path, glob, depth))

    def _resolve(self, path: str) -> Path:
        if not path or "\0" in path:
            raise WorkspaceError("the path is empty or holds a NUL character")
        inside = path[2:] if path[:2] == "~/" else "." if path == "~" else path  # the home of commands is the root
        return self._root / inside


class _Output(asyncio.Protocol):
    """Collects what comes through the pipe: the beginning and the end, at any length."""

    def __init__(self, on_output: Callable[[str], None] | None) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.dropped = 0
        self._on_output = on_output
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._head: list[str] = []
        self._head_size = 0
        self._tail: deque[str] = deque()
        self._tail_size = 0

    def data_received(self, data: bytes) -> None:
        self._add(self._decoder.decode(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._add(self._decoder.decode(b"", final=True))
        if not self.ended.done():
            self.ended.set_result(None)

    def _add(self, text: str) -> None:
        if not text:
            return
        if self._on_output is not None:
            self._on_output(text)
        room = HEAD_LIMIT - self._head_size
        if room > 0:
            self._head.append(text[:room])
            self._head_size += len(self._head[-1])
            text = text[room:]
        if text:
            self._tail.append(text)
            self._tail_size += len(text)
        while self._tail_size - len(self._tail[0] if self._tail else "") >= TAIL_LIMIT:
            gone = self._tail.popleft()
            self._tail_size -= len(gone)
            self.dropped += len(gone)

    def text(self) -> str:
        note = f"\n[... {self.dropped} characters were not kept ...]\n" if self.dropped else ""
        return "".join(self._head) + note + "".join(self._tail)


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Do blocking file work off the event loop, with the system's errors said in words."""
    try:
        return await asyncio.get_running_loop().run_in_executor(None, work)
    except OSError as error:
        raise WorkspaceError(f"{error.strerror or error}: {error.filename}") from error
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise WorkspaceError(str(error)) from error


def _check_file(file: Path, path: str) -> None:
    """Refuse what cannot be read as a file; opening a FIFO, for one, would block indefinitely."""
    if not file.exists():
        raise WorkspaceError(f"no such file: {path}")
    if file.is_dir():
        raise WorkspaceError(f"{path} is a directory; list it instead")
    if not stat.S_ISREG(file.stat().st_mode):
        raise WorkspaceError(f"{path} is not a regular file")


def _read_lines(file: Path, path: str, offset: int, limit: int | None) -> str:
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


def _replace_file(file: Path, path: str, content: bytes) -> None:
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


def _edit_file(file: Path, path: str, old: str, new: str, replace_all: bool) -> int:
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
    _replace_file(file, path, text.replace(old, new).encode("utf-8", "surrogateescape"))
    return count


def _list_folder(folder: Path, path: str, glob: str, depth: int) -> Listing:
    if depth < 1:
        raise WorkspaceError("depth counts from 1")
    if not folder.exists():
        raise WorkspaceError(f"no such folder: {path}")
    if not folder.is_dir():
        raise WorkspaceError(f"{path} is not a folder; read it instead")
    os.scandir(folder).close()  # one that cannot be read is an error here, and passed over further down
    found: list[Entry] = []
    truncated = False
    for looked_at, entry in enumerate(_walk(folder, depth)):
        if len(found) == LIST_LIMIT or looked_at == SCAN_LIMIT:
            truncated = True
            break
        if fnmatchcase(entry.name, glob) or entry.name == glob:  # [id].tsx is a name too
            found.append(_entry(entry, folder))
    return Listing(tuple(sorted(found, key=lambda entry: entry.path)), truncated)


def _walk(folder: Path, depth: int) -> Iterator[os.DirEntry[str]]:
    """The folder's entries level by level, so that a limit cuts off what lies deepest. Links are not followed."""
    level = [str(folder)]
    for _ in range(depth):
        below: list[str] = []
        for path in level:
            with contextlib.suppress(OSError), os.scandir(path) as entries:
                for entry in entries:
                    yield entry
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
        level = below


def _entry(entry: os.DirEntry[str], folder: Path) -> Entry:
    kind = "link" if entry.is_symlink() else "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    size = 0
    with contextlib.suppress(OSError):  # it may vanish at any moment
        size = entry.stat(follow_symlinks=False).st_size
    return Entry(os.path.relpath(entry.path, folder), kind, size)
