"""Folders: what is in them, within bounds."""

from __future__ import annotations

import contextlib
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Iterator  # noqa: UP035 - Python 3.9

from agent.workspace import LIST_LIMIT, Entry, Listing, WorkspaceError

SCAN_LIMIT = 100_000
"""Most entries that one `list` looks at, including what its glob leaves out."""


def list_folder(folder: Path, path: str, glob: str, depth: int) -> Listing:
    """What is in a folder. `path` is its name in messages. Raises WorkspaceError and OSError."""
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
