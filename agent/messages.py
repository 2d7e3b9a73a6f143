"""The messages of a conversation, and what a model says in one, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """One call that the model asked for. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Thought:
    """A piece of a model's reasoning that its provider wants to see again beside the calls that came of it.

    It is signed, so that it can be sent back as it was or not at all, and means nothing to another model.
    """

    model: str
    text: str = ""
    signature: str = ""
    redacted: str = ""
    """In place of the text and the signature, where the provider shows neither."""

    def to_wire(self) -> dict[str, str]:
        """As litellm has it (and Anthropic's API)."""
        if self.redacted:
            return {"type": "redacted_thinking", "data": self.redacted}
        return {"type": "thinking", "thinking": self.text, "signature": self.signature}


@dataclass(frozen=True)
class Message:
    """One message. A tool's result carries the id of the call that it answers."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    origin: Literal["said", "note", "summary"] = "said"
    """`note` and `summary` are written by the loop; a summary stands for things that a person said, too."""
    thoughts: tuple[Thought, ...] = ()
    """Only beside tool calls."""

    @property
    def from_person(self) -> bool:
        return self.role == "user" and self.origin == "said"

    def to_wire(self, model: str | None = None) -> dict[str, Any]:
        """As the OpenAI chat API has it; litellm translates that for the other providers. With `model`'s own thoughts."""
        wire: dict[str, Any] = {"role": self.role, "content": self.content}
        thoughts = [thought.to_wire() for thought in self.thoughts if thought.model == model]
        if thoughts:
            wire["thinking_blocks"] = thoughts
        if self.tool_calls:
            wire["content"] = self.content or None  # Anthropic refuses empty text beside tool calls
            wire["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            wire["tool_call_id"] = self.tool_call_id
        return wire

    def to_dict(self) -> dict[str, Any]:
        """For storing; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Message:
        calls = tuple(ToolCall(**call) for call in data["tool_calls"])
        thoughts = tuple(Thought(**thought) for thought in data.get("thoughts", ()))
        return cls(**{**data, "tool_calls": calls, "thoughts": thoughts})


@dataclass(frozen=True)
class Usage:
    """What model calls and tool calls have used. Values add up."""

    input_tokens: int = 0
    """All tokens of the requests, those read from the provider's cache included."""
    output_tokens: int = 0
    cached_tokens: int = 0
    """Those of `input_tokens` that came from the provider's cache."""
    cost_usd: float = 0.0
    """From the price table; 0 for a model without a price."""
    tool_cost_usd: float = 0.0
    """The prices of the priced tool calls that have begun, as their tools estimate them (`Tool.price`)."""
    llm_calls: int = 0
    tool_calls: int = 0

    @property
    def spent_usd(self) -> float:
        """For models and for tools."""
        return self.cost_usd + self.tool_cost_usd

    def __add__(self, other: Usage) -> Usage:
        mine, theirs = asdict(self), asdict(other)
        return Usage(**{name: mine[name] + theirs[name] for name in mine})


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
    finish_reason: str | None = None


@dataclass
class Answer:
    """Collects the pieces of one streamed answer."""

    text: str = ""
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    thoughts: tuple[Thought, ...] = ()
    """Those that are whole."""
    _thinking: str = ""
    _calls: dict[int, list[ToolCallDelta]] = field(default_factory=dict)

    def add(self, chunk: ModelChunk) -> None:
        self.text += chunk.text
        if chunk.usage is not None:
            self.usage += chunk.usage
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
