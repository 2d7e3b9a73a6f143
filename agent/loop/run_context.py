"""What the parts of the loop share while it runs: the conversation as it is now, the way out for events, the stop sign."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from agent.conversation import Conversation, PendingApproval
from agent.events import Emit, Event, EventType
from agent.loop.interrupt import InterruptSignal
from agent.loop.questions import Questions
from agent.messages import Usage
from agent.model.model import Model
from agent.redaction import Redactor

T = TypeVar("T")

WORDS: frozenset[EventType] = frozenset({"assistant_chunk", "assistant_message"})
"""What a sub-agent says is for its parent, and comes as the result of the call that it works for."""


class TurnFailed(Exception):
    """Ends the turn with an `error` event of this kind."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ConsentNeeded(Exception):
    """The turn cannot continue before a person has decided about these calls."""

    def __init__(self, pending: tuple[PendingApproval, ...]) -> None:
        super().__init__(f"{len(pending)} calls need consent")
        self.pending = pending


class RunContext:
    """One agent's mutable state: `conversation` is replaced by a new value, first, and then reported by an event."""

    def __init__(
        self, conversation: Conversation, emit: Emit, redactor: Redactor, model: Model, questions: Questions | None = None
    ) -> None:
        self._conversation = conversation
        self._emit = emit
        self.redactor = redactor
        self.model = model
        self.questions = questions or Questions(somebody=True)
        self.own_arguments: dict[str, dict[str, Any]] = {}
        """By ids of open calls: the arguments to run them with, where the conversation has a masked copy. In memory only."""
        self.unpriced: set[str] = set()
        """Models without a price that the person has been told about."""
        self.without_images: set[str] = set()
        """Models whose server says that they take no images, regardless of what is set or tabled."""
        self.signal: InterruptSignal | None = None
        """Set while a turn is worked on."""

    @property
    def parent(self) -> str | None:
        """The id of the call that this agent works for; None when it works for a person."""
        return None

    @property
    def conversation(self) -> Conversation:
        return self._conversation

    @conversation.setter
    def conversation(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._changed()

    def _changed(self) -> None:
        """There is a new conversation."""

    @property
    def shown_window(self) -> int | None:
        """How many tokens a request to the model can have at most, as far as a refusal has shown that."""
        shown = self.conversation.window
        return shown[1] if shown is not None and shown[0] == self.model.name else None

    def note_window(self, tokens: int) -> None:
        """A request of so many tokens was refused for its length."""
        shown = self.shown_window
        least = tokens if shown is None else min(shown, tokens)
        self.conversation = replace(self.conversation, window=(self.model.name, least))

    async def takes_images(self) -> bool:
        """Whether the model can be shown the images of tool results."""
        return self.model.name not in self.without_images and await self.model.takes_images()

    @property
    def usage(self) -> Usage:
        """What the session has used so far."""
        return self.conversation.usage

    def count(self, used: Usage) -> None:
        """Add to what the session has used."""
        self.conversation = replace(self.conversation, usage=self.conversation.usage + used)

    async def emit(self, event: EventType, **data: object) -> None:
        await self._emit(Event(event, data))

    async def interruptible(self, work: Coroutine[Any, Any, T], over: asyncio.Future[None] | None = None) -> T:
        """The result of `work`, or Interrupted; TimeoutError once `over` is set.

        Everything that may take long goes through here, except for events.
        """
        assert self.signal is not None  # noqa: S101 - only used inside a turn
        return await self.signal.guard(work, over)


class SubContext(RunContext):
    """A sub-agent's, for one turn of its parent: its conversation is a part of the parent's, and so is what it uses."""

    def __init__(self, outer: RunContext, call_id: str) -> None:
        super().__init__(outer.conversation.subagents[call_id], outer._emit, outer.redactor, outer.model, outer.questions)
        self.own_arguments = outer.own_arguments
        self.unpriced = outer.unpriced
        self.without_images = outer.without_images
        self.signal = outer.signal
        self._outer = outer
        self._call_id = call_id

    @property
    def parent(self) -> str:
        return self._call_id

    def _changed(self) -> None:
        # Work that was left behind by an interrupt may end when the parent's turn is over: then there is nothing to keep.
        if self._call_id in self._outer.conversation.subagents:
            self._outer.conversation = self._outer.conversation.with_subagent(self._call_id, self.conversation)

    @property
    def shown_window(self) -> int | None:
        return self._outer.shown_window

    def note_window(self, tokens: int) -> None:
        self._outer.note_window(tokens)

    @property
    def usage(self) -> Usage:
        return self._outer.usage

    def count(self, used: Usage) -> None:
        self._outer.count(used)

    async def emit(self, event: EventType, **data: object) -> None:
        if event not in WORDS:
            await self._outer.emit(event, **data, parent=self._call_id)
