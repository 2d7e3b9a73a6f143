"""Long and broken turns: loops, plans, budgets, retries, restarts."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from agent.budget import Budget
from agent.config import Patience
from agent.conversation import Conversation
from agent.events import TURN_ENDS
from agent.loop.agent import CUT_OFF
from agent.loop.draft import CONTINUE, CUT
from agent.loop.model_step import WITHHELD
from agent.messages import Message, ToolCall
from agent.model.failure import (
    ModelError,
    ModelUnavailableError,
    RateLimitedError,
)
from agent.testing import calls, fails, says
from agent.tools.plan import plan_tool
from agent.tools.tool import Tool, parameters
from support.agent.stage import Stage, stage
from support.agent.validity import check_request

pytestmark = pytest.mark.anyio


async def look(arguments: dict[str, Any]) -> str:
    return "nothing new"


LOOK = Tool("look", "", parameters(at={"type": "string"}), look)


def notes(s: Stage) -> list[str]:
    return [m.content for m in s.agent.conversation.messages if m.origin == "note"]


async def test_each_new_loop_is_warned_of_once() -> None:
    again, other = calls(("look", {"at": "x"})), calls(("look", {"at": "y"}))
    s = stage(*[again] * 6, *[other] * 3, says("I give up"), tools=(LOOK,))
    await s.agent.run_turn("go")
    assert len(notes(s)) == 2
    third = s.model.requests[3]
    assert third[-1].origin == "note"
    assert "3 times in a row" in third[-1].content
    for request in s.model.requests:
        check_request(request)


async def test_an_unfinished_plan_is_continued_at_most_twice() -> None:
    plan = [{"step": "dig", "status": "done"}, {"step": "plant", "status": "pending"}]
    s = stage(calls(("plan", {"plan": plan})), says("a"), says("b"), says("c"), tools=(plan_tool(),))
    assert (await s.agent.run_turn("make a garden")).message == "c"
    assert s.data("plan_update") == [{"plan": plan}]
    assert len(notes(s)) == 2
    assert "plant" in notes(s)[0]
    assert "dig" not in notes(s)[0]
    await s.agent.undo()
    assert s.agent.conversation.plan == ()


async def test_a_finished_plan_lets_the_turn_end() -> None:
    done = [{"step": "dig", "status": "done"}]
    s = stage(calls(("plan", {"plan": [{"step": "dig"}]})), calls(("plan", {"plan": done})), says("a"), tools=(plan_tool(),))
    assert (await s.agent.run_turn("go")).message == "a"
    assert s.data("plan_update") == [{"plan": done}]  # the first one did not fit the schema


async def test_budgets_are_checked_before_each_model_call() -> None:
    s = stage(calls(("look", {})), says("never asked for"), tools=(LOOK,), budget=Budget(tokens=15))
    outcome = await s.agent.run_turn("go")
    assert outcome.status == "error"
    assert s.data("error")[0]["kind"] == "budget"
    assert len(s.model.requests) == 1
    assert Budget(cost_usd=0.001).exhausted_by(s.agent.usage) is not None
    assert Budget(cost_usd=0.002).exhausted_by(s.agent.usage) is None


async def test_a_stream_that_breaks_is_superseded_and_tried_again() -> None:
    broken = fails(ModelUnavailableError("gone"), text="Once upon")
    s = stage(broken, broken, says("The end."))
    assert (await s.agent.run_turn("tell me")).message == "The end."
    superseded = {d["message_id"] for d in s.data("assistant_chunk") if d.get("superseded")}
    told = {d["message_id"] for d in s.data("assistant_chunk")}
    assert len(superseded) == 2
    assert told - superseded == {s.data("assistant_message")[0]["message_id"]}
    assert [d["attempt"] for d in s.data("processing") if d["status"] == "retrying"] == [2, 3]
    assert [m.content for m in s.agent.conversation.messages] == ["tell me", "The end."]


async def test_it_gives_up_when_the_horizon_is_reached() -> None:
    s = stage(*[fails(ModelUnavailableError("gone"))] * 1000, patience=Patience(unavailable=0.2, first_wait=0.01))
    assert (await s.agent.run_turn("tell me")).status == "error"
    assert len(s.model.requests) > 2
    [error] = s.data("error")
    assert error["kind"] == "unavailable"
    assert error["message"].startswith("gone Tried ")


async def test_a_retry_after_is_honored() -> None:
    s = stage(fails(RateLimitedError("slow down", retry_after=0.01)), says("hi"))
    assert (await s.agent.run_turn("tell me")).message == "hi"
    assert s.data("processing")[1]["wait_seconds"] == 0.01


async def test_a_withheld_answer_is_an_error_and_its_calls_do_not_run() -> None:
    s = stage(
        says("", finish_reason="content_filter"),
        calls(("look", {}), text="I would", finish_reason="content_filter"),
        tools=(LOOK,),
    )
    assert (await s.agent.run_turn("a")).status == "error"
    outcome = await s.agent.run_turn("b")
    assert outcome.status == "error"
    assert "content filter" in str(outcome.message)
    assert [d["kind"] for d in s.data("error")] == ["content_filter"] * 2
    assert s.data("tool_call") == []
    assert [m.role for m in s.agent.conversation.messages] == ["user", "user", "assistant"]
    assert s.agent.conversation.messages[2].content == f"I would\n{WITHHELD}"


async def test_an_empty_answer_is_asked_for_again_and_then_an_error() -> None:
    s = stage(says(""), says(" \n"), says("here I am"))
    assert (await s.agent.run_turn("a")).message == "here I am"
    s = stage(*[says("")] * 3)
    outcome = await s.agent.run_turn("a")
    assert (outcome.status, s.data("error")[0]["kind"]) == ("error", "no_answer")
    assert "empty answer" in str(outcome.message)


async def test_an_answer_at_the_limit_is_continued_and_joined() -> None:
    s = stage(says("One, two,", finish_reason="length"), says(" three.", finish_reason="pause_turn"), says(" Done."))
    assert (await s.agent.run_turn("count")).message == "One, two, three. Done."
    assert [m.content for m in s.agent.conversation.messages] == ["count", "One, two, three. Done."]
    assert "".join(d["text"] for d in s.data("assistant_chunk")) == "One, two, three. Done."
    assert len(s.data("assistant_message")) == 1
    assert [m.content for m in s.model.requests[2][1:]] == ["count", "One, two, three.", CONTINUE]
    for request in s.model.requests:
        check_request(request)


async def test_an_answer_without_end_is_marked_as_cut_off() -> None:
    s = stage(*[says("on ", finish_reason="length")] * 4)
    outcome = await s.agent.run_turn("count")
    assert (outcome.status, outcome.message) == ("complete", "on " * 4 + CUT)


async def test_a_continuation_that_breaks_shows_the_whole_again() -> None:
    broken = fails(ModelUnavailableError("gone"), text=" th")
    s = stage(says("One, two,", finish_reason="length"), broken, says(" three."))
    assert (await s.agent.run_turn("count")).message == "One, two, three."
    superseded = {d["message_id"] for d in s.data("assistant_chunk") if d.get("superseded")}
    chunks = [d for d in s.data("assistant_chunk") if d["message_id"] not in superseded]
    assert "".join(d["text"] for d in chunks) == "One, two, three."


@pytest.mark.parametrize("at", range(1, 12))
async def test_a_turn_cut_off_at_any_event_resumes_without_repeating_calls(at: int) -> None:
    """The process dies when event number `at` is emitted; what was stored inside `emit` is all that is left."""
    ran: list[str] = []

    async def work(arguments: dict[str, Any]) -> str:
        ran.append(arguments["at"])
        return "worked"

    tool = Tool("work", "", parameters("at", at={"type": "string"}), work)
    script = (calls(("work", {"at": "1"}), ("work", "broken{"), ("work", {"at": "2"}), piece=1000), says("done"))
    first = stage(*script, tools=(tool,))
    stored: list[str] = []
    dead = asyncio.Event()

    def die(_: object) -> None:
        stored.append(first.agent.conversation.to_json())
        if len(stored) == at:
            dead.set()
            raise asyncio.CancelledError

    first.hooks.append(die)
    with contextlib.suppress(asyncio.CancelledError):
        await first.agent.run_turn("go")
    conversation = Conversation.from_json(stored[-1])
    answered = sum(m.role == "assistant" for m in conversation.messages)
    second = stage(*script[answered:], says("and so on"), tools=(tool,), conversation=conversation)
    outcome = await second.agent.resume()
    if not dead.is_set() or not conversation.in_turn:
        assert outcome is None
    else:
        assert outcome is not None
        assert outcome.status == "complete"
    assert len(ran) == len(set(ran))
    results = [m.content for m in second.agent.conversation.messages if m.role == "tool"]
    assert len(results) == 3
    assert sum("restarted while this call was under way" in r for r in results) + len(ran) >= 2
    for request in second.model.requests:
        check_request(request)


async def test_a_call_under_way_in_a_crash_is_reported_and_not_repeated() -> None:
    ran: list[str] = []
    begun = asyncio.Event()

    async def work(arguments: dict[str, Any]) -> str:
        ran.append(arguments["at"])
        begun.set()
        if arguments["at"] == "slow":
            await asyncio.get_running_loop().create_future()
        return "worked"

    tool = Tool("work", "", parameters("at", at={"type": "string"}), work)
    first = stage(calls(("work", {"at": "slow"}), ("work", {"at": "next"})), tools=(tool,))
    stored: list[str] = []
    first.hooks.append(lambda _: stored.append(first.agent.conversation.to_json()))
    turn = asyncio.create_task(first.agent.run_turn("go"))
    await begun.wait()
    turn.cancel()
    await asyncio.wait({turn})
    assert Conversation.from_json(stored[-1]) == first.agent.conversation  # a cancellation is like a crash
    second = stage(says("I see"), tools=(tool,), conversation=Conversation.from_json(stored[-1]))
    async with asyncio.timeout(10):
        assert (await second.agent.resume()) is not None
    assert ran == ["slow", "next"]
    results = [m.content for m in second.model.requests[0] if m.role == "tool"]
    assert "restarted while this call was under way" in results[0]
    assert results[1] == "worked"


async def test_dangling_calls_get_results_when_the_user_says_something_new() -> None:
    wanted = (ToolCall("begun", "look", "{}"), ToolCall("not begun", "look", "{}"))
    cut_off = Conversation((Message("user", "go"), Message("assistant", "", wanted)), started=("begun",), in_turn=True)
    s = stage(says("all right"), tools=(LOOK,), conversation=cut_off)
    assert (await s.agent.run_turn("leave it")).message == "all right"
    check_request(s.model.requests[0])
    assert [m.content for m in s.model.requests[0] if m.role == "tool"] == [CUT_OFF, CUT_OFF]
    assert [d["tool_call_id"] for d in s.data("tool_output")] == ["begun"]  # the other one was never told of


async def test_blank_words_beside_a_call_are_left_out() -> None:
    s = stage(calls(("look", {}), text=" \n"), says("done"), tools=(LOOK,))
    await s.agent.run_turn("go")
    assert s.model.requests[1][2].content == ""
    check_request(s.model.requests[1])


async def test_undo_brings_back_the_plan_though_it_has_been_compacted_away() -> None:
    plan = [{"step": "dig", "status": "pending"}]
    messages = (Message("user", "first"), Message("user", "[summary]", origin="summary"), Message("assistant", "done"))
    s = stage(
        calls(("plan", {"plan": [{"step": "rest", "status": "done"}]})),
        says("resting"),
        tools=(plan_tool(),),
        conversation=Conversation(messages, plan=tuple(plan)),
    )
    await s.agent.run_turn("rest")
    assert s.agent.conversation.plan[0]["step"] == "rest"
    await s.agent.undo()
    assert list(s.agent.conversation.plan) == plan


async def test_every_turn_ends_with_one_event() -> None:
    s = stage(says("a"), fails(ModelError("no")), calls(("look", {})), says("b"), tools=(LOOK,))
    for text in ("one", "two", "three"):
        s.events.clear()
        await s.agent.run_turn(text)
        assert sum(kind in TURN_ENDS for kind in s.types()) == 1
        assert s.types()[-1] in TURN_ENDS


async def test_arguments_nested_without_end_are_malformed() -> None:
    nested = '{"at": ' + "[" * 490 + "]" * 490 + "}"
    s = stage(calls(("look", nested)), says("I see"), tools=(LOOK,))
    assert (await s.agent.run_turn("go")).message == "I see"
    [result] = [m.content for m in s.agent.conversation.messages if m.role == "tool"]
    assert "nested at most 64 deep" in result


async def test_an_error_s_message_is_bounded() -> None:
    s = stage(fails(ModelError("x" * 5_000_000)))
    assert (await s.agent.run_turn("go")).status == "error"
    assert len(s.data("error")[0]["message"]) < 5_000
    s = stage(fails(ModelUnavailableError("x" * 5_000_000)), says("hi"))
    await s.agent.run_turn("go")
    assert len(s.data("processing")[1]["reason"]) < 1_000
