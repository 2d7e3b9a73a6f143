"""What a model says in one answer: the pieces as they arrive, and the answer that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.messages import MAX_COUNT, Thought, ToolCall, Usage


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a tool call. Pieces with the same `index` belong together; `arguments` are to be joined.

    Not all servers count: one with the index of an earlier call, but with a name and another id, begins another call.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class ModelChunk:
    """One piece of a streamed answer; any of its parts may be missing."""

    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    """Pieces: the text of one thought is to be joined up to its signature."""
    usage: Usage | None = None
    """The provider's count for the whole answer so far. A later one replaces it."""
    finish_reason: str | None = None


@dataclass
class Answer:
    """Collects the pieces of one streamed answer."""

    text: str = ""
    usage: Usage = field(default_factory=Usage)
    """The provider's count; zeros where it gave none."""
    finish_reason: str | None = None
    thoughts: tuple[Thought, ...] = ()
    """Those that are whole."""
    begun: bool = False
    """Something has arrived, so the provider has counted the request."""
    _thinking: str = ""
    _calls: dict[int, list[ToolCallDelta]] = field(default_factory=dict)

    def add(self, chunk: ModelChunk) -> None:
        self.begun = True
        self.text += chunk.text
        self.usage = chunk.usage or self.usage
        self.finish_reason = chunk.finish_reason or self.finish_reason
        for thought in chunk.thoughts:
            self._thinking += thought.text
            if thought.signature or thought.redacted:
                self.thoughts = (*self.thoughts, replace(thought, text=self._thinking))
                self._thinking = ""
        for piece in chunk.tool_calls:
            begun = self._calls.setdefault(piece.index, [])
            if not begun or (piece.name and piece.id and begun[-1].id not in (None, "", piece.id)):
                begun.append(ToolCallDelta(piece.index))
            known = begun[-1]
            begun[-1] = ToolCallDelta(
                piece.index, known.id or piece.id, known.name or piece.name, known.arguments + piece.arguments
            )

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in the model's order. Ids and names are as the model gave them, perhaps empty."""
        return tuple(
            ToolCall(call.id or "", call.name or "", call.arguments) for at in sorted(self._calls) for call in self._calls[at]
        )

    def unusable_as_text(self) -> str | None:
        """Why this is no answer in words that is complete; None if it is one."""
        if self.finish_reason == "content_filter":
            return "the provider's content filter withheld it"
        if self.tool_calls:
            return "it calls a tool instead"
        if not self.text.strip():
            return "it is empty"
        return "it was cut off at the limit for one answer" if self.finish_reason == "length" else None

    @property
    def written(self) -> str:
        """Everything that the model wrote, for an estimate of its tokens."""
        calls = (call.name + call.arguments for call in self.tool_calls)
        thoughts = (thought.text for thought in self.thoughts)
        return "".join((self.text, *calls, *thoughts, self._thinking))


def read_usage(reported: Any) -> Usage | None:
    """The provider's count (`usage` of OpenAI's chat API) with every number checked. None if it counts nothing.

    A number is a count if it is whole and from 0 to 2^53; everything else counts as missing, and so does what is reported as
    negative: servers that subtract cached tokens twice do that.
    """
    if not isinstance(reported, Mapping):
        return None
    details = reported.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
    used = Usage(
        input_tokens=(given := _count(reported.get("prompt_tokens"))),
        output_tokens=_count(reported.get("completion_tokens")),
        cached_tokens=min(cached, given),
    )
    return used if used.input_tokens or used.output_tokens else None


def _count(value: object) -> int:
    """A number of tokens as reported, 0 for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    if not 0 <= value <= MAX_COUNT:  # also false for NaN
        return 0
    return int(value)
