"""`python -m session_runtime export | import`: a session as one file, to keep it or to go on with it elsewhere.

The file is a compressed tar archive: `manifest.json`, the database `session.db`, and, when it was asked for, the
workspace's files below `workspace/`. It holds all that was said in the session, but no credentials. It can also be put into
a repository on the Hugging Face Hub (`hub.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from session_runtime.session.store import DATABASE, MIGRATIONS
from session_runtime.wire import STATE_DIR

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
WORKSPACE: Final = "workspace"


class ArchiveError(Exception):
    """The archive cannot be written or read; the message says why and what to do."""


def export(state_dir: Path, archive: Path, workspace: Path | None, now: datetime) -> dict[str, Any]:
    """Write the session to a new file; also while it runs: it is then exported as of one moment. Returns the manifest."""
    database = state_dir / DATABASE
    if not database.is_file():
        raise ArchiveError(f"there is no session in {state_dir}; name its folder with --state-dir")
    if archive.exists():
        raise ArchiveError(f"{archive} exists already; name another file")
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
    """Put an archived session into an empty state folder, from which a runtime goes on with it. Returns the manifest."""
    if (state_dir / DATABASE).exists():
        raise ArchiveError(f"{state_dir} holds a session already; name an empty folder with --state-dir")
    try:
        with tarfile.open(archive) as tar, tempfile.TemporaryDirectory(dir=_made(state_dir)) as folder:
            tar.extractall(folder, _wanted(tar), filter="data")
            manifest: dict[str, Any] = json.loads((Path(folder) / MANIFEST).read_text())
            if manifest["format"] != FORMAT or manifest["database_version"] > len(MIGRATIONS):
                raise ArchiveError(f"{archive} was written by a newer runtime; import it with that one")
            if workspace is not None:
                _restore_workspace(tar, workspace)
            os.replace(Path(folder) / DATABASE, state_dir / DATABASE)
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise ArchiveError(f"{archive} cannot be imported: {error}") from error
    return manifest


def _manifest(database: sqlite3.Connection, now: datetime) -> dict[str, Any]:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    facts = dict(database.execute("SELECT name, value FROM facts WHERE name IN ('created_at', 'last_seq')"))
    return {
        "format": FORMAT,
        "database_version": version,
        "exported_at": now.isoformat(),
        "created_at": facts.get("created_at"),
        "last_seq": int(facts.get("last_seq", 0)),
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _wanted(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The two files at the top, and nothing that only looks like them."""
    return [tar.getmember(name) for name in (MANIFEST, DATABASE) if tar.getmember(name).isreg()]


def _restore_workspace(tar: tarfile.TarFile, workspace: Path) -> None:
    """What was below `workspace/` goes into that folder; the data filter refuses whatever would land outside of it."""
    for member in tar.getmembers():
        if member.name == WORKSPACE or member.name.startswith(f"{WORKSPACE}/"):
            member.name = member.name.removeprefix(WORKSPACE).lstrip("/") or "."
            tar.extract(member, _made(workspace), filter="data")


def main(command: str, arguments: Sequence[str]) -> int:
    """The command line of `export` and `import`; returns the exit status."""
    options = _parser(command).parse_args(arguments)
    try:
        if options.hub is not None:
            manifest = _over_hub(command, options)
        elif command == "export":
            manifest = export(options.state_dir, Path(options.archive), options.workspace, datetime.now(UTC))
        else:
            manifest = restore(Path(options.archive), options.state_dir, options.workspace)
    except ArchiveError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{command}ed the session of {manifest['created_at']} with {manifest['last_seq']} events")
    return 0


def _over_hub(command: str, options: argparse.Namespace) -> dict[str, Any]:
    from agent.tools.hub.client import HubSettings
    from session_runtime import agent_assembly as engine
    from session_runtime.archive import hub

    # In a session's pod its credentials are there under a prefix.
    settings = HubSettings.from_credentials({**engine.credentials(os.environ), **os.environ})
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive.tar.gz"
        if command == "export":
            manifest = export(options.state_dir, archive, options.workspace, datetime.now(UTC))
            asyncio.run(hub.upload(settings, options.hub, archive, options.archive))
            return manifest
        asyncio.run(hub.download(settings, options.hub, options.archive, archive))
        return restore(archive, options.state_dir, options.workspace)


def _parser(command: str) -> argparse.ArgumentParser:
    exports = command == "export"
    parser = argparse.ArgumentParser(
        f"python -m session_runtime {command}",
        description="Write a session to a file." if exports else "Put an exported session into a state folder.",
        epilog="The Hub is asked with the token in HF_TOKEN, or with the session's own; HF_ENDPOINT names another Hub.",
    )
    parser.add_argument("archive", help="the file (.tar.gz), or its path in the repository on the Hub")
    parser.add_argument("--state-dir", type=Path, default=Path(STATE_DIR), help="folder of the session (%(default)s)")
    parser.add_argument("--workspace", type=Path, help="folder of the workspace's files, to include them")
    parser.add_argument(
        "--to-hub" if exports else "--from-hub",
        dest="hub",
        metavar="OWNER/NAME",
        help="dataset repository on the Hugging Face Hub" + (", made if it is not there, and private then" if exports else ""),
    )
    return parser
