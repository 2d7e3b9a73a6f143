"""The state of a session's agent, as a value: what was said, what was used, what is undecided.

Nothing here is changed in place; every step makes a new value. One rule holds at every step: behind an assistant's
message with tool calls come the results of those calls, at most one each, in the order of the calls, and nothing else
comes before each of them has its result.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from agent.approval import ApprovalDecision
from agent.doom_loop import Pattern
from agent.images import Image
from agent.messages import Message, ToolCall, Usage
from agent.plan import PlanStep, last_plan

STATE_VERSION = 2
"""Version 1 knew no decisions (after a crash, the person was asked again) and no sub-agents."""


@dataclass(frozen=True)
class PendingApproval:
    """A tool call that waits for a person's decision."""

    tool_call_id: str
    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    """Why a person is asked, for that person."""
    parent: str | None = None
    """For a sub-agent's call, the id of the call that the sub-agent works for."""


class BegunCall(NamedTuple):
    """A call whose execution has begun; `parent` is that of `PendingApproval`."""

    call: ToolCall
    parent: str | None = None


@dataclass(frozen=True)
class Conversation:
    """Everything that must survive a restart of the process."""

    messages: tuple[Message, ...] = ()
    """Without the system message, which is built for every model call."""
    usage: Usage = field(default_factory=Usage)
    pending: tuple[PendingApproval, ...] = ()
    decisions: tuple[ApprovalDecision, ...] = ()
    """What a person has decided about open calls."""
    unusable: dict[str, str] = field(default_factory=dict)
    """What is wrong with those open calls that cannot be run, by their ids."""
    masked: tuple[str, ...] = ()
    """Ids of those open calls whose arguments are a masked copy here; what they are run with is only in memory."""
    started: tuple[str, ...] = ()
    """Ids of those open calls whose execution has begun."""
    subagents: dict[str, Conversation] = field(default_factory=dict)
    """What the sub-agents know that work for open calls, by the ids of those calls. Their `usage` and `pending` are
    empty: they are counted, and asked about, in the conversation that they are a part of."""
    in_turn: bool = False
    """A turn is under way, or waits for approval."""
    iterations: int = 0
    """Model calls in this turn so far."""
    plan: tuple[PlanStep, ...] = ()
    plan_before: tuple[PlanStep, ...] | None = None
    """The plan as it was when a person last said something; None when that has been undone, and the messages must tell."""
    continued: int = 0
    """How often this turn was sent back to an unfinished plan."""
    loop: Pattern | None = None
    """The loop that the model is in and has been warned of."""
    measured: tuple[int, int] | None = None
    """The provider's own count: the first so many messages (and the system message) are so many tokens."""

    window: tuple[str, int] | None = None
    """A model's name, and how many tokens one request to it can have at most, as a refusal has shown."""

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls that have no result yet, in order."""
        at = self._last_calls_at()
        if at is None:
            return ()
        answered = {message.tool_call_id for message in self.messages[at + 1 :]}
        return tuple(call for call in self.messages[at].tool_calls if call.id not in answered)

    @property
    def begun_calls(self) -> tuple[BegunCall, ...]:
        """The calls that have begun and have no result yet; those of a sub-agent before the one that it works for."""
        theirs = (BegunCall(call, at) for at, sub in self.subagents.items() for call, _ in sub.begun_calls)
        return (*theirs, *(BegunCall(call) for call in self.open_calls if call.id in self.started))

    @property
    def last_message(self) -> str | None:
        """The model's last words."""
        said = (m.content for m in reversed(self.messages) if m.role == "assistant" and m.content)
        return next(said, None)

    def with_message(self, message: Message) -> Conversation:
        """With a message at the end. Only possible when no call is open."""
        if self.open_calls:
            raise ValueError("a tool call has no result yet")
        return replace(self, messages=(*self.messages, message))

    def with_said(self, text: str) -> Conversation:
        """With what a person says, which begins a turn. Only possible when no call is open."""
        return replace(self.with_message(Message("user", text)), in_turn=True, plan_before=self.plan)

    def with_note(self, text: str) -> Conversation:
        """With something that the loop has to say to the model."""
        return self.with_message(Message("user", text, origin="note"))

    def without_last_turn(self) -> Conversation | None:
        """Without the last thing a person said and all that came after it, at rest.

        None when nobody has said anything, or when it has become part of a summary, which cannot be taken apart.
        """
        for at in reversed(range(len(self.messages))):
            if self.messages[at].origin == "summary":
                return None
            if self.messages[at].from_person:
                measured = self.measured if self.measured and self.measured[0] <= at else None
                kept = self.messages[:at]
                plan = last_plan(kept) if self.plan_before is None else self.plan_before
                return Conversation(kept, self.usage, plan=plan, measured=measured, window=self.window)
        return None

    def with_result(self, call_id: str, content: str, images: Sequence[Image] = ()) -> Conversation:
        """With the result of an open call, put in the place that the order of the calls gives it."""
        at = self._last_calls_at()
        if at is None or call_id not in {call.id for call in self.open_calls}:
            raise ValueError(f"no open tool call {call_id}")
        results = {m.tool_call_id: m for m in self.messages[at + 1 :]}
        results[call_id] = Message("tool", content, tool_call_id=call_id, images=tuple(images))
        ordered = tuple(results[call.id] for call in self.messages[at].tool_calls if call.id in results)
        return replace(
            self,
            messages=self.messages[: at + 1] + ordered,
            masked=tuple(other for other in self.masked if other != call_id),
            started=tuple(other for other in self.started if other != call_id),
            pending=tuple(other for other in self.pending if other.tool_call_id != call_id),
            decisions=tuple(other for other in self.decisions if other.tool_call_id != call_id),
            unusable={other: problem for other, problem in self.unusable.items() if other != call_id},
            subagents={other: sub for other, sub in self.subagents.items() if other != call_id},
        )

    def with_result_of(self, begun: BegunCall, content: str) -> Conversation:
        """With the result of a begun call, which may be a sub-agent's."""
        if begun.parent is None:
            return self.with_result(begun.call.id, content)
        return self.with_subagent(begun.parent, self.subagents[begun.parent].with_result(begun.call.id, content))

    def with_subagent(self, call_id: str, subagent: Conversation) -> Conversation:
        """With what the sub-agent knows that works for an open call."""
        return replace(self, subagents={**self.subagents, call_id: subagent})

    def with_decisions(self, decisions: Iterable[ApprovalDecision]) -> Conversation:
        """With what a person has decided about the pending calls, so that none is pending any more.

        A call without a decision is denied; what is not about a pending call is ignored.
        """
        decided = {decision.tool_call_id: decision for decision in decisions}
        conversation = replace(self, pending=())
        for asked in self.pending:
            decision = decided.get(asked.tool_call_id, ApprovalDecision(asked.tool_call_id, False))
            if asked.parent is None:
                conversation = replace(conversation, decisions=(*conversation.decisions, decision))
            else:
                sub = conversation.subagents[asked.parent]
                sub = replace(sub, decisions=(*sub.decisions, decision))
                conversation = conversation.with_subagent(asked.parent, sub)
        return conversation

    def decision_about(self, call_id: str) -> ApprovalDecision | None:
        """What a person has decided about an open call, None when nothing yet."""
        return next((decision for decision in self.decisions if decision.tool_call_id == call_id), None)

    def is_masked(self, asked: PendingApproval) -> bool:
        """Whether the arguments of a call are a masked copy, in the conversation of the agent that made it."""
        owner = self if asked.parent is None else self.subagents[asked.parent]
        return asked.tool_call_id in owner.masked

    def with_masked(self, asked: PendingApproval, masked: bool) -> Conversation:
        """With the note whether the arguments of a call are a masked copy."""
        if asked.parent is not None:
            sub = self.subagents[asked.parent].with_masked(replace(asked, parent=None), masked)
            return self.with_subagent(asked.parent, sub)
        others = tuple(other for other in self.masked if other != asked.tool_call_id)
        return replace(self, masked=(*others, asked.tool_call_id) if masked else others)

    def with_started(self, call_id: str) -> Conversation:
        """With the note that an open call has begun, so that nobody runs it a second time."""
        return replace(self, started=(*self.started, call_id))

    def closed(self, reason: str) -> Conversation:
        """At rest: every open call has `reason` for its result, nothing is pending, no turn is under way."""
        closed = self
        for call in self.open_calls:
            closed = closed.with_result(call.id, reason)
        # This is what outlives a turn.
        return Conversation(
            closed.messages,
            closed.usage,
            plan=closed.plan,
            plan_before=closed.plan_before,
            measured=closed.measured,
            window=closed.window,
        )

    def to_json(self) -> str:
        data = asdict(self) | {"version": STATE_VERSION}
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Conversation:
        """Reads what `to_json` wrote, now or in an earlier version. Raises ValueError when it is not that."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("version") not in range(1, STATE_VERSION + 1):
            raise ValueError(f"not a conversation of a version that is known here (1 to {STATE_VERSION})")
        return cls._from_dict(data)

    @classmethod
    def _from_dict(cls, data: dict[str, Any]) -> Conversation:
        return cls(
            messages=tuple(Message.from_dict(message) for message in data["messages"]),
            usage=Usage(**data["usage"]),
            pending=tuple(PendingApproval(**approval) for approval in data["pending"]),
            decisions=tuple(ApprovalDecision(**decision) for decision in data.get("decisions", ())),
            unusable=data.get("unusable", {}),
            masked=tuple(data.get("masked", ())),
            started=tuple(data["started"]),
            subagents={call_id: cls._from_dict(sub) for call_id, sub in data.get("subagents", {}).items()},
            in_turn=data["in_turn"],
            iterations=data["iterations"],
            plan=tuple(data["plan"]),
            plan_before=None if data.get("plan_before") is None else tuple(data["plan_before"]),
            continued=data["continued"],
            loop=None if data["loop"] is None else tuple((name, arguments) for name, arguments in data["loop"]),
            measured=None if data["measured"] is None else (data["measured"][0], data["measured"][1]),
            window=None if data.get("window") is None else (data["window"][0], data["window"][1]),
        )

    def _last_calls_at(self) -> int | None:
        """Where the last assistant message is, when only tool results follow it."""
        for at in range(len(self.messages) - 1, -1, -1):
            if self.messages[at].role != "tool":
                return at if self.messages[at].tool_calls else None
        return None
