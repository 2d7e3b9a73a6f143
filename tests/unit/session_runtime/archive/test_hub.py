"""A session's archive on the Hugging Face Hub, which is a server on loopback here."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import pytest

from agent.testing import says
from session_runtime.archive import hub as hub_module
from session_runtime.archive.archive import restore
from session_runtime.session.store import DATABASE, Store
from support.agent.hub_server import TOKEN, HubServer, refused, serve
from support.runtime.harness import DEADLINE, ROOT, runtime

pytestmark = pytest.mark.anyio

REPOSITORY = "team/sessions"
PATH = "team/demo-7f3c.tar.gz"


def sign_in(monkeypatch: pytest.MonkeyPatch, hub: HubServer, token: str = TOKEN) -> None:
    """As the operator passes a session's credentials."""
    monkeypatch.setenv("AGENTSESSION_CREDENTIAL_HF_ENDPOINT", hub.url)
    monkeypatch.setenv("AGENTSESSION_CREDENTIAL_HF_TOKEN", token)


async def finish(folder: Path, repository: str | None = REPOSITORY) -> None:
    """A session that finishes by itself, and well."""
    async with runtime(folder, says("done"), mode="Task", prompt="go", archive_repository=repository) as run:
        assert await run.ended() == 0


async def test_a_session_that_finishes_is_kept_and_goes_on_elsewhere(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serve() as hub:
        sign_in(monkeypatch, hub)
        await finish(short_path)
        assert f"/datasets/{REPOSITORY}/blob/main/{PATH}\n" in capsys.readouterr().out
        (created,) = hub.asked("POST", "/api/repos/create")
        assert created.json["visibility"] == "private"
        assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in hub.requests)
        (archive := short_path / "archive.tar.gz").write_bytes(hub.repositories["dataset", REPOSITORY].files[PATH])
    manifest = restore(archive, short_path / "again", None)
    store = Store(short_path / "again")
    assert store.load().last_seq == manifest["last_seq"] > 5
    store.close()
    assert not [path for path in (short_path / "state").iterdir() if path.is_dir()]


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # how huggingface_hub uses httpx
async def test_a_repository_that_is_there_is_used_and_large_files_are_uploaded(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as hub:
        hub.add("dataset", REPOSITORY, other=b"kept").lfs.add(PATH)
        sign_in(monkeypatch, hub)
        await finish(short_path)
        assert not hub.asked("POST", "/api/repos/create")
        files = hub.repositories["dataset", REPOSITORY].files
        assert set(files) == {"other", PATH}
        assert files[PATH] in hub.large.values()


async def test_without_a_repository_nobody_is_asked(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve() as hub:
        sign_in(monkeypatch, hub)
        await finish(short_path, None)
        assert hub.requests == []


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("no token", "HF_TOKEN"),
        ("refused", "does not accept this session's token"),
        ("no permission", "lacks the permission"),
        ("hangs", "took longer than 1 s"),
        ("away", "cannot be reached"),
    ],
)
async def test_an_upload_that_fails_is_told_and_holds_nothing_up(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str, said: str
) -> None:
    async with serve() as hub:
        sign_in(monkeypatch, hub, "" if trouble == "no token" else TOKEN)
        commit = f"/api/datasets/{REPOSITORY}/commit/main"
        match trouble:
            case "refused":
                hub.replies[f"/api/datasets/{REPOSITORY}"] = refused(401, "", "Invalid credentials")
            case "no permission":
                hub.replies[commit] = refused(403, "", "Forbidden")
            case "hangs":
                monkeypatch.setattr(hub_module, "UPLOAD_SECONDS", 1.0)
                hub.hold(commit)
            case "away":
                monkeypatch.setenv("AGENTSESSION_CREDENTIAL_HF_ENDPOINT", "http://127.0.0.1:1")
        with caplog.at_level(logging.WARNING, logger="session_runtime"):
            await finish(short_path)
        assert "the session's archive was not uploaded to the Hub: " in caplog.text
        assert said in caplog.text
        assert TOKEN not in caplog.text


async def test_an_archive_goes_to_the_hub_and_comes_back_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path / "here").close()
    async with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        path = "by/hand.tar.gz"
        status, said = await by_hand("export", path, "--to-hub", REPOSITORY, "--state-dir", str(tmp_path / "here"))
        assert (status, said) == (0, "exported the session of None with 0 events\n")
        assert path in hub.repositories["dataset", REPOSITORY].files
        status, said = await by_hand("import", path, "--from-hub", REPOSITORY, "--state-dir", str(tmp_path / "there"))
        assert (status, said) == (0, "imported the session of None with 0 events\n")
        assert (tmp_path / "there" / DATABASE).exists()
        status, said = await by_hand("import", "no.tar.gz", "--from-hub", REPOSITORY, "--state-dir", str(tmp_path / "new"))
        assert status == 1
        assert said.startswith(f"{REPOSITORY}: no.tar.gz: There is no such file")
        monkeypatch.delenv("HF_TOKEN")
        status, said = await by_hand("export", path, "--to-hub", REPOSITORY, "--state-dir", str(tmp_path / "here"))
        assert status == 1
        assert "HF_TOKEN" in said


async def by_hand(command: str, *arguments: str) -> tuple[int | None, str]:
    """Exit status and words of a command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "session_runtime", command, *arguments),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(DEADLINE):
        said, _ = await process.communicate()
    return process.returncode, said.decode()
