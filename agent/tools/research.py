"""`research`: the tool by which the model sends a sub-agent to find something out."""

from __future__ import annotations

from typing import Any

from agent.tools.tool import Tool, ToolError, parameters

RESEARCH_TOOL = "research"

SYSTEM = """\
You are an agent that finds something out for another agent. You see nothing of its conversation, and it sees nothing \
of your work but your last answer. Your tools only read. Look things up until you know, or know that it cannot be \
found; do not guess. Then answer, without a tool call: what you found, with the names, paths, addresses, numbers and \
quotations that it rests on, what you did not find, and nothing else. Independent calls can be made in one answer."""


def research_tool() -> Tool:
    """`research`, for the tools of an agent with sub-agents (`agent/__main__.py`, `session_runtime/agent_assembly.py`).

    The loop takes its calls (`agent.loop.subagents`); which tools a sub-agent has, `AgentConfig.research_tools` says.
    """

    async def call(arguments: dict[str, Any]) -> str:
        raise ToolError("Only the agent's loop can work on this call.")

    return Tool(
        name=RESEARCH_TOOL,
        description=(
            "Have a question answered by another agent, which has tools that read and a context of its own, so that "
            "all it reads does not fill yours. It knows nothing of this conversation: write all that it needs to know, "
            "and what you want to hear. Several independent questions can be asked in one answer; they are worked on "
            "at the same time."
        ),
        parameters=parameters("task", task={"type": "string", "minLength": 1, "description": "What to find out."}),
        call=call,
        read_only=True,
    )
