"""An agent on a stage whose tools are `look`, `write` and `research`, with a script for each of its sub-agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agent.approval import Rule
from agent.conversation import Conversation
from agent.messages import Message, Usage
from agent.model.answer import ModelChunk
from agent.testing import Reply, ScriptedModel
from agent.tools.research import RESEARCH_TOOL, research_tool
from agent.tools.tool import Tool, parameters
from support.agent.stage import Stage, stage
from support.agent.validity import check_order

ASK_B = (Rule("look", "ask", {"at": "b*"}, "b is private"),)


def look(ran: list[str]) -> Tool:
    """`look`, which only reads; `ran` records the places."""

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

    async def takes_images(self) -> bool:
        return False

    def cost_usd(self, used: Usage) -> float:
        return 0.0

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
