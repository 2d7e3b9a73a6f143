"""Why a session's database cannot be used, and what to do about it."""

from __future__ import annotations

import errno
import math
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from session_runtime.session.reserve import INDEX_BYTES

DAMAGED: Final = "The database is damaged. Restore it from a snapshot or an archive of the session, or start a new session"


class StoreError(Exception):
    """The database cannot be used; the message says why and what to do."""


class VolumeFullError(StoreError):
    """There is no room for the database; it can be opened when there is."""


def is_full(error: BaseException) -> bool:
    """Whether the database could not be written because there is no room on its volume."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def unusable(what: str, error: BaseException, directory: Path) -> StoreError:
    """The error of a database that cannot be opened, with what to do about it."""
    full = is_full(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if not full and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:  # SQLite's word for its index
        full = _free(directory) < INDEX_BYTES
    if full:
        return VolumeFullError(f"{what}: {error}. The volume is full. Enlarge the volume, or remove files from it")
    return StoreError(f"{what}: {error}. {_advice(error)}")


def _free(directory: Path) -> float:
    """Bytes that are free on the volume; infinite when that is not known."""
    with suppress(OSError):
        status = os.statvfs(directory)
        return status.f_bavail * status.f_frsize
    return math.inf


def _advice(error: BaseException) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_READONLY or getattr(error, "errno", None) in (errno.EROFS, errno.EACCES):
        return "The volume cannot be written. Check how it is mounted and who owns its files"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DAMAGED
    return "Check the volume, then start the session again"
