"""A session as one file, to keep it or to continue it elsewhere.

The file is a compressed tar archive: `manifest.json`, the database `session.db`, and, if requested, the workspace's files below
`workspace/`. It holds all that was said in the session, but no credentials. `command.py` is the command line, and `hub.py` puts
the file into a repository on the Hugging Face Hub.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from session_runtime.session.facts import Facts
from session_runtime.session.store import DATABASE, MIGRATIONS

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
WORKSPACE: Final = "workspace"


class ArchiveError(Exception):
    """The archive cannot be written or read; the message says why and what to do."""


def export(state_dir: Path, archive: Path, workspace: Path | None, now: datetime) -> dict[str, Any]:
    """Write the session to a new file; also while it runs: it is then exported as of one moment. Returns the manifest."""
    database = state_dir / DATABASE
    if not database.is_file():
        raise ArchiveError(f"no session found in {state_dir}. Name its folder with --state-dir")
    if archive.exists():
        raise ArchiveError(f"{archive} already exists. Name another file")
    with tempfile.TemporaryDirectory(dir=archive.absolute().parent) as folder:
        copy = Path(folder) / DATABASE
        with (
            closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            manifest = _manifest(target, now)
        unfinished = Path(folder) / "archive"
        with tarfile.open(unfinished, "w:gz") as tar:
            text = json.dumps(manifest, indent=2).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
            tar.add(copy, DATABASE)
            if workspace is not None:
                tar.add(workspace, WORKSPACE)
        os.replace(unfinished, archive)
    return manifest


def restore(archive: Path, state_dir: Path, workspace: Path | None) -> dict[str, Any]:
    """Put an archived session into an empty state folder, from which a runtime continues it. Returns the manifest."""
    if (state_dir / DATABASE).exists():
        raise ArchiveError(f"{state_dir} already holds a session. Name an empty folder with --state-dir")
    try:
        with tarfile.open(archive) as tar, tempfile.TemporaryDirectory(dir=_made(state_dir)) as folder:
            tar.extractall(folder, _wanted(tar), filter="data")
            manifest: dict[str, Any] = json.loads((Path(folder) / MANIFEST).read_text())
            if manifest["format"] != FORMAT or manifest["database_version"] > len(MIGRATIONS):
                raise ArchiveError(f"{archive} was written by a newer runtime. Import it with that version")
            if workspace is not None:
                _restore_workspace(tar, workspace)
            os.replace(Path(folder) / DATABASE, state_dir / DATABASE)
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise ArchiveError(f"{archive} cannot be imported: {error}") from error
    return manifest


def _manifest(database: sqlite3.Connection, now: datetime) -> dict[str, Any]:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    facts = Facts.from_rows(database.execute("SELECT name, value FROM facts"))
    return {
        "format": FORMAT,
        "database_version": version,
        "exported_at": now.isoformat(),
        "created_at": facts.created_at,
        "last_seq": facts.last_seq or 0,
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _wanted(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The two files at the top, and nothing that only looks like them."""
    return [tar.getmember(name) for name in (MANIFEST, DATABASE) if tar.getmember(name).isreg()]


def _restore_workspace(tar: tarfile.TarFile, workspace: Path) -> None:
    """What was below `workspace/` goes into that folder; the data filter refuses what would land outside of it."""
    for member in tar.getmembers():
        if member.name == WORKSPACE or member.name.startswith(f"{WORKSPACE}/"):
            member.name = member.name.removeprefix(WORKSPACE).lstrip("/") or "."
            tar.extract(member, _made(workspace), filter="data")
