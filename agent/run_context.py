"""What the parts of the loop share while it runs: the conversation as it is now, the way out for events, the stop sign."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from agent.conversation import Conversation, PendingApproval
from agent.events import Emit, Event, EventType
from agent.interrupt import InterruptSignal
from agent.messages import Usage
from agent.redaction import Redactor

T = TypeVar("T")


class TurnFailed(Exception):
    """Ends the turn with an `error` event of this kind."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ConsentNeeded(Exception):
    """The turn cannot go on before a person has decided about these calls."""

    def __init__(self, pending: tuple[PendingApproval, ...]) -> None:
        super().__init__(f"{len(pending)} calls need consent")
        self.pending = pending


class RunContext:
    """One agent's mutable state: `conversation` is replaced by a new value, first, and then told of by an event."""

    def __init__(self, conversation: Conversation, emit: Emit, redactor: Redactor) -> None:
        self.conversation = conversation
        self.redactor = redactor
        self.signal: InterruptSignal | None = None
        """Set while a turn is worked on."""
        self._emit = emit

    @property
    def usage(self) -> Usage:
        """What the session has used so far."""
        return self.conversation.usage

    def count(self, used: Usage) -> None:
        """Add to what the session has used."""
        self.conversation = replace(self.conversation, usage=self.conversation.usage + used)

    async def emit(self, event: EventType, **data: object) -> None:
        await self._emit(Event(event, data))

    async def interruptible(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, or Interrupted. Everything that may take long goes through here, but for events."""
        assert self.signal is not None  # noqa: S101 - only used inside a turn
        return await self.signal.guard(work)
