"""Agents that work for a call of another agent, by the same rules and out of the same budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agent.config import AgentConfig
from agent.conversation import Conversation
from agent.loop.run_context import RunContext, SubContext, TurnFailed
from agent.loop.turn import Turn
from agent.model.failure import ModelError
from agent.tools.research import RESEARCH_TOOL, SYSTEM
from agent.tools.router import ToolRouter
from agent.tools.selection import ToolSelection
from agent.tools.tool import Tool, ToolResult

NO_ANSWER = "[it ended without an answer]"


class ResearchTools:
    """Those tools of a router that change nothing, as a source of another router. A sub-agent has no sub-agents."""

    problem = None
    ready = True

    def __init__(self, router: ToolRouter) -> None:
        self._router = router
        self.on_change: Callable[[], None] = lambda: None

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(tool for tool in self._router.tools if tool.read_only and tool.name != RESEARCH_TOOL)

    async def open(self) -> None:
        """The router behind it is open already."""

    async def close(self) -> None:
        """The router behind it is closed by its owner."""


class SubAgents:
    """The sub-agents of one agent. What they know is in its conversation (`Conversation.subagents`)."""

    def __init__(self, run: RunContext, config: AgentConfig, tools: ToolRouter) -> None:
        self._run = run
        self._config = replace(config, max_iterations=config.research_iterations)
        self._tools = ToolRouter(sources=[ResearchTools(tools)], selections=[ToolSelection(config.research_tools)])

    def takes(self, tool: str) -> bool:
        """Whether the calls of this tool are for a sub-agent."""
        return tool == RESEARCH_TOOL

    def begin(self, arguments: Mapping[str, Any]) -> Conversation:
        """What a sub-agent knows at first."""
        return Conversation().with_said(arguments["task"])

    async def work(self, call_id: str) -> ToolResult:
        """Go on with a call's sub-agent from wherever it is. Raises ConsentNeeded and Interrupted, as a turn does."""
        run = SubContext(self._run, call_id)
        try:
            answer = await Turn(run, self._config, self._tools, lambda: SYSTEM).go_on()
        except (TurnFailed, ModelError) as failure:
            said = run.conversation.last_message
            last_words = "" if said is None else f"\nIts last words were: {said}"
            return ToolResult(f"The sub-agent did not finish: {failure}.{last_words}", False)
        return ToolResult(answer.content or NO_ANSWER)
