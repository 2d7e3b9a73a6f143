"""The events that the agent emits.

| type | when | data |
|---|---|---|
| `ready` | the session can be talked to | `model`, `tools` (names), `problems` (texts) |
| `tools_changed` | a server of tools came, went, or changed what it offers; belongs to no submission | `tools` (names), `problems` (texts) |
| `processing` | work on a turn began, continues, or waits for the model | `status` (`started`, `resumed`, `retrying`, `waiting`, `notice`); with `started`: `text` (what the user said); with `retrying`: `attempt`, `wait_seconds`, `reason`; with `waiting`: `seconds` (how long the model has sent nothing); with `notice`: `reason` (what a person should know) |
| `assistant_chunk` | a piece of the model's answer | `message_id`, `text`; or `message_id`, `superseded` (true): discard the pieces of that message; it broke off and is requested again |
| `assistant_message` | the model's answer is complete | `message_id`, `text` |
| `tool_call` | a tool call begins | `tool_call_id`, `tool`, `arguments` |
| `tool_output` | its result; exactly one for each `tool_call` | `tool_call_id`, `tool`, `output`, `success` |
| `approval_required` | ends a turn until a person has decided | `approvals` (list of `tool_call_id`, `tool`, `arguments`, `reason`, `parent`) |
| `question` | a tool's server asks the person in the middle of a call; open until `question_closed`, or until the `tool_output` of the call | `question_id`, `tool_call_id`, `tool`, `server`, `message`, `form` (JSON Schema, or null), `url` (to visit, or null); `declined` (why) when it was declined at once, because nobody answers questions in this session |
| `question_closed` | it was answered | `question_id`, `tool_call_id`, `action` (`accept`, `decline`, `cancel`) |
| `turn_complete` | ends a turn | `message` (the model's last words or null) |
| `interrupted` | ends a turn that was interrupted or abandoned | `reason` |
| `error` | ends a turn that failed; the session continues | `kind` (about the model: `unavailable`, `rate_limited`, `quota`, `auth`, `context_overflow`, `content_filter`, `no_answer`, `refused`, `model`; others: `budget`, `iteration_limit`, `compaction`, `nothing_pending`, `internal`), `message` |
| `compacted` | the conversation was shortened | `tokens_before`, `tokens_after`, `messages_before`, `messages_after` |
| `undo_complete` | the last user message was removed, with everything after it | `removed_messages`, `text` (what the user had said, or null when there was nothing to undo) |
| `plan_update` | the agent wrote its plan | `plan` (list of `step`, `status`) |
| `usage` | after each model call | `input_tokens`, `output_tokens`, `cached_tokens`, `cost_usd`, `tool_cost_usd`, `llm_calls`, `tool_calls`, all since the session began |
| `shutdown` | the session is over | `reason` |

Events of a sub-agent (its calls and their results, questions in them, its retries, its compactions, the usage after its model calls) have one
more field, `parent`: the id of the call that it works for. What it says comes as that call's result only. In `approvals`,
`parent` is null for a call of the agent itself.

The owner of the agent emits `ready`, `tools_changed` and `shutdown`, because only the owner knows when they are true.
"""  # noqa: E501 - a table row is one line

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from agent.messages import ToolCall

EventType = Literal[
    "ready",
    "tools_changed",
    "processing",
    "assistant_chunk",
    "assistant_message",
    "tool_call",
    "tool_output",
    "approval_required",
    "question",
    "question_closed",
    "turn_complete",
    "interrupted",
    "error",
    "compacted",
    "undo_complete",
    "plan_update",
    "usage",
    "shutdown",
]

TURN_ENDS: frozenset[EventType] = frozenset({"turn_complete", "approval_required", "error", "interrupted"})
"""Every turn ends with exactly one of these."""


@dataclass(frozen=True)
class Event:
    """One thing that happened. `data` holds only what JSON can carry, and no secret."""

    type: EventType
    data: dict[str, object] = field(default_factory=dict)


def tool_output(call: ToolCall, output: str, success: bool, parent: str | None = None) -> dict[str, object]:
    """Data of a `tool_output` event; `parent` for a sub-agent's call."""
    data = {"tool_call_id": call.id, "tool": call.name, "output": output, "success": success}
    return data if parent is None else {**data, "parent": parent}


Emit = Callable[[Event], Awaitable[None]]
"""Takes an event. The loop awaits it before it continues, so events arrive in order and the receiver sets the pace."""
