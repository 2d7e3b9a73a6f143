"""Makes room in the model's context window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.loop.compaction import (
    BYTES_PER_TOKEN,
    SUMMARY_REQUEST,
    TAIL,
    TRANSCRIPT,
    TRIGGER,
    WORTHWHILE,
    choose_cut,
    context_tokens,
    summary_of,
    total_tokens,
    transcript,
    with_short_results,
)
from agent.loop.model_step import ModelStep
from agent.loop.run_context import RunContext, TurnFailed
from agent.messages import Message
from agent.model.failure import NoAnswerError
from agent.tools.tool import cut_output


class Compactor:
    """Shortens the conversation, or says that it cannot be done."""

    def __init__(self, run: RunContext, model_step: ModelStep) -> None:
        self._run = run
        self._model_step = model_step

    async def make_room(self) -> None:
        """Compact when the next request would fill more than 90 % of the window.

        Raises TurnFailed when it would do so still: trying again and again would only cost money.
        """
        window = await self._model_step.context_window()
        if window is None or self._needed() < TRIGGER * window:
            return
        await self.compact()
        if self._needed() >= TRIGGER * window:
            raise TurnFailed("context_overflow", "the conversation is too long for the model, even after compaction")

    async def compact(self) -> None:
        """Shorten the conversation. Raises TurnFailed when it gets no shorter."""
        before = self._run.conversation
        size = total_tokens(before.messages)
        window = await self._model_step.context_window() or size
        try:
            messages, problem = await self._summarised(before.messages, min(window, size)), ""
        except NoAnswerError as error:  # what the agent knows is kept, rather than replaced by nothing
            messages, problem = before.messages, f". {error}"
        if total_tokens(messages) >= size or self._model_step.overhead() + total_tokens(messages) >= TRIGGER * window:
            messages = with_short_results(messages)
        if total_tokens(messages) >= size:
            raise TurnFailed("compaction", f"the conversation cannot be made any shorter{problem}")
        # The usage has moved on meanwhile: the summaries cost something.
        self._run.conversation = replace(self._run.conversation, messages=messages, measured=None)
        await self._run.emit(
            "compacted",
            tokens_before=size,
            tokens_after=total_tokens(messages),
            messages_before=len(before.messages),
            messages_after=len(messages),
        )

    def _needed(self) -> int:
        return context_tokens(self._run.conversation, self._model_step.overhead())

    async def _summarised(self, messages: tuple[Message, ...], window: int) -> tuple[Message, ...]:
        cut = choose_cut(messages, int(TAIL * window))
        early = await self._summary(cut.early, window)
        late = await self._summary(cut.late, window)
        return (*cut.first, *early, *cut.said, *late, *cut.tail)

    async def _summary(self, part: Sequence[Message], window: int) -> Sequence[Message]:
        if total_tokens(part) < WORTHWHILE:
            return part
        text = cut_output(transcript(part), int(TRANSCRIPT * window * BYTES_PER_TOKEN))
        summary = await self._model_step.complete((Message("system", SUMMARY_REQUEST), Message("user", text)))
        return (summary_of(part, summary),)
