"""`plan`: the tool by which the model writes its plan down."""

from __future__ import annotations

from typing import Any

from agent.plan import NOTED, PLAN_TOOL
from agent.tools.tool import Tool, parameters


def plan_tool() -> Tool:
    """`plan`: replaces the whole plan. The loop stores and shows it; the tool itself only counts the open steps."""

    async def call(arguments: dict[str, Any]) -> str:
        left = sum(step["status"] != "done" for step in arguments["plan"])
        return f"{NOTED}; {left} of {len(arguments['plan'])} steps are left"

    step = parameters(
        "step",
        "status",
        step={"type": "string", "description": "What is to be done."},
        status={"type": "string", "enum": ["pending", "in_progress", "done"]},
    )
    return Tool(
        name=PLAN_TOOL,
        description=(
            "Write down the steps of a longer task, and keep them up to date as you work. Each call replaces the whole "
            "plan. Use it for work of several steps; the person sees it."
        ),
        parameters=parameters("plan", plan={"type": "array", "items": step, "maxItems": 50}),
        call=call,
    )
