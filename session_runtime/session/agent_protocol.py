"""What a session needs of an agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from agent.approval import ApprovalDecision
from agent.conversation import Conversation
from agent.events import Emit
from agent.question import OpenQuestion, QuestionAnswer


class Agent(Protocol):
    """What a session needs of an agent; `agent.loop.agent.Agent` is one."""

    @property
    def conversation(self) -> Conversation: ...

    @property
    def questions(self) -> Sequence[OpenQuestion]: ...

    async def run_turn(self, text: str) -> object: ...

    async def decide(self, decisions: Sequence[ApprovalDecision]) -> object: ...

    async def resume(self) -> object: ...

    async def abandon(self, reason: str) -> None: ...

    async def undo(self) -> object: ...

    async def compact(self) -> object: ...

    async def answer(self, question_id: str, answer: QuestionAnswer) -> bool: ...

    def interrupt(self) -> bool: ...


@dataclass(frozen=True)
class OpenedAgent:
    """An agent that can be used, and what is to be said about it."""

    agent: Agent
    ready: Mapping[str, object]
    """Data of the `ready` event."""


OpenAgent = Callable[[Emit, Conversation], AbstractAsyncContextManager[OpenedAgent]]
