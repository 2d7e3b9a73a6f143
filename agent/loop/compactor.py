"""Makes room in the model's context window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.loop.compaction import (
    MAX_PIECES,
    SHORT_RESULTS,
    SUMMARY_REQUEST,
    TAIL,
    TRANSCRIPT,
    TRIGGER,
    WORTHWHILE,
    choose_cut,
    context_tokens,
    first_piece,
    summary_of,
    too_long_message,
    total_tokens,
    transcript,
    with_short_results,
)
from agent.loop.model_step import ModelStep
from agent.loop.run_context import RunContext, TurnFailed
from agent.messages import Message, text_tokens
from agent.model.failure import ContextOverflowError, ModelError, NoAnswerError, RequestRefusedError

LONG = 2_000
"""Tokens from which on the length of a request may be why it was refused."""

GROWTH = 1.1
"""How much a conversation has to grow after a compaction before another one is worth its price."""


class Compactor:
    """Shortens the conversation, or says that it cannot be done."""

    def __init__(self, run: RunContext, model_step: ModelStep) -> None:
        self._run = run
        self._model_step = model_step
        self._futile: tuple[int, int, int] | None = None
        """The window for which the last compaction left too much, the messages of a person by then, and the tokens left."""

    async def make_room(self) -> None:
        """Compact when the next request would fill more than 90 % of the window, as far as that is possible.

        Counts are estimates and tables have mistakes, so a request that cannot be made any shorter is sent all the same.
        """
        window = await self._model_step.context_window()
        if window is None or self._needed() < TRIGGER * window:
            return
        if self._may_help(window):
            await self._try_to_compact(window)
            futile = self._needed() >= TRIGGER * window
            self._futile = (window, self._turns(), total_tokens(self._run.conversation.messages)) if futile else None

    async def compact(self) -> None:
        """Shorten the conversation. Raises TurnFailed when it gets no shorter."""
        window = await self._model_step.context_window()
        problem = await self._try_to_compact(window)
        if problem is not None:
            raise TurnFailed("compaction", f"The conversation cannot be made any shorter.{problem}")

    async def shorten_refused(self, error: ContextOverflowError) -> None:
        """Shorten the conversation after the model refused it for its length. Raises TurnFailed when that cannot be done."""
        self._note_window(self._needed(), error)
        if await self._try_to_compact(await self._model_step.context_window()) is not None:
            raise TurnFailed("context_overflow", self._hopeless(error))

    async def may_be_the_length(self, error: RequestRefusedError) -> bool:
        """Whether the conversation has been shortened, because its length may be why the model refused it."""
        if error.parameter not in (None, "messages") or self._needed() < LONG:
            return False
        return await self._try_to_compact(self._needed()) is None

    async def _try_to_compact(self, window: int | None) -> str | None:
        """Shorten the conversation. If it gets no shorter, nothing changes, and the problem is returned (perhaps empty)."""
        before = self._run.conversation
        size = total_tokens(before.messages)
        at_once = int(TRANSCRIPT * (window or size / TRANSCRIPT))
        window = min(window or size, size)
        messages, problem = before.messages, ""
        try:
            messages = await self._summarised(before.messages, int(TAIL * window), at_once)
        except (
            NoAnswerError,
            ContextOverflowError,
            RequestRefusedError,
        ) as error:  # what the agent knows is kept, rather than replaced by nothing
            problem = f" {error}"
        for length in SHORT_RESULTS:
            if total_tokens(messages) < size and self._model_step.overhead() + total_tokens(messages) < TRIGGER * window:
                break
            messages = with_short_results(messages, length)
        if total_tokens(messages) >= size:
            return problem
        # The usage has moved on meanwhile: the summaries cost something.
        self._run.conversation = replace(self._run.conversation, messages=messages, measured=None)
        await self._run.emit(
            "compacted",
            tokens_before=size,
            tokens_after=total_tokens(messages),
            messages_before=len(before.messages),
            messages_after=len(messages),
        )
        return None

    def _may_help(self, window: int) -> bool:
        """Whether there is something new since a compaction left too much: each one is paid for."""
        if self._futile is None:
            return True
        same_window, turns, left = self._futile
        grown = total_tokens(self._run.conversation.messages) > GROWTH * left
        return grown or window < same_window or turns != self._turns()

    def _turns(self) -> int:
        return sum(message.from_person for message in self._run.conversation.messages)

    def _note_window(self, needed: int, error: ContextOverflowError) -> None:
        """Keep what an overflow shows. A limit that is much smaller than the request is more likely another number."""
        limit = error.limit
        self._run.note_window(needed if limit is None or limit < needed // 32 else min(needed, limit))

    def _needed(self) -> int:
        return context_tokens(self._run.conversation, self._model_step.overhead())

    def _hopeless(self, error: ModelError) -> str:
        longest = too_long_message(self._run.conversation.messages)
        if longest is None:
            return f"The conversation is too long for the model, and cannot be made any shorter. {error}"
        return (
            f"Your message of about {longest} tokens is too long for the model. Undo it, then send less at once, or put the "
            f"text into a file of the workspace and name the file. {error}"
        )

    async def _summarised(self, messages: tuple[Message, ...], tail: int, at_once: int) -> tuple[Message, ...]:
        """With summaries of all but `tail` tokens, each of `at_once` tokens at most."""
        cut = choose_cut(messages, tail)
        early = await self._summary(cut.early, at_once)
        late = await self._summary(cut.late, at_once)
        return (*cut.first, *early, *cut.said, *late, *cut.tail)

    async def _summary(self, part: Sequence[Message], size: int) -> Sequence[Message]:
        if total_tokens(part) < WORTHWHILE:
            return part
        rest = transcript(part)
        summaries: list[str] = []
        while rest:
            text, rest = first_piece(rest, size, MAX_PIECES - len(summaries))
            try:
                summaries.append(await self._model_step.complete((Message("system", SUMMARY_REQUEST), Message("user", text))))
            except (ContextOverflowError, RequestRefusedError) as error:
                if size < WORTHWHILE:
                    raise
                if isinstance(error, ContextOverflowError):
                    self._note_window(text_tokens(SUMMARY_REQUEST + text), error)
                size = min(size, text_tokens(text)) // 2
                rest = text + rest
        return (summary_of(part, "\n".join(summaries)),)
