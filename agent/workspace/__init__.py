"""Where the tools act: a folder in which commands run and files are read and written.

This package needs nothing but the standard library and Python 3.9: it is copied into any image that the workspace
container runs, and serves there behind a socket. Paths are relative to the workspace's root; absolute ones are
allowed, because a command could reach them anyway: the boundary is the container, not this package.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Callable, Protocol  # noqa: UP035 - Python 3.9

HEAD_LIMIT = 64 * 1024
"""Characters kept from the beginning of a command's output."""

TAIL_LIMIT = 192 * 1024
"""Characters kept from the end of a command's output."""

READ_LIMIT = 1024 * 1024
"""Most characters that one `read` returns."""

LIST_LIMIT = 1000
"""Most entries that one `list` returns."""


class WorkspaceError(Exception):
    """A file operation that could not be done; the message says why, for a person and for the model."""


class ImageFile(WorkspaceError):
    """A file was to be read as text, and is an image; `Workspace.read_image` reads it."""


@dataclass(frozen=True)
class CommandResult:
    """How a command ended."""

    exit_code: int | None
    """None when it was killed because its time was up or its call was cancelled; negative when a signal ended it."""
    output: str
    """Standard output and error as they came, interleaved, without escape sequences and overwritten lines."""
    timed_out: bool = False
    truncated: bool = False
    """True when the middle of the output was dropped, to bound the memory that it takes."""
    directory: str | None = None
    """Where the next command begins, when that is not the root."""


class CommandInterrupted(asyncio.CancelledError):
    """The call was cancelled in the middle of its command, which has been killed; a caller that does not know this class
    sees an ordinary cancellation."""

    def __init__(self, result: CommandResult) -> None:
        super().__init__()
        self.result = result
        """With the output so far; `exit_code` is None."""


@dataclass(frozen=True)
class Edited:
    """What an edit has done."""

    count: int
    """Replacements."""
    had_changed: bool = False
    """True when something else had changed the file since it was last read or written through the workspace."""


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
        """Run a shell command for at most `timeout` seconds, in the directory and with the exported variables that the last one
        left. It is then killed with all it started, and likewise when the call is cancelled: the call then raises
        CommandInterrupted.
        """
        ...

    async def read(self, path: str, *, offset: int = 1, limit: int | None = None) -> str:
        """Lines of a text file from line `offset` (the first is 1), at most `limit` of them. Raises ImageFile for an image."""
        ...

    async def read_image(self, path: str) -> bytes:
        """All of an image file (`images.KINDS`), at most `images.IMAGE_LIMIT` bytes."""
        ...

    async def write(self, path: str, content: str) -> None:
        """Create or replace a text file, with the folders it needs."""
        ...

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> Edited:
        """Replace `old`, which must occur exactly once unless `replace_all`."""
        ...

    async def list(self, path: str = ".", *, glob: str = "*", depth: int = 1) -> Listing:
        """What is in a folder, and `depth` - 1 levels of folders below it; only names that match `glob`."""
        ...
