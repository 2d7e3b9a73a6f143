"""A stage for the agent: a scripted model before it, and a record of what it emitted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.config import AgentConfig, Patience
from agent.conversation import Conversation
from agent.events import Event
from agent.loop.agent import Agent, TurnOutcome
from agent.testing import Reply, ScriptedModel
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool


@dataclass
class Stage:
    """An agent with a scripted model, and all that it emitted."""

    agent: Agent
    model: ScriptedModel
    events: list[Event] = field(default_factory=list)
    hooks: list[Callable[[Event], None]] = field(default_factory=list)

    async def emit(self, event: Event) -> None:
        self.events.append(event)
        for hook in self.hooks:
            hook(event)
        await asyncio.sleep(0)  # a receiver that stores events takes its time, and may be cut off in it

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def data(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.events if event.type == kind]

    def on(self, kind: str, action: Callable[[], object]) -> None:
        """Do something whenever an event of this type is emitted."""

        def hook(event: Event) -> None:
            if event.type == kind:
                action()

        self.hooks.append(hook)


def stage(*replies: Reply, tools: tuple[Tool, ...] = (), conversation: Conversation | None = None, **settings: Any) -> Stage:
    """An agent on a stage; `settings` are those of AgentConfig. Waits for the model are short."""
    model = ScriptedModel(*replies)
    made: list[Stage] = []

    async def emit(event: Event) -> None:
        await made[0].emit(event)

    settings.setdefault("patience", Patience(first_wait=0.0))
    agent = Agent(AgentConfig("scripted", **settings), model, ToolRouter(tools), emit, conversation)
    made.append(Stage(agent, model))
    return made[0]


INTERRUPT_LIMIT = 0.1 + 0.4
"""Seconds that an interrupt may take: its promise, and a margin for a loaded machine."""


async def interrupt(s: Stage, turn: asyncio.Task[TurnOutcome]) -> TurnOutcome:
    """Interrupt a turn that is under way, and check how long it took to end and what it left."""
    began = time.monotonic()
    assert s.agent.interrupt()
    outcome = await turn
    assert time.monotonic() - began < INTERRUPT_LIMIT
    assert outcome.status == "interrupted"
    assert s.types()[-1] == "interrupted"
    assert s.agent.conversation.open_calls == ()
    return outcome
