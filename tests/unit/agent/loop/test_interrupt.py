"""An interrupt takes effect within 100 ms wherever the turn is, and leaves a conversation that can continue.

The margin for a loaded machine is 400 ms on top; what is waited for would take minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from agent.loop.agent import TurnOutcome
from agent.loop.model_step import INTERRUPTED
from agent.model.failure import RateLimitedError
from agent.testing import calls, fails, says
from agent.tools.research import research_tool
from agent.tools.tool import Tool, parameters
from agent.tools.workspace import INTERRUPTED_NOTE, workspace_tools
from agent.workspace.local import LocalWorkspace
from support.agent.processes import gone, read_pid, until
from support.agent.stage import Stage, interrupt, stage

pytestmark = pytest.mark.anyio


async def interrupt_at(s: Stage, event: str) -> TurnOutcome:
    """Run a turn, interrupt it when this event is emitted, and check how long it took to end."""
    reached = asyncio.Event()
    s.on(event, reached.set)
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await asyncio.wait_for(reached.wait(), 30)
    return await interrupt(s, turn)


async def test_in_the_stream() -> None:
    s = stage(says("one two three four", hangs=True), says("back"))
    await interrupt_at(s, "assistant_chunk")
    assert s.model.streaming == 0  # the request has been ended, too
    assert s.agent.conversation.messages[-1].content.endswith(INTERRUPTED)
    assert (await s.agent.run_turn("again")).message == "back"


async def test_in_the_middle_of_a_secret() -> None:
    """What was not shown yet, because it might be one, is not kept either."""
    s = stage(says("The key is hf_abcdefghijklmno", hangs=True, piece=29), secrets=("hf_abcdefghijklmnop",))
    await interrupt_at(s, "assistant_chunk")
    assert s.agent.conversation.messages[-1].content == f"The key is \n{INTERRUPTED}"


async def test_before_the_first_byte() -> None:
    s = stage(says("", hangs=True), says("back"))
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await until(lambda: s.model.streaming)
    await interrupt(s, turn)
    assert s.model.streaming == 0
    assert [m.role for m in s.agent.conversation.messages] == ["user"]
    assert (await s.agent.run_turn("again")).message == "back"


async def test_in_a_wait_between_tries() -> None:
    s = stage(fails(RateLimitedError("slow down", retry_after=300)), says("back"))
    retrying = asyncio.Event()
    s.hooks.append(lambda event: retrying.set() if event.data.get("status") == "retrying" else None)
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await asyncio.wait_for(retrying.wait(), 30)
    await interrupt(s, turn)
    assert (await s.agent.run_turn("again")).message == "back"


async def test_in_a_command_whose_processes_are_killed(tmp_path: Path) -> None:
    command = {"command": "trap '' TERM INT; sleep 300 & echo $! >pid; wait"}
    s = stage(
        calls(("bash", {"command": "echo 1"}), ("bash", command), ("bash", {"command": "touch never"})),
        says("back"),
        tools=workspace_tools(LocalWorkspace(tmp_path)),
    )
    turn = asyncio.create_task(s.agent.run_turn("go"))
    pid = await read_pid(tmp_path / "pid")
    await interrupt(s, turn)
    await gone(pid)
    results = [m.content for m in s.agent.conversation.messages if m.role == "tool"]
    assert results[0] == "1\n"
    assert results[1] in (INTERRUPTED, f"\n{INTERRUPTED_NOTE}")  # if there was no time for its output
    assert results[2] == INTERRUPTED
    assert len(s.data("tool_call")) == len(s.data("tool_output")) == 2  # the third never began
    assert not (tmp_path / "never").exists()
    assert (await s.agent.run_turn("again")).message == "back"


async def test_what_an_interrupted_command_has_printed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.loop.tool_step.GRACE", 30)  # on a loaded machine, killing the command may take its time
    s = stage(
        calls(("bash", {"command": "echo 41 of 42 tests passed; echo $$ >pid; sleep 300"}), ("bash", {"command": "true"})),
        says("back"),
        tools=workspace_tools(LocalWorkspace(tmp_path)),
    )
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await read_pid(tmp_path / "pid")
    assert s.agent.interrupt()
    assert (await turn).status == "interrupted"
    results = [m.content for m in s.agent.conversation.messages if m.role == "tool"]
    assert results == [f"41 of 42 tests passed\n\n{INTERRUPTED_NOTE}", INTERRUPTED]
    assert [data["output"] for data in s.data("tool_output")] == results[:1]
    assert s.types()[-1] == "interrupted"


async def test_in_a_tool_that_swallows_its_cancellation() -> None:
    done = asyncio.Event()

    async def stubborn(_: dict[str, Any]) -> str:
        while not done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    s = stage(calls(("stubborn", {})), says("back"), tools=(Tool("stubborn", "", parameters(), stubborn),))
    await interrupt_at(s, "tool_call")
    done.set()
    assert (await s.agent.run_turn("again")).message == "back"


async def test_in_a_sub_agents_tool_that_swallows_its_cancellation() -> None:
    """The sub-agent waits for its tool, and the agent for its sub-agent: not one after the other."""
    released, begun = asyncio.Event(), asyncio.Event()

    async def stubborn(_: dict[str, Any]) -> str:
        begun.set()
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()
        return "late"

    tool = Tool("stubborn", "", parameters(), stubborn, read_only=True)
    s = stage(calls(("research", {"task": "x"})), calls(("stubborn", {})), says("back"), tools=(tool, research_tool()))
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await asyncio.wait_for(begun.wait(), 30)
    await interrupt(s, turn)
    assert s.agent.conversation.subagents == {}
    released.set()
    assert (await s.agent.run_turn("again")).message == "back"


async def test_a_finished_siblings_result_is_kept() -> None:
    async def quick(_: dict[str, Any]) -> str:
        return "quick"

    async def slow(_: dict[str, Any]) -> str:
        await asyncio.sleep(300)
        return "slow"

    s = stage(
        calls(("slow", {}), ("quick", {})),
        tools=(
            Tool("slow", "", parameters(), slow, read_only=True),
            Tool("quick", "", parameters(), quick, read_only=True),
        ),
    )
    await interrupt_at(s, "tool_output")
    assert [m.content for m in s.agent.conversation.messages if m.role == "tool"] == [INTERRUPTED, "quick"]


async def test_with_nothing_to_interrupt_it_leaves_the_next_turn_alone() -> None:
    s = stage(says("fine"))
    assert not s.agent.interrupt()
    assert (await s.agent.run_turn("hi")).status == "complete"
    assert not s.agent.interrupt()
