"""Room on the volume for the session's database that no command of the workspace can take.

On a persistent volume the database and the files of the workspace share one file system, so a command can fill it. Then
every commit would fail, and only the session could remove the files. So the blocks of the write-ahead log are allocated
before they are needed: SQLite keeps the log's file between checkpoints and writes it from the beginning again (its
documentation, "WAL mode", and `journal_size_limit`), and a log whose header is not valid counts as empty. The main file gets
blocks behind its end, which the next pages take.

SQLite deletes the log when it closes the database, so a second name keeps the log's blocks until the next start.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

PAGE: Final = 4096
"""SQLite's default page size."""

LOG_PAGES: Final = 4062
"""Pages that the first block of the log's index names. More would need room for the next block of the index (SQLite's
documentation, "WAL-mode File Format")."""

LOG_BYTES: Final = 32 + LOG_PAGES * (24 + PAGE)
"""Size of a log of that many pages: some 200 results of tool calls at their greatest length."""

MAIN_BYTES: Final = 16 * 1024 * 1024
"""Blocks behind the end of the main file."""

INDEX_BYTES: Final = 128 * 1024
"""Room for the log's index, which SQLite allocates at each start, and for a few entries of the folder."""

LOG_HEADER: Final = 32

FALLOC_FL_KEEP_SIZE: Final = 1


class Reserve:
    """The reserved room beside one database."""

    def __init__(self, database: Path) -> None:
        self._main = database
        self._log = database.with_name(database.name + "-wal")
        self._kept_log = database.with_name("reserve")
        self._spare = database.with_name("reserve-index")

    def give(self) -> None:
        """Call it before the database is opened: puts the kept log in place, and frees the room for its index."""
        if self._log.exists():
            self._kept_log.unlink(missing_ok=True)  # another name of the same file, or of an older one
        elif self._kept_log.exists():
            with self._kept_log.open("r+b") as log:
                log.write(bytes(LOG_HEADER))  # what it holds is in the main file already
                log.flush()
                os.fsync(log.fileno())
            self._kept_log.rename(self._log)
        self._spare.unlink(missing_ok=True)

    def take(self) -> None:
        """Call it when the database is open, and now and then: allocates what is missing, if there is room."""
        try:
            _allocate(self._log, LOG_BYTES)
            _allocate(self._spare, INDEX_BYTES)
            _allocate_behind(self._main, MAIN_BYTES)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                logger.warning("no room can be reserved for the session's database: %s", error.strerror)

    def keep(self) -> None:
        """Call it before the database is closed."""
        with contextlib.suppress(OSError):
            self._kept_log.unlink(missing_ok=True)
            os.link(self._log, self._kept_log)


def _allocate(path: Path, size: int) -> None:
    """Make the file that large, with blocks for all of it; what it holds stays."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        status = os.fstat(handle)
        if status.st_size < size or status.st_blocks * 512 < size:
            os.posix_fallocate(handle, 0, size)
    finally:
        os.close(handle)


def _allocate_behind(path: Path, size: int) -> None:
    """Allocate blocks behind the end of the file, which keeps its size (fallocate(2))."""
    library = ctypes.CDLL(None, use_errno=True)
    handle = os.open(path, os.O_RDWR)
    try:
        end = os.fstat(handle).st_size
        offset, length = ctypes.c_int64(end), ctypes.c_int64(size)
        if library.fallocate(handle, FALLOC_FL_KEEP_SIZE, offset, length) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(handle)
