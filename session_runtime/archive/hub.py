"""Archives of sessions in a dataset repository of the Hugging Face Hub: uploaded when a session finishes, if its class says
so, or by hand."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.tools.hub.client import HubClient, HubSettings
from agent.tools.hub.content import fetch
from agent.tools.tool import ToolError
from session_runtime.archive.archive import ArchiveError, export
from session_runtime.wire import SessionConfig

if TYPE_CHECKING:
    from huggingface_hub import HfApi

UPLOAD_SECONDS: Final = 30.0
"""How long the end of a session waits for its archive, at most."""

KIND: Final = "dataset"
PIECE: Final = 8 * 1024 * 1024
"""Bytes that one request reads."""


def path_of(config: SessionConfig) -> str:
    """Where in the repository a session's archive is. Names come again, uids do not."""
    return f"{config.namespace}/{config.name}-{config.uid}.tar.gz"


async def keep(config: SessionConfig, repository: str, credentials: Mapping[str, str], state_dir: Path, now: datetime) -> str:
    """Upload the session's archive, without its workspace's files, which are in another container; returns its address.

    Raises ArchiveError.
    """
    with tempfile.TemporaryDirectory(dir=state_dir) as folder:
        archive = Path(folder) / "archive.tar.gz"
        await asyncio.to_thread(export, state_dir, archive, None, now)
        return await upload(HubSettings.from_credentials(credentials), repository, archive, path_of(config))


async def upload(settings: HubSettings, repository: str, archive: Path, path: str) -> str:
    """Put an archive into a repository, which is made, for its owner only, if it is not there; returns its address.

    Raises ArchiveError.
    """
    hub = HubClient(settings)

    def work(api: HfApi) -> None:
        if not api.repo_exists(repository, repo_type=KIND):
            api.create_repo(repository, repo_type=KIND, private=True, exist_ok=True)
        message = f"Session {path.removesuffix('.tar.gz')}"
        # An open file and not its path: with that, large ones would go through hf_xet, which wants a cache on the disk.
        with archive.open("rb") as file:
            api.upload_file(path_or_fileobj=file, path_in_repo=path, repo_id=repository, repo_type=KIND, commit_message=message)

    try:
        hub.require_token()
        await hub.call(work, page=hub.page(repository, KIND))
    except ToolError as error:
        raise ArchiveError(f"{repository}: {error}") from error
    return f"{hub.page(repository, KIND)}/blob/main/{path}"


async def download(settings: HubSettings, repository: str, path: str, archive: Path) -> None:
    """Get an archive out of a repository. Raises ArchiveError."""
    hub = HubClient(settings)

    def work(api: HfApi) -> None:
        with archive.open("wb") as file:
            while piece := fetch(api, repository, KIND, path, None, file.tell(), PIECE):
                file.write(piece)

    try:
        await hub.call(work, page=hub.page(repository, KIND))
    except ToolError as error:
        raise ArchiveError(f"{repository}: {path}: {error}") from error
