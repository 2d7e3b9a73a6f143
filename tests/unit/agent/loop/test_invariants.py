"""What holds for every script: random models and tools, interrupted, crashed, asked about and undone at random."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.approval import ApprovalDecision, Rule
from agent.conversation import Conversation
from agent.events import TURN_ENDS, Event
from agent.loop.agent import ABANDONED, CUT_OFF, TurnOutcome
from agent.messages import ToolCall, Usage
from agent.model.failure import ContextOverflowError, ModelError, RateLimitedError
from agent.testing import Reply
from agent.tools.plan import plan_tool
from agent.tools.research import research_tool
from agent.tools.tool import Tool, ToolError, parameters
from support.agent.stage import stage
from support.agent.validity import check_order, check_request

pytestmark = pytest.mark.anyio


async def good(arguments: dict[str, Any]) -> str:
    return "fine " * 500


async def bad(arguments: dict[str, Any]) -> str:
    raise ToolError("no")


async def worse(arguments: dict[str, Any]) -> str:
    raise KeyError("oh")


async def slow(arguments: dict[str, Any]) -> str:
    for _ in range(3):
        await asyncio.sleep(0)
    return "at last"


PLAN = '{{"plan": [{{"step": "dig", "status": "{}"}}]}}'
NUMBER = parameters(n={"type": "integer"})
TOOLS = (
    Tool("good", "", NUMBER, good, read_only=True),
    Tool("bad", "", NUMBER, bad),
    Tool("worse", "", NUMBER, worse, read_only=True),
    Tool("slow", "", NUMBER, slow, read_only=True),
    Tool("asks", "", NUMBER, slow, read_only=True),
    Tool("costs", "", NUMBER, good, needs_consent=lambda _: "it costs", price=lambda arguments: arguments.get("n")),
    plan_tool(),
    research_tool(),
)
SETTINGS: dict[str, Any] = {
    "tools": TOOLS,
    "rules": (Rule("asks", "ask", {"n": "*"}), Rule("good", "deny", {"n": "2"})),
    "auto_approve_usd": 2.0,
    "max_iterations": 6,
    "research_iterations": 3,
}

errors = st.sampled_from([ModelError("no"), RateLimitedError("wait", retry_after=0.0), ContextOverflowError("long")])
odd_call = st.tuples(
    st.sampled_from([*(tool.name for tool in TOOLS), "unknown", "", "we ird"]),
    st.sampled_from(["{}", "", '{"n": "x"}', "[1]", '{"n": ', '{"m": 1}', "null", '{"task": ""}']),
)
number_call = st.tuples(
    st.sampled_from(["good", "bad", "worse", "slow", "costs", "asks", "asks", "asks"]),
    st.sampled_from(['{"n": 1}', '{"n": 2}']),
)
plan_call = st.tuples(st.just("plan"), st.sampled_from(["pending", "done"]).map(PLAN.format))
research_call = st.tuples(st.just("research"), st.sampled_from(['{"task": "this"}', '{"task": "that"}']))
tool_calls = st.lists(number_call | number_call | number_call | research_call | plan_call | odd_call, max_size=4).map(tuple)
usages = st.sampled_from([Usage(), Usage(input_tokens=100, output_tokens=10)])
answers = st.builds(
    Reply,
    text=st.sampled_from(["", " \n", "words", "many words " * 100]),
    calls=tool_calls,
    usage=usages,
    ids=st.lists(st.sampled_from(["", "a", "b"]), max_size=4).map(tuple),
    piece=st.just(1000),
    finish_reason=st.sampled_from(["stop", "stop", "length", "content_filter"]),
)
failures = st.builds(Reply, text=st.sampled_from(["", "half a"]), error=errors)
ends = st.builds(Reply, text=st.just("that is it"), usage=usages)
scripts = st.lists(st.one_of(*[answers] * 8, ends, failures), min_size=16, max_size=30)

acts = st.sampled_from(["decide"] * 8 + ["say", "undo", "compact", "abandon"])
fates = st.sampled_from(["", "", "interrupt", "crash"])
"""What happens in the middle of an act, after so many passes of the event loop."""
plots = st.lists(st.tuples(acts, fates, st.integers(0, 40), st.integers(0, 999)), min_size=3, max_size=8)

CHANGES: dict[str, dict[str, Any]] = {"2": {"n": 2}, "3": {"n": "x"}}
ENDS = {"complete": "turn_complete", "interrupted": "interrupted", "error": "error", "awaiting_approval": "approval_required"}


class Play:
    """A session from its beginning to its end, through crashes."""

    def __init__(self, script: list[Reply], window: int | None) -> None:
        self.script = script
        self.window = window
        self.told: list[Event] = []
        """All events, of every process."""
        self.start(Conversation())

    def start(self, conversation: Conversation) -> None:
        """A process begins."""
        self.dead = False
        self.stage = stage(*self.script, conversation=conversation, context_window=self.window, **SETTINGS)
        self.stage.hooks.append(self.watch)
        self.states = [conversation]
        """What was stored with each event of this process."""

    def watch(self, event: Event) -> None:
        """Store what there is with each event, as the runtime does."""
        if self.dead:
            raise asyncio.CancelledError
        self.told.append(event)
        self.states.append(self.stage.agent.conversation)

    async def act(self, act: str, number: int) -> TurnOutcome | None:
        """What a person does."""
        agent = self.stage.agent
        match act:
            case "undo":
                await agent.undo()
            case "abandon":
                await agent.abandon("nobody answered")
            case "compact":
                return await agent.compact()
            case "decide" if agent.pending_approvals:  # "say" would abandon them
                return await agent.decide(decisions(agent.conversation, number))
            case _:
                return await agent.run_turn(f"say {number}")
        return None

    async def crash(self, task: asyncio.Task[TurnOutcome | None]) -> TurnOutcome | None:
        """The process dies, and another one resumes from what was stored."""
        self.dead = True
        task.cancel()
        await asyncio.wait([task])
        self.check_process()
        self.script = self.script[len(self.stage.model.requests) :]
        self.start(Conversation.from_json(self.states[-1].to_json()))
        return await self.stage.agent.resume()

    async def step(self, act: str, fate: str, moment: int, number: int) -> None:
        before, begun = self.stage.agent.conversation, len(self.told)
        task = asyncio.create_task(self.act(act, number))
        for _ in range(moment if fate else 0):
            await asyncio.sleep(0)  # a point where something waits
        if fate == "interrupt":
            self.stage.agent.interrupt()
        outcome = await self.crash(task) if fate == "crash" else await task
        after, told = self.stage.agent.conversation, self.told[begun:]
        assert after == self.states[-1]
        check_end(outcome, told)
        check_rest(after, self.told)
        check_undo(before, after, told)

    def check_process(self) -> None:
        """Every stored state could be resumed, and the providers would have taken every request."""
        for state in self.states:
            check_state(state)
        for request in self.stage.model.requests:
            check_request(request)


def decisions(conversation: Conversation, number: int) -> list[ApprovalDecision]:
    """Approve, deny, change, change so that it cannot run, or leave out, as the digits of a number say."""
    made: list[ApprovalDecision] = []
    for digit, pending in zip(f"{number:03}" * len(conversation.pending), conversation.pending, strict=False):
        if digit != "4":
            made.append(ApprovalDecision(pending.tool_call_id, digit != "1", "why", CHANGES.get(digit)))
    return made


def check_state(conversation: Conversation) -> None:
    """At any event: it can be written and read back, and the agent and its sub-agents could resume from there."""
    assert Conversation.from_json(conversation.to_json()) == conversation
    ids = Counter(call.id for agent in (conversation, *conversation.subagents.values()) for call in calls_of(agent))
    assert not ids or max(ids.values()) == 1
    assert conversation.subagents.keys() <= {call.id for call in conversation.open_calls} & set(conversation.started)
    check_order(conversation.closed("closed").messages)
    for sub in conversation.subagents.values():
        assert sub.messages[0].from_person
        check_order(sub.closed("closed").messages)
        assert (sub.usage, sub.pending, sub.subagents) == (Usage(), (), {})


def check_end(outcome: TurnOutcome | None, told: list[Event]) -> None:
    """A turn ends with one event, which says how. Compaction has shortened something."""
    for event in told:
        assert event.data.get("kind") != "internal", event.data["message"]
        if event.type == "compacted":
            assert int(str(event.data["tokens_after"])) < int(str(event.data["tokens_before"]))
    if outcome is None:
        return
    ends = [event.type for event in told if event.type in TURN_ENDS]
    if outcome.status == "complete" and not ends:
        assert told[-1].type == "compacted"
    else:
        assert [told[-1].type] == ends == [ENDS[outcome.status]]


def check_rest(conversation: Conversation, told: list[Event]) -> None:
    """Between turns: what has begun has ended, but for those calls whose sub-agents wait for a person."""
    began = Counter(event.data["tool_call_id"] for event in told if event.type == "tool_call")
    ended = Counter(event.data["tool_call_id"] for event in told if event.type == "tool_output")
    assert began - ended == Counter(conversation.subagents.keys())
    assert not ended - began
    if not conversation.pending:
        assert conversation == conversation.closed("closed")
    for pending in conversation.pending:
        asking = conversation if pending.parent is None else conversation.subagents[pending.parent]
        assert pending.tool_call_id in {call.id for call in asking.open_calls}


def check_undo(before: Conversation, after: Conversation, told: list[Event]) -> None:
    """Undo removes what a person said last, with all that came of it, and nothing else."""
    for event in told:
        if event.type == "undo_complete":
            kept = len(after.messages)
            assert before.messages[:kept] == after.messages
            said = [message.content for message in before.messages[kept:] if message.from_person]
            assert said == ([] if event.data["text"] is None else [event.data["text"]])
    compacted = any(event.type == "compacted" and "parent" not in event.data for event in told)
    if any(event.data.get("status") == "started" for event in told) and not compacted:
        undone = after.without_last_turn()
        rest = before.closed(ABANDONED if before.pending else CUT_OFF)
        assert undone is not None
        assert (undone.messages, undone.plan) == (rest.messages, rest.plan)


def calls_of(conversation: Conversation) -> list[ToolCall]:
    return [call for message in conversation.messages for call in message.tool_calls]


@settings(deadline=None, max_examples=300)
@given(scripts, st.sampled_from([None, None, 2000, 4000]), plots)
async def test_whatever_happens_the_conversation_stays_valid(
    script: list[Reply], window: int | None, plot: list[tuple[str, str, int, int]]
) -> None:
    session = Play(script, window)
    for act, fate, moment, number in plot:
        await session.step(act, fate, moment, number)
    session.check_process()
