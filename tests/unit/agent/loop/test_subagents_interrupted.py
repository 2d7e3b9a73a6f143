"""Sub-agents that are cut off, abandoned, undone or interrupted: nothing runs twice, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from agent.approval import ApprovalDecision
from agent.conversation import Conversation
from agent.loop.model_step import INTERRUPTED
from agent.testing import calls, says
from agent.tools.research import research_tool
from agent.tools.tool import Tool, parameters
from support.agent.stage import Stage, stage
from support.agent.subagents import ASK_B, at, by_task, check_at_rest, pending, research, results, tools
from support.agent.validity import check_order

pytestmark = pytest.mark.anyio

SCRIPTS = {
    "go": [calls(research("one"), research("two"), piece=1000), says("done")],
    "one": [calls(at("1"), at("2"), piece=1000), calls(at("3"), at("b"), at("4"), piece=1000), says("one")],
    "two": [calls(at("5"), piece=1000), says("two")],
}


async def crashed(number: int, ran: list[str]) -> Conversation:
    """What was stored when the process died at event `number` of a turn, or of the decision that it waited for."""
    s = by_task(ran, SCRIPTS)
    stored: list[str] = []

    def die(_: object) -> None:
        stored.append(s.agent.conversation.to_json())
        if len(stored) >= number:
            raise asyncio.CancelledError

    s.hooks.append(die)
    with contextlib.suppress(asyncio.CancelledError):
        await s.agent.run_turn("go")
        await s.agent.decide([ApprovalDecision(p.tool_call_id, True) for p in s.agent.pending_approvals])
    return Conversation.from_json(stored[number - 1])


@pytest.mark.parametrize("number", range(1, 30))
async def test_a_turn_cut_off_in_a_sub_agent_resumes_there(number: int) -> None:
    ran: list[str] = []
    conversation = await crashed(number, ran)
    answered = {"go": sum(m.role == "assistant" for m in conversation.messages)}
    for sub in conversation.subagents.values():
        answered[sub.messages[0].content] = sum(m.role == "assistant" for m in sub.messages)
    in_flight = {c.call.id for c in conversation.begun_calls} - conversation.subagents.keys()
    rest = {task: script[answered.get(task, 0) :] for task, script in SCRIPTS.items()}
    s = by_task(ran, rest, conversation=conversation)
    await s.agent.resume()
    while s.agent.pending_approvals:
        await s.agent.decide([ApprovalDecision(p.tool_call_id, True) for p in s.agent.pending_approvals])
    assert s.agent.conversation.last_message == "done"
    assert results(s.agent.conversation) == ["one", "two"]
    assert len(ran) == len(set(ran))
    assert len(ran) >= 6 - len(in_flight)  # what was in flight may have run or not; nothing else is missing
    check_order(s.agent.conversation.messages)
    assert s.agent.conversation.subagents == {}


async def waiting(ran: list[str]) -> Stage:
    """A turn whose sub-agent waits for consent."""
    s = stage(calls(research("x")), calls(at("a"), at("b")), says("found"), says("done"), tools=tools(ran), rules=ASK_B)
    assert (await s.agent.run_turn("go")).status == "awaiting_approval"
    return s


async def test_a_question_of_a_sub_agent_survives_a_restart() -> None:
    ran: list[str] = []
    first = await waiting(ran)
    stored = Conversation.from_json(first.agent.conversation.to_json())
    assert stored == first.agent.conversation
    second = stage(says("found"), says("done"), tools=tools(ran), rules=ASK_B, conversation=stored)
    assert await second.agent.resume() is None
    assert (await second.agent.decide([ApprovalDecision(pending(second)["b"], True)])).message == "done"
    assert ran == ["a", "b"]


async def test_saying_something_else_abandons_it() -> None:
    s = await waiting([])
    assert (await s.agent.run_turn("leave it")).message == "found"
    assert "said something else" in results(s.agent.conversation)[0]
    check_at_rest(s)


async def test_nobody_answering_abandons_it() -> None:
    s = await waiting([])
    await s.agent.abandon("nobody answered")
    assert results(s.agent.conversation) == ["[not done: nobody answered]"]
    assert s.types()[-1] == "interrupted"
    check_at_rest(s)


async def test_undo_takes_it_back() -> None:
    s = await waiting([])
    await s.agent.undo()
    assert s.agent.conversation == Conversation(usage=s.agent.usage)
    check_at_rest(s)


async def test_an_interrupt_ends_it_wherever_it_is() -> None:
    begun = asyncio.Event()

    async def hang(_: dict[str, Any]) -> str:
        begun.set()
        await asyncio.get_running_loop().create_future()
        return "never"

    s = stage(
        calls(research("in a tool"), research("in a stream")),
        calls(("hang", {})),
        says("never ends", hangs=True),
        says("back"),
        tools=(Tool("hang", "", parameters(), hang, read_only=True), research_tool()),
    )
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await asyncio.wait_for(begun.wait(), 30)
    assert s.agent.interrupt()
    assert (await turn).status == "interrupted"
    assert results(s.agent.conversation) == [INTERRUPTED, INTERRUPTED]
    assert s.model.streaming == 0
    check_at_rest(s)
    assert (await s.agent.run_turn("again")).message == "back"


async def test_work_that_outlives_its_interrupt_leaves_nothing_behind() -> None:
    release = asyncio.Event()
    ended = asyncio.Event()

    async def stubborn(_: dict[str, Any]) -> str:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return "late"

    s = stage(
        calls(research("x")),
        calls(("stubborn", {})),
        says("back"),
        tools=(Tool("stubborn", "", parameters(), stubborn, read_only=True), research_tool()),
    )
    reached = asyncio.Event()
    s.hooks.append(lambda event: reached.set() if event.data.get("tool") == "stubborn" else None)
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await asyncio.wait_for(reached.wait(), 30)
    s.agent.interrupt()
    await turn
    release.set()
    await asyncio.wait_for(ended.wait(), 30)
    assert (await s.agent.run_turn("again")).message == "back"
    check_at_rest(s)


async def test_it_can_be_cut_off_for_good() -> None:
    """As the runtime does with a turn that ends its process again and again: every begun call gets its result."""
    s = await waiting([])
    conversation = s.agent.conversation
    told = [(begun.call.name, begun.parent) for begun in conversation.begun_calls]
    for begun in conversation.begun_calls:
        conversation = conversation.with_result_of(begun, "cut off")
    assert told == [("research", None)]
    assert conversation.begun_calls == ()
    assert conversation.subagents == {}
