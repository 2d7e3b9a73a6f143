"""Export and import: the session resumes elsewhere as if nothing had happened."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.testing import calls, says
from session_runtime.archive.archive import ArchiveError, export, restore
from session_runtime.archive.command import main
from session_runtime.session.store import DATABASE, MIGRATIONS, Store
from support.runtime.harness import runtime

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 2, tzinfo=UTC)


async def test_a_session_goes_on_elsewhere(short_path: Path, tmp_path: Path) -> None:
    script = (calls(("write", {"path": "a/b.txt", "content": "kept"})), says("written"), says("it is kept"))
    (here := short_path / "here").mkdir()
    (there := short_path / "there").mkdir()
    archive = tmp_path / "session.tar.gz"
    async with runtime(here, *script, prompt="write") as run:
        before = await run.events(submission="prompt")
        manifest = export(here / "state", archive, here / "work", NOW)  # while it runs
    assert manifest["last_seq"] >= before[-1].seq
    assert restore(archive, there / "state", there / "work") == manifest
    assert (there / "work" / "a" / "b.txt").read_text() == "kept"
    async with runtime(there, *script, prompt="write") as run, run.client() as client:
        assert (await client.info())["message_count"] == 4
        assert await run.events(submission="prompt") == before
        assert (await client.run("still there?")).data["message"] == "it is kept"
        assert (await run.until("turn_complete", after=manifest["last_seq"])).seq > manifest["last_seq"]


def test_what_cannot_be_is_refused_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArchiveError, match="no session found"):
        export(tmp_path / "none", tmp_path / "a.tar.gz", None, NOW)
    Store(tmp_path / "state").close()
    export(tmp_path / "state", tmp_path / "a.tar.gz", None, NOW)
    with pytest.raises(ArchiveError, match="already exists"):
        export(tmp_path / "state", tmp_path / "a.tar.gz", None, NOW)
    with pytest.raises(ArchiveError, match="already holds a session"):
        restore(tmp_path / "a.tar.gz", tmp_path / "state", None)
    assert main("import", [str(tmp_path / "nothing"), "--state-dir", str(tmp_path / "new")]) == 1
    assert "cannot be imported" in capsys.readouterr().err
    assert main("import", [str(tmp_path / "a.tar.gz"), "--state-dir", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / DATABASE).exists()


@pytest.mark.parametrize("name", ["workspace/../../outside", "workspace/link/outside", "../outside", "/outside"])
def test_an_archive_cannot_write_outside(tmp_path: Path, name: str) -> None:
    Store(tmp_path / "state").close()
    archive = tmp_path / "bad.tar.gz"
    manifest = {"format": 1, "database_version": len(MIGRATIONS), "created_at": None, "last_seq": 0}
    with tarfile.open(archive, "w:gz") as tar:
        for path, content in (("manifest.json", json.dumps(manifest).encode()), (name, b"bad")):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            if path.startswith("workspace/link"):
                link = tarfile.TarInfo("workspace/link")
                link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
                tar.addfile(link)
            tar.addfile(entry, io.BytesIO(content))
        tar.add(tmp_path / "state" / DATABASE, DATABASE)
    if name.startswith("workspace"):
        with pytest.raises(ArchiveError):
            restore(archive, tmp_path / "new", tmp_path / "work")
    else:
        restore(archive, tmp_path / "new", tmp_path / "work")
    assert not list(tmp_path.rglob("*outside"))


def test_an_archive_of_a_newer_runtime_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "newer.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        manifest = json.dumps({"format": 1, "database_version": len(MIGRATIONS) + 1}).encode()
        for path in ("manifest.json", DATABASE):
            entry = tarfile.TarInfo(path)
            entry.size = len(manifest)
            tar.addfile(entry, io.BytesIO(manifest))
    with pytest.raises(ArchiveError, match="newer runtime"):
        restore(archive, tmp_path / "new", None)
