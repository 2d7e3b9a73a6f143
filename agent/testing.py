"""A model that follows a script, for tests of the loop and of what is built on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from agent.messages import Message, Usage
from agent.model.answer import ModelChunk, ToolCallDelta
from agent.model.failure import ModelError


@dataclass(frozen=True)
class Reply:
    """One answer of a scripted model; its pieces come one by one, and then it ends, fails, or hangs."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    """Pairs of a tool's name and the JSON text of its arguments."""
    error: ModelError | None = None
    """Raised after the pieces: the stream breaks there."""
    hangs: bool = False
    """After the pieces nothing comes any more, not even an end."""
    delay: float = 0.0
    """Seconds before each piece."""
    piece: int = 8
    """Characters in each piece of text and of arguments."""
    usage: Usage = field(default_factory=lambda: Usage(input_tokens=10, output_tokens=5, cost_usd=0.001))
    finish_reason: str | None = None
    """None is what fits the calls, or `stop`."""
    ids: tuple[str, ...] = ()
    """Ids for the calls; made up where they are missing."""

    def chunks(self, number: int) -> Iterable[ModelChunk]:
        """The pieces; `number` is the answer's place in the script and makes its call ids unique."""
        for start in range(0, len(self.text), self.piece):
            yield ModelChunk(text=self.text[start : start + self.piece])
        for index, (name, arguments) in enumerate(self.calls):
            call_id = self.ids[index] if index < len(self.ids) else f"call_{number}_{index}"
            yield ModelChunk(tool_calls=(ToolCallDelta(index, call_id, name),))
            for start in range(0, len(arguments), self.piece):
                piece = arguments[start : start + self.piece]
                yield ModelChunk(tool_calls=(ToolCallDelta(index, arguments=piece),))
        if self.error is None and not self.hangs:
            reason = self.finish_reason or ("tool_calls" if self.calls else "stop")
            yield ModelChunk(usage=self.usage, finish_reason=reason)

    async def play(self, number: int) -> AsyncGenerator[ModelChunk, None]:
        """The pieces as they come, and then the end, the failure, or nothing any more."""
        for chunk in self.chunks(number):
            await asyncio.sleep(self.delay)
            yield chunk
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.error is not None:
            raise self.error


def says(text: str, **options: Any) -> Reply:
    """An answer in words, which ends the turn."""
    return Reply(text, **options)


def calls(*wanted: tuple[str, Mapping[str, Any] | str], text: str = "", **options: Any) -> Reply:
    """An answer with tool calls: pairs of a name and its arguments, as a mapping or as (perhaps malformed) text."""
    pairs = ((name, given if isinstance(given, str) else json.dumps(given)) for name, given in wanted)
    return Reply(text, tuple(pairs), **options)


def fails(error: ModelError, text: str = "") -> Reply:
    """A call that fails, after `text` was streamed."""
    return Reply(text, error=error)


class ScriptedModel:
    """Answers with the replies of a script in order, and keeps what it was asked in `requests`.

    `streaming` counts the answers that are neither at their end nor closed.
    """

    def __init__(
        self, *replies: Reply, name: str = "scripted", context_window: int | None = None, images: bool = False
    ) -> None:
        self.name = name
        self._context_window = context_window
        self._images = images
        self.requests: list[tuple[Message, ...]] = []
        self.tools: list[list[str]] = []
        self.streaming = 0
        self.price = 0.0
        """US dollars for each token that the script does not count."""
        self._replies = list(replies)

    async def context_window(self) -> int | None:
        return self._context_window

    async def takes_images(self) -> bool:
        return self._images

    def cost_usd(self, used: Usage) -> float:
        return self.price * (used.input_tokens + used.output_tokens)

    async def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
        self.requests.append(tuple(messages))
        self.tools.append([tool["function"]["name"] for tool in tools])
        number = len(self.requests)
        if number > len(self._replies):
            raise ModelError("the script has no more replies")
        reply = self._replies[number - 1]
        self.streaming += 1
        try:
            async with aclosing(reply.play(number)) as pieces:
                async for chunk in pieces:
                    yield chunk
        finally:
            self.streaming -= 1
