"""Real folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.workspace import LIST_LIMIT, Entry, Listing, WorkspaceError
from agent.workspace.local import LocalWorkspace

pytestmark = pytest.mark.anyio


async def test_folders_are_listed(workspace: LocalWorkspace, tmp_path: Path) -> None:
    await workspace.write("a.txt", "four")
    await workspace.write("sub/b.py", "")
    await workspace.write("sub/deep/c.py", "12")
    (tmp_path / "link").symlink_to("sub")
    os.mkfifo(tmp_path / "fifo")
    kinds = {entry.path: entry.kind for entry in (await workspace.list()).entries}
    assert kinds == {"a.txt": "file", "fifo": "other", "link": "link", "sub": "folder"}
    python = await workspace.list(glob="*.py", depth=3)
    assert python == Listing((Entry("sub/b.py", "file", 0), Entry("sub/deep/c.py", "file", 2)))
    assert (await workspace.list(glob="*.py", depth=2)).entries == (Entry("sub/b.py", "file", 0),)
    assert (await workspace.list("sub/deep")).entries == (Entry("c.py", "file", 2),)
    assert (await workspace.list("link")).entries == (await workspace.list("sub")).entries
    (tmp_path / "empty").mkdir()
    assert await workspace.list("empty") == Listing(())


async def test_a_list_is_bounded_and_keeps_what_is_not_deep(workspace: LocalWorkspace, tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    for number in range(LIST_LIMIT + 10):
        (deep / f"{number:05}").touch()
    (tmp_path / "z").touch()
    listing = await workspace.list(depth=3)
    assert listing.truncated
    assert len(listing.entries) == LIST_LIMIT
    assert {"a", "a/b", "z"} <= {entry.path for entry in listing.entries}
    assert not (await workspace.list("a/b", glob="0000*")).truncated


async def test_a_list_does_not_look_for_ever(
    workspace: LocalWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.workspace.listing.SCAN_LIMIT", 5)
    for number in range(10):
        (tmp_path / str(number)).touch()
    assert await workspace.list(glob="nothing like it") == Listing((), truncated=True)


@pytest.mark.parametrize(
    ("path", "depth", "message"),
    [
        ("none", 1, "no such folder"),
        ("file", 1, "not a folder"),
        (".", 0, "counts from 1"),
        ("", 1, "empty"),
        ("a\0", 1, "NUL"),
    ],
)
async def test_what_cannot_be_listed_is_said_in_words(
    workspace: LocalWorkspace, tmp_path: Path, path: str, depth: int, message: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match=message):
        await workspace.list(path, depth=depth)


async def test_a_name_with_brackets_is_found(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "[id].tsx").touch()
    assert [entry.path for entry in (await workspace.list(glob="[id].tsx")).entries] == ["[id].tsx"]
