"""Sub-agents: what they see and may do, what they cost, what they ask, and what is left of them in every case."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from agent.approval import ApprovalDecision, Rule
from agent.budget import Budget
from agent.conversation import Conversation
from agent.loop.model_step import INTERRUPTED
from agent.messages import Message, ModelChunk, Usage
from agent.model.retry import ContextOverflowError, ModelError
from agent.testing import Reply, ScriptedModel, calls, fails, says
from agent.tools.research import RESEARCH_TOOL, research_tool
from agent.tools.tool import Tool, parameters
from unit.agent.stage import Stage, stage
from unit.agent.validity import check_order, check_request

pytestmark = pytest.mark.anyio

ASK_B = (Rule("look", "ask", {"at": "b*"}, "b is private"),)


def look(ran: list[str]) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        ran.append(arguments["at"])
        return f"saw {arguments['at']}"

    return Tool("look", "", parameters("at", at={"type": "string"}), call, read_only=True)


def write(ran: list[str]) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        ran.append("write")
        return "wrote"

    return Tool("write", "", parameters(), call)


def tools(ran: list[str]) -> tuple[Tool, ...]:
    return look(ran), write(ran), research_tool()


def at(place: str) -> tuple[str, dict[str, str]]:
    return "look", {"at": place}


def research(task: str) -> tuple[str, dict[str, str]]:
    return RESEARCH_TOOL, {"task": task}


class ByTask:
    """A model with a script for each agent, told by the first thing that the agent was told."""

    name = "by task"

    def __init__(self, scripts: Mapping[str, Sequence[Reply]]) -> None:
        self.scripts = {task: ScriptedModel(*replies) for task, replies in scripts.items()}

    async def context_window(self) -> int | None:
        return None

    def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
        return self.scripts[messages[1].content].stream(messages, tools)


def by_task(ran: list[str], scripts: Mapping[str, Sequence[Reply]], **settings: Any) -> Stage:
    s = stage(tools=tools(ran), **{"rules": ASK_B, **settings})
    s.agent.model = ByTask(scripts)
    return s


def results(conversation: Conversation) -> list[str]:
    return [m.content for m in conversation.messages if m.role == "tool"]


def pending(s: Stage) -> dict[str, str]:
    """The ids of pending calls, by the places that they look at."""
    return {p.arguments.get("at", p.tool): p.tool_call_id for p in s.agent.pending_approvals}


def check_at_rest(s: Stage) -> None:
    """Nothing is left of a sub-agent, and everything that began has been told to have ended."""
    conversation = s.agent.conversation
    check_order(conversation.messages)
    assert (conversation.subagents, conversation.decisions, conversation.started) == ({}, (), ())
    assert sorted(d["tool_call_id"] for d in s.data("tool_call")) == sorted(d["tool_call_id"] for d in s.data("tool_output"))


async def test_it_has_a_context_and_tools_of_its_own_and_its_answer_is_the_calls_result() -> None:
    ran: list[str] = []
    s = stage(
        calls(research("find x")),
        calls(at("a"), ("write", {}), research("more"), text="Let me look."),
        says("x is at a"),
        says("done"),
        tools=tools(ran),
        instructions="Speak like a pirate.",
    )
    assert (await s.agent.run_turn("where is x?")).message == "done"
    assert s.model.tools == [["look", "write", "research"], ["look"], ["look"], ["look", "write", "research"]]
    assert [m.content for m in s.model.requests[1][1:]] == ["find x"]
    assert "pirate" in s.model.requests[0][0].content
    assert "pirate" not in s.model.requests[1][0].content
    sub_results = [m.content for m in s.model.requests[2] if m.role == "tool"]
    assert sub_results[0] == "saw a"
    assert all("no tool named" in result for result in sub_results[1:])
    assert ran == ["a"]
    assert results(s.agent.conversation) == ["x is at a"]
    for request in s.model.requests:
        check_request(request)
    check_at_rest(s)


async def test_its_events_name_the_call_that_it_works_for_and_its_words_are_not_its_parents() -> None:
    s = stage(
        calls(research("find x"), text="I ask."),
        calls(at("a"), text="Let me look.", ids=("call_1_0",)),
        says("x is at a"),
        says("done"),
        tools=tools([]),
    )
    await s.agent.run_turn("where is x?")
    events = [(e.type, e.data.get("tool"), e.data.get("parent")) for e in s.events if e.type.startswith("tool_")]
    assert events == [
        ("tool_call", "research", None),
        ("tool_call", "look", "call_1_0"),
        ("tool_output", "look", "call_1_0"),
        ("tool_output", "research", None),
    ]
    assert s.data("tool_call")[1]["tool_call_id"] != "call_1_0"  # unique, whatever the model calls it
    assert "".join(d["text"] for d in s.data("assistant_chunk")) == "I ask.done"
    assert [d["text"] for d in s.data("assistant_message")] == ["I ask.", "done"]
    assert [d.get("parent") for d in s.data("usage")] == [None, "call_1_0", "call_1_0", None]


async def test_globs_decide_which_of_the_tools_that_read_it_has() -> None:
    s = stage(calls(research("x")), says("y"), says("z"), tools=tools([]), research_tools=("web_*",))
    await s.agent.run_turn("go")
    assert s.model.tools[1] == []


async def test_what_it_uses_is_its_parents_and_so_is_the_budget() -> None:
    script = (calls(research("x")), calls(at("a")), calls(at("c")), says("y"), says("z"))
    s = stage(*script, tools=tools([]))
    await s.agent.run_turn("go")
    usage = s.agent.usage
    assert (usage.input_tokens, usage.output_tokens, usage.llm_calls, usage.tool_calls) == (50, 25, 5, 3)
    assert usage.cost_usd == pytest.approx(0.005)
    assert [d["llm_calls"] for d in s.data("usage")] == [1, 2, 3, 4, 5]
    s = stage(*script, tools=tools([]), budget=Budget(tokens=30))
    assert (await s.agent.run_turn("go")).status == "error"
    assert len(s.model.requests) == 2
    assert "budget of 30 tokens is used up" in s.data("tool_output")[-1]["output"]
    assert s.data("error")[0]["kind"] == "budget"
    check_at_rest(s)


async def test_it_asks_like_its_parent_and_goes_on_where_it_was() -> None:
    ran: list[str] = []
    s = stage(
        calls(research("x"), ("write", {})),
        calls(at("a"), at("b1"), at("b2"), at("b3")),
        says("found"),
        says("done"),
        tools=tools(ran),
        rules=ASK_B,
    )
    assert (await s.agent.run_turn("go")).status == "awaiting_approval"
    assert ran == ["a"]  # nothing overtakes the question, in the parent neither
    asked = s.data("approval_required")[0]["approvals"]
    assert [(a["tool"], a["arguments"]["at"], a["reason"], a["parent"]) for a in asked] == [
        ("look", place, "b is private", "call_1_0") for place in ("b1", "b2", "b3")
    ]
    assert s.types().count("approval_required") == 1
    ids = pending(s)
    decisions = [
        ApprovalDecision(ids["b1"], True, arguments={"at": "b9"}),
        ApprovalDecision(ids["b2"], False, feedback="never b2"),
    ]
    assert (await s.agent.decide(decisions)).message == "done"
    assert ran == ["a", "b9", "write"]
    sub_results = [m.content for m in s.model.requests[2] if m.role == "tool"]
    assert sub_results[0] == "saw a"
    assert sub_results[1] == '[A person changed the arguments to {"at": "b9"}]\nsaw b9'
    assert "never b2" in sub_results[2]
    assert "denied" in sub_results[3]  # a missing decision
    assert [d["tool"] for d in s.data("tool_call")].count("research") == 1
    check_at_rest(s)


async def test_sub_agents_work_at_the_same_time_and_are_asked_for_together() -> None:
    ran: list[str] = []
    scripts = {
        "go": [calls(research("one"), research("two"), research("three"), ("write", {})), says("done")],
        "one": [calls(at("b one")), calls(at("b one more")), says("1")],
        "two": [calls(at("a two")), says("2")],
        "three": [calls(at("b three")), says("3")],
    }
    s = by_task(ran, scripts, rules=(*ASK_B, Rule("write", "ask")))
    await s.agent.run_turn("go")
    assert set(pending(s)) == {"b one", "b three", "write"}
    assert ran == ["a two"]
    await s.agent.decide([ApprovalDecision(call_id, True) for call_id in pending(s).values()])
    assert set(pending(s)) == {"b one more"}  # what was decided is not asked again, though it has not run yet
    assert ran == ["a two", "b one", "b three"]
    outcome = await s.agent.decide([ApprovalDecision(pending(s)["b one more"], True)])
    assert outcome.message == "done"
    assert ran == ["a two", "b one", "b three", "b one more", "write"]
    assert results(s.agent.conversation) == ["1", "2", "3", "wrote"]
    check_at_rest(s)


async def test_a_call_for_a_sub_agent_can_itself_need_consent_and_be_changed() -> None:
    s = stage(
        calls(research("x")),
        calls(at("b")),
        says("found"),
        says("done"),
        tools=tools([]),
        rules=(Rule(RESEARCH_TOOL, "ask"), *ASK_B),
    )
    await s.agent.run_turn("go")
    assert s.agent.pending_approvals[0].tool == RESEARCH_TOOL
    await s.agent.decide([ApprovalDecision("call_1_0", True, arguments={"task": "y"})])
    assert s.model.requests[1][1].content == "y"
    await s.agent.decide([ApprovalDecision(pending(s)["b"], True)])
    assert results(s.agent.conversation) == ['[A person changed the arguments to {"task": "y"}]\nfound']


@pytest.mark.parametrize("arguments", [{}, {"task": ""}, {"task": 1}])
async def test_a_call_with_wrong_arguments_starts_none(arguments: dict[str, Any]) -> None:
    s = stage(calls((RESEARCH_TOOL, arguments)), says("oh"), tools=tools([]))
    assert (await s.agent.run_turn("go")).message == "oh"
    assert "do not fit research" in results(s.agent.conversation)[0]
    check_at_rest(s)


async def test_a_forbidden_call_starts_none() -> None:
    s = stage(calls(research("x")), says("oh"), tools=tools([]), rules=(Rule(RESEARCH_TOOL, "deny", reason="no"),))
    assert (await s.agent.run_turn("go")).message == "oh"
    assert results(s.agent.conversation) == ["This call is not allowed: no. It was not run."]


async def test_one_that_fails_is_a_failed_call_and_the_parent_goes_on() -> None:
    s = stage(
        calls(research("x")),
        calls(at("a"), text="It may be at a."),
        fails(ModelError("no such model")),
        says("done"),
        tools=tools([]),
    )
    assert (await s.agent.run_turn("go")).message == "done"
    result = s.data("tool_output")[-1]
    assert not result["success"]
    assert result["output"] == "The sub-agent did not finish: no such model.\nIts last words were: It may be at a."


async def test_it_has_an_iteration_limit_of_its_own() -> None:
    s = stage(
        calls(research("x")), *[calls(at(str(n))) for n in range(3)], says("done"), tools=tools([]), research_iterations=3
    )
    assert (await s.agent.run_turn("go")).message == "done"
    assert "ended after 3 model calls" in s.data("tool_output")[-1]["output"]


async def test_its_context_is_compacted_like_its_parents() -> None:
    places = ["x" * 2000 + str(n) for n in range(4)]
    s = stage(
        calls(research("find x")),
        *[calls(at(place), usage=Usage()) for place in places],
        fails(ContextOverflowError("too long")),
        says("SUMMARY"),
        says("found"),
        says("done"),
        tools=tools([]),
    )
    assert (await s.agent.run_turn("go")).message == "done"
    assert results(s.agent.conversation) == ["found"]
    (compacted,) = s.data("compacted")
    assert compacted["parent"] == "call_1_0"
    assert compacted["tokens_after"] < compacted["tokens_before"]
    assert s.model.requests[7][1].content == "find x"


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
async def test_a_turn_cut_off_in_a_sub_agent_goes_on_there_without_running_a_call_twice(number: int) -> None:
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
