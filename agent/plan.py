"""The agent's plan: a list of steps that the model writes with the `plan` tool and is held to."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agent.messages import Message

PLAN_TOOL = "plan"

NOTED = "plan noted"
"""Prefix of the result of a call that set the plan."""

MAX_CONTINUATIONS = 2
"""How many times in one turn the model is sent back to an unfinished plan."""

PlanStep = dict[str, str]
"""`step` (what is to be done) and `status` (`pending`, `in_progress` or `done`)."""


def last_plan(messages: Sequence[Message]) -> tuple[PlanStep, ...]:
    """The plan that these messages end with."""
    noted = {m.tool_call_id for m in messages if m.role == "tool" and m.content.startswith(NOTED)}
    calls = [c for m in messages for c in m.tool_calls if c.name == PLAN_TOOL and c.id in noted]
    return tuple(json.loads(calls[-1].arguments)["plan"]) if calls else ()


def continuation(plan: Sequence[PlanStep], continued: int) -> str | None:
    """The note for a model that ends its turn with an unfinished plan; None lets the turn end."""
    left = [step["step"] for step in plan if step["status"] != "done"]
    if not left or continued >= MAX_CONTINUATIONS:
        return None
    return (
        f"Your plan is not finished: {'; '.join(left)}. Go on with it. If a step is done or no longer needed, update "
        "the plan; if something is in the way that only the person can remove, say so."
    )
