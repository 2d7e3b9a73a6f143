"""What carries over from one command to the next, with each shell that the machine has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agent.workspace.local import LocalWorkspace
from agent.workspace.shell import STATE_LIMIT

pytestmark = pytest.mark.anyio

ENVIRONMENT = {"PATH": os.environ["PATH"], "GIVEN": "by the image", "not a name": "x"}


@pytest.fixture(params=["bash", "dash"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalWorkspace:
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"there is no {request.param}")
    monkeypatch.setattr("agent.workspace.shell.shutil.which", lambda _: program)
    (tmp_path / "root").mkdir()
    return LocalWorkspace(tmp_path / "root", ENVIRONMENT, tmp_path / "state")


async def printed(workspace: LocalWorkspace, command: str) -> str:
    return (await workspace.run(command, timeout=60)).output


async def test_the_directory_and_exported_variables_carry_over(workspace: LocalWorkspace, tmp_path: Path) -> None:
    odd = 'it\'s "odd" $HOME `x` \\\\ \n end '
    (tmp_path / "root" / "a b").mkdir()
    first = await workspace.run(
        f"cd 'a b'; export ODD='{odd.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'; own=1", timeout=60
    )
    assert first.directory == str(tmp_path / "root" / "a b")
    assert await printed(workspace, 'pwd; printf "%s" "$ODD"; echo "$own|$#|$GIVEN"') == (
        f"{tmp_path / 'root' / 'a b'}\n{odd}|0|by the image\n"
    )
    back = await workspace.run("cd ..; unset GIVEN; export PATH=$PATH:/more; exit 3", timeout=60)
    assert (back.exit_code, back.directory) == (3, None)
    assert await printed(workspace, "echo ${GIVEN-unset}; env | grep -c 'PATH=.*:/more$'") == "unset\n1\n"


async def test_another_server_continues_where_the_last_one_was(workspace: LocalWorkspace, tmp_path: Path) -> None:
    await workspace.run("mkdir sub; cd sub; export A=1", timeout=60)
    successor = LocalWorkspace(tmp_path / "root", ENVIRONMENT, tmp_path / "state")
    assert await printed(successor, "pwd; echo $A") == f"{tmp_path / 'root' / 'sub'}\n1\n"


async def test_a_command_that_is_killed_leaves_them_as_they_were(workspace: LocalWorkspace, tmp_path: Path) -> None:
    await workspace.run("mkdir one two; cd one; export A=1", timeout=60)
    killed = await workspace.run("cd ../two; export A=2; sleep 60", timeout=0.5)
    assert (killed.timed_out, killed.directory) == (True, str(tmp_path / "root" / "one"))
    assert await printed(workspace, "pwd; echo $A") == f"{tmp_path / 'root' / 'one'}\n1\n"
    await workspace.run("cd ../two; kill -9 $$", timeout=60)
    assert (await printed(workspace, "pwd")).endswith("one\n")
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["state"], "nothing else is left"


@pytest.mark.parametrize("how", ["exit 4", "set -e; false; true", "set -u; exit 4", "if", "exec true"])
async def test_however_a_command_ends_the_next_one_runs(workspace: LocalWorkspace, how: str) -> None:
    await workspace.run(how, timeout=60)
    assert await printed(workspace, "echo on; false; echo still") == "on\nstill\n"


async def test_a_directory_that_is_gone_is_named(workspace: LocalWorkspace, tmp_path: Path) -> None:
    await workspace.run("mkdir sub; cd sub", timeout=60)
    (tmp_path / "root" / "sub").rmdir()
    result = await workspace.run("pwd", timeout=60)
    root = tmp_path / "root"
    assert result.output == f"[the working directory {root / 'sub'} is gone; this command began in {root}]\n{root}\n"
    assert await printed(workspace, "pwd") == f"{root}\n"


async def test_without_what_was_kept_a_command_begins_in_the_root(workspace: LocalWorkspace, tmp_path: Path) -> None:
    for damage in ("rm -r ../state", "echo nonsense >../state/state", "rm -r ../state; touch ../state"):
        await workspace.run("mkdir -p sub; cd sub", timeout=60)
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        await workspace.run(f"trap - EXIT; {damage}", timeout=60)
        assert await printed(workspace, "pwd; echo $GIVEN") == f"{tmp_path / 'root'}\nby the image\n"


async def test_too_many_variables_do_not_carry_over(workspace: LocalWorkspace) -> None:
    big = "$(head -c 100000 /dev/zero | tr '\\0' x)"
    assert STATE_LIMIT < 300_000
    await workspace.run(f"export A={big} B={big} C={big}", timeout=60)
    assert await printed(workspace, "echo ${#A}") == "0\n"
