"""`python -m session_runtime export | import`: the command line of archives."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.tools.hub.client import HubSettings
from session_runtime.archive import hub
from session_runtime.archive.archive import ArchiveError, export, restore
from session_runtime.credentials import credentials
from session_runtime.wire import STATE_DIR


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
    # In a session's pod its credentials are there under a prefix.
    settings = HubSettings.from_credentials({**credentials(os.environ), **os.environ})
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
        epilog="The Hub's token is read from HF_TOKEN or the session's credentials. HF_ENDPOINT selects another Hub.",
    )
    parser.add_argument("archive", help="the file (.tar.gz), or its path in the repository on the Hub")
    parser.add_argument("--state-dir", type=Path, default=Path(STATE_DIR), help="folder of the session (%(default)s)")
    parser.add_argument("--workspace", type=Path, help="folder of the workspace's files, to include them")
    parser.add_argument(
        "--to-hub" if exports else "--from-hub",
        dest="hub",
        metavar="OWNER/NAME",
        help="dataset repository on the Hugging Face Hub" + ("; created as private if it does not exist" if exports else ""),
    )
    return parser
