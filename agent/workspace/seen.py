"""Which version of a file the model has seen."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Optional, Tuple  # noqa: UP035 - Python 3.9

from agent.workspace import WorkspaceError

SEEN_LIMIT = 10_000
"""Files that are remembered."""

_Version = Optional[Tuple[int, int, int]]  # noqa: UP006, UP045 - Python 3.9


class Seen:
    """The versions of files that were read or written last through the tools."""

    def __init__(self) -> None:
        self._versions: dict[Path, _Version] = {}

    def note(self, file: Path) -> None:
        """The model knows the file as it is now."""
        file = _real(file)
        self._versions.pop(file, None)
        self._versions[file] = _version(file)
        if len(self._versions) > SEEN_LIMIT:
            del self._versions[next(iter(self._versions))]

    def has_changed(self, file: Path) -> bool:
        """Something else has changed the file since; False for a file that the model has not seen."""
        file = _real(file)
        return file in self._versions and self._versions[file] != _version(file)

    def check_before_replacing(self, file: Path, path: str) -> None:
        """Raises WorkspaceError when what would be lost is something that the model does not know."""
        if self.has_changed(file) and _version(file) is not None:
            raise WorkspaceError(f"{path} has changed since you read or wrote it; read it again before you replace it")


def _real(file: Path) -> Path:
    """One path for all the names of a file."""
    return Path(os.path.realpath(file))


def _version(file: Path) -> _Version:
    with contextlib.suppress(OSError):
        status = file.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None
