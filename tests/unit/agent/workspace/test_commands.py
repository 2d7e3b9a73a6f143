"""Commands: real processes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from agent.workspace import HEAD_LIMIT, TAIL_LIMIT, CommandInterrupted, WorkspaceError
from agent.workspace.local import BACKGROUND_NOTE, LocalWorkspace
from support.agent.processes import gone, read_pid

pytestmark = pytest.mark.anyio


async def test_a_command_runs_in_the_root_with_its_own_environment(workspace: LocalWorkspace, tmp_path: Path) -> None:
    result = await workspace.run("echo $GREETING; echo oops >&2; pwd; env | wc -l; exit 3", timeout=30)
    assert result.exit_code == 3
    assert result.output.splitlines()[:3] == ["hello", "oops", str(tmp_path)]
    assert int(result.output.splitlines()[3]) < 8  # the shell's own few, not this process's environment
    assert not result.timed_out


async def test_a_command_cannot_wait_for_input(workspace: LocalWorkspace) -> None:
    assert (await workspace.run("cat; echo end", timeout=30)).output == "end\n"


async def test_output_is_passed_on_as_it_comes(workspace: LocalWorkspace, tmp_path: Path) -> None:
    pieces: list[str] = []

    def on_output(text: str) -> None:
        pieces.append(text)
        (tmp_path / "seen").touch()  # the command waits for this: it was heard before it ended

    command = "echo one; while [ ! -e seen ]; do sleep 0.01; done; echo two"
    result = await workspace.run(command, timeout=30, on_output=on_output)
    assert result.output == "".join(pieces) == "one\ntwo\n"


async def test_a_timeout_kills_the_whole_process_group(workspace: LocalWorkspace, tmp_path: Path) -> None:
    result = await workspace.run("sleep 300 & echo $! >pid; echo begun; sleep 300", timeout=0.5)
    assert (result.exit_code, result.timed_out, result.output) == (None, True, "begun\n")
    await gone(await read_pid(tmp_path / "pid"))


async def test_a_cancellation_kills_the_whole_process_group(workspace: LocalWorkspace, tmp_path: Path) -> None:
    task = asyncio.create_task(workspace.run("trap '' TERM INT; echo so far; sleep 300 & echo $! >pid; wait", timeout=300))
    pid = await read_pid(tmp_path / "pid")
    task.cancel()
    with pytest.raises(CommandInterrupted) as interrupted:
        await task
    assert interrupted.value.result.output == "so far\n"
    await gone(pid)


async def test_a_process_in_the_background_neither_hangs_the_call_nor_is_killed(
    workspace: LocalWorkspace, tmp_path: Path
) -> None:
    async with asyncio.timeout(20):
        result = await workspace.run("(sleep 300) & echo $! >pid; echo started", timeout=300)
    assert (result.exit_code, result.output) == (0, "started\n" + BACKGROUND_NOTE)
    pid = await read_pid(tmp_path / "pid")
    os.kill(pid, 9)  # it was there
    await gone(pid)


async def test_endless_output_is_bounded_and_keeps_both_ends(workspace: LocalWorkspace) -> None:
    result = await workspace.run("echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last", timeout=60)
    assert result.truncated
    assert result.output.startswith("first\n")
    assert result.output.endswith("last\n")
    assert len(result.output) < HEAD_LIMIT + 2 * TAIL_LIMIT + 300_000


async def test_colors_and_progress_are_not_for_the_model(workspace: LocalWorkspace) -> None:
    command = r"printf '\033[32mok\033[0m\n'; for n in 1 2 3; do printf '\r%s of 3' $n; sleep 0.05; done; printf '\r\n> '"
    assert (await workspace.run(command, timeout=30)).output == "ok\n3 of 3\n> "


async def test_bytes_that_are_no_text_do_not_break_it(workspace: LocalWorkspace) -> None:
    assert (await workspace.run("printf 'a\\377b'", timeout=30)).output == "a\ufffdb"


async def test_a_missing_root_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="could not be started"):
        await LocalWorkspace(tmp_path / "none").run("true", timeout=5)


async def test_a_timeout_is_prompt_even_while_output_pours(workspace: LocalWorkspace) -> None:
    began = time.monotonic()
    result = await workspace.run("yes", timeout=0.3)
    assert result.timed_out
    assert time.monotonic() - began < 20


def alive(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


ESCAPES = {
    "timeout": "timeout 60 sh -c 'echo $$ > pid; exec sleep 60'; echo",
    "pipe": "cd . && timeout 60 sh -c 'echo $$ > pid; exec sleep 60' | tail",
    "job control": "set -m; sh -c 'echo $$ > pid; exec sleep 60'",
    "session": "setsid --wait sh -c 'echo $$ > pid; exec sleep 60'",
    "cleared environment": "(setsid env -i /bin/sh -c 'echo $$ > pid; exec sleep 60' &); sleep 60",
    "daemon": "setsid sh -c '(setsid env -i /bin/sh -c \"echo \\$\\$ > pid; exec sleep 60\" &)'; sleep 60",
    "orphan": "(setsid sh -c 'echo $$ > pid; exec sleep 60' &); sleep 60",
}


@pytest.mark.parametrize("kind", ESCAPES)
async def test_a_timeout_kills_what_left_the_process_group(workspace: LocalWorkspace, tmp_path: Path, kind: str) -> None:
    result = await workspace.run(ESCAPES[kind], timeout=1.0)
    assert result.timed_out
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_a_server_in_the_background_may_print_after_its_call(workspace: LocalWorkspace, tmp_path: Path) -> None:
    result = await workspace.run(
        "(until [ -e go ]; do sleep 0.05; done; echo x; echo x && touch printed) & echo begun", timeout=60
    )
    assert result.output.startswith("begun\n")
    assert "still run in the background" in result.output
    (tmp_path / "go").touch()
    waiting = await workspace.run("until [ -e printed ]; do sleep 0.02; done", timeout=30)
    assert waiting.exit_code == 0
