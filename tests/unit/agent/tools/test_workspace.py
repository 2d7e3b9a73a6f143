"""The tools of a workspace: what the model gets to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.tools.router import ToolRouter
from agent.tools.workspace import CHANGED_NOTE, workspace_tools
from agent.workspace import LIST_LIMIT, ImageFile
from agent.workspace.local import LocalWorkspace
from support.agent.pictures import image, png

pytestmark = pytest.mark.anyio


async def test_the_list_tool_shows_size_and_kind(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a\nb\udcff.txt").write_text("four")
    (tmp_path / "sub" / "link").symlink_to("/")
    (tmp_path / "sub" / "folder").mkdir()
    router = ToolRouter(workspace_tools(workspace))
    output = (await router.call("list", {"path": "sub", "glob": "[al]*"})).output
    assert output == "         4  a?b?.txt\n         1  link@"
    assert (await router.call("list", {"path": "sub", "glob": "f*"})).output.endswith("  folder/")
    assert (await router.call("list", {"glob": "none"})).output == "[nothing]"
    assert (await router.call("list", {"path": "none"})).output == "no such folder: none"
    assert not (await router.call("list", {"depth": 0})).success
    for number in range(LIST_LIMIT + 1):
        (tmp_path / str(number)).touch()
    assert "[there is more" in (await router.call("list", {})).output


async def test_the_tools_say_what_the_model_needs(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("".join(f"line {n}\n" for n in range(1, 6)))
    router = ToolRouter(workspace_tools(workspace))
    read = await router.call("read", {"path": "a", "offset": 2, "limit": 2})
    assert read.output == "     2\tline 2\n     3\tline 3\n[more lines follow; read on with offset 4]"
    assert (await router.call("read", {"path": "a", "offset": 9})).output == "a has only 5 lines"
    failed = await router.call("bash", {"command": "echo no; exit 2"})
    assert (failed.success, failed.output) == (False, "no\n\n[exit code 2]")
    late = await router.call("bash", {"command": "sleep 60", "timeout": 0.2})
    assert (late.success, late.output) == (False, "\n[killed after 0.2 s; pass a longer timeout if it needs one]")
    moved = await router.call("bash", {"command": "mkdir sub; cd sub; export A=1"})
    assert moved.output == f"[no output]\n[working directory: {tmp_path / 'sub'}]"
    assert (await router.call("bash", {"command": "echo $A; cd .."})).output == "1\n"
    await router.call("bash", {"command": "sed -i s/1/one/ a"})
    edited = await router.call("edit", {"path": "a", "old": "line 2", "new": "line two"})
    assert edited.output == f"replaced 1 occurrence in a{CHANGED_NOTE}"
    assert not (await router.call("write", {"path": "a"})).success
    assert not (await router.call("bash", {"command": "true", "timeout": 0})).success


async def test_an_image_is_read_as_an_image(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "shot.jpg").write_bytes(png(640, 480))
    router = ToolRouter(workspace_tools(workspace))
    read = await router.call("read", {"path": "shot.jpg", "offset": 3})
    assert (read.output, read.images) == (f"shot.jpg: {image(640, 480).description}", (image(640, 480),))
    (tmp_path / "shot.jpg").write_bytes(png(640, 480)[:20])
    damaged = await router.call("read", {"path": "shot.jpg"})
    assert (damaged.success, damaged.images) == (False, ())
    assert damaged.output == "shot.jpg is damaged: it begins as a PNG image, and does not say its dimensions"


async def test_a_workspace_that_says_anything_is_an_image_is_not_believed(tmp_path: Path) -> None:
    class Lying(LocalWorkspace):
        async def read(self, path: str, *, offset: int = 1, limit: int | None = None) -> str:
            raise ImageFile(path)

        async def read_image(self, path: str) -> bytes:
            return b"no image"

    read = await ToolRouter(workspace_tools(Lying(tmp_path))).call("read", {"path": "a"})
    assert (read.success, read.output) == (False, "a is no PNG, JPEG, GIF, WebP image, by its first bytes")
