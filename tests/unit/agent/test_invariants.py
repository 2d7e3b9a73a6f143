"""What holds for every script: random models and tools, interrupted, crashed and undone at random."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.approval import ApprovalDecision, Rule
from agent.conversation import Conversation
from agent.events import TURN_ENDS
from agent.messages import Usage
from agent.retry import ContextOverflowError, ModelError, RateLimitedError
from agent.testing import Reply
from agent.tools.tool import Tool, ToolError, parameters
from unit.agent.stage import Stage, stage
from unit.agent.validity import check_order, check_request


async def good(arguments: dict[str, Any]) -> str:
    return "fine"


async def bad(arguments: dict[str, Any]) -> str:
    raise ToolError("no")


async def worse(arguments: dict[str, Any]) -> str:
    raise KeyError("oh")


async def slow(arguments: dict[str, Any]) -> str:
    for _ in range(3):
        await asyncio.sleep(0)
    return "at last"


TOOLS = (
    Tool("good", "", parameters(n={"type": "integer"}), good, read_only=True),
    Tool("bad", "", parameters(n={"type": "integer"}), bad),
    Tool("worse", "", parameters(n={"type": "integer"}), worse, read_only=True),
    Tool("slow", "", parameters(n={"type": "integer"}), slow),
    Tool("asks", "", parameters(n={"type": "integer"}), good),
)
RULES = (Rule("asks", "ask", {"n": "*"}),)

errors = st.sampled_from([ModelError("no"), RateLimitedError("wait", retry_after=0.0), ContextOverflowError("long")])
one_call = st.tuples(
    st.sampled_from([*(tool.name for tool in TOOLS), "unknown", "", "we ird"]),
    st.sampled_from(['{"n": 1}', '{"n": 2}', "{}", "", '{"n": "x"}', "[1]", '{"n": ', '{"m": 1}', "null"]),
)
replies = st.builds(
    Reply,
    text=st.sampled_from(["", "words", "more words than one"]),
    calls=st.lists(one_call, max_size=4).map(tuple),
    error=st.none() | st.none() | st.none() | errors,
    usage=st.just(Usage()) | st.just(Usage(input_tokens=100, output_tokens=10)),
    ids=st.lists(st.sampled_from(["", "a", "b"]), max_size=4).map(tuple),
    piece=st.just(100),
    finish_reason=st.sampled_from(["stop", "length", "content_filter"]),
)
steps = st.sampled_from(["say", "say", "say", "interrupt", "crash", "undo", "decide", "compact"])


async def play(script: list[Reply], plot: list[tuple[str, int]]) -> None:
    s = stage(*script, tools=TOOLS, rules=RULES, max_iterations=6)
    for number, (step, at) in enumerate(plot):
        s.events.clear()
        s.hooks.clear()
        before = s.agent.conversation
        if step == "undo":
            await s.agent.undo()
        elif step == "compact":
            await s.agent.compact()
        elif step == "decide" and s.agent.pending_approvals:
            await s.agent.decide([ApprovalDecision(p.tool_call_id, at % 2 == 0) for p in s.agent.pending_approvals])
        elif step == "crash":
            s = await crash(s, at, script)
        else:
            if step == "interrupt":
                at_event(s, at, s.agent.interrupt)
            await s.agent.run_turn(f"say {number}")
            assert [kind for kind in s.types() if kind in TURN_ENDS] == [s.types()[-1]]
            check_undo(before, s.agent.conversation)
        check(s)
    for request in s.model.requests:
        if request[0].content.startswith("You are an agent"):
            check_request(request)


def at_event(s: Stage, at: int, action: Any) -> None:
    def hook(_: object) -> None:
        if len(s.events) == at:
            action()

    s.hooks.append(hook)


async def crash(s: Stage, at: int, script: list[Reply]) -> Stage:
    """The process dies at an event; another one goes on from what was stored there."""
    stored = [s.agent.conversation.to_json()]

    def die() -> None:
        raise asyncio.CancelledError

    s.hooks.append(lambda _: stored.append(s.agent.conversation.to_json()))
    at_event(s, at, die)
    with contextlib.suppress(asyncio.CancelledError):
        await s.agent.run_turn("about to crash")
    rest = script[len(s.model.requests) :]
    again = stage(*rest, tools=TOOLS, rules=RULES, max_iterations=6, conversation=Conversation.from_json(stored[-1]))
    await again.agent.resume()
    return again


def check(s: Stage) -> None:
    """At rest: every call has its one result, unless it is pending or stands behind a pending one."""
    conversation = s.agent.conversation
    if s.agent.pending_approvals:
        assert {p.tool_call_id for p in s.agent.pending_approvals} <= {c.id for c in conversation.open_calls}
        conversation = conversation.closed("closed")
    check_order(conversation.messages)
    assert Conversation.from_json(conversation.to_json()) == conversation
    began = [e.data["tool_call_id"] for e in s.events if e.type == "tool_call"]
    ended = [e.data["tool_call_id"] for e in s.events if e.type == "tool_output"]
    assert len(ended) == len(set(ended))
    assert set(began) <= set(ended)


def check_undo(before: Conversation, after: Conversation) -> None:
    """Undo brings back what was there before the last thing said; what was pending then has got its results."""
    undone = after.without_last_turn()
    if not any(message.origin != "said" for message in after.messages):
        assert undone is not None
        assert [m for m in undone.messages if m.role != "tool"] == [m for m in before.messages if m.role != "tool"]


@settings(deadline=None, max_examples=150)
@given(st.lists(replies, max_size=12), st.lists(st.tuples(steps, st.integers(1, 12)), min_size=1, max_size=6))
def test_whatever_happens_the_conversation_stays_valid(script: list[Reply], plot: list[tuple[str, int]]) -> None:
    asyncio.run(play(script, plot))
