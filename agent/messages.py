"""The messages of a conversation, and what they used, as values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from agent.images import Image

Role = Literal["system", "user", "assistant", "tool"]

MAX_COUNT = 2**53
"""What fits into a JSON number everywhere."""


BYTES_PER_TOKEN = 3.5
"""A rule of thumb, on the safe side for English and code; the provider's own count is used where there is one."""


def text_tokens(text: str) -> int:
    """An estimate."""
    return int(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN) + 1


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
    images: tuple[Image, ...] = ()
    """Only in tool results. `content` describes them; `agent.model.image_parts` shows them to the model."""

    @property
    def from_person(self) -> bool:
        return self.role == "user" and self.origin == "said"

    def to_wire(self, model: str | None = None) -> dict[str, Any]:
        """As the OpenAI chat API has it, but for images; litellm translates that for the other providers. With `model`'s own
        thoughts."""
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

    @cached_property
    def wire_json(self) -> str:
        """`to_wire` without thoughts, as JSON. Kept, because every step of a turn sends all messages again."""
        return json.dumps(self.to_wire(), ensure_ascii=False, separators=(",", ":"))

    @cached_property
    def tokens(self) -> int:
        """An estimate, with the few tokens that hold a message together. Kept, as it is asked for with every step."""
        calls = sum(text_tokens(call.name + call.arguments) + 8 for call in self.tool_calls)
        thoughts = sum(text_tokens(thought.text + thought.redacted) for thought in self.thoughts)
        return text_tokens(self.content) + calls + thoughts + sum(image.tokens for image in self.images) + 4

    def without_images(self, note: str) -> Message:
        """The message with a note in place of its images."""
        return replace(self, content=f"{self.content}\n{note}", images=()) if self.images else self

    def to_dict(self) -> dict[str, Any]:
        """For storing; `from_dict` reads it back."""
        return asdict(self)

    def outline(self) -> dict[str, Any]:
        """As `to_dict`, with facts about the images in place of their data."""
        return {**asdict(replace(self, images=())), "images": [image.facts() for image in self.images]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Message:
        calls = tuple(ToolCall(**call) for call in data["tool_calls"])
        thoughts = tuple(Thought(**thought) for thought in data.get("thoughts", ()))
        images = tuple(Image(**image) for image in data.get("images", ()))
        return cls(**{**data, "tool_calls": calls, "thoughts": thoughts, "images": images})


@dataclass(frozen=True)
class Usage:
    """What model calls and tool calls have used. Values add up.

    The numbers come from providers and from stored states, so they are checked here: a count is a whole number from 0 to
    `MAX_COUNT`, an amount is finite and not negative. What is less becomes 0, what is more becomes the maximum.
    """

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

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            object.__setattr__(self, name, _amount(value) if name.endswith("_usd") else _count(value))

    @property
    def spent_usd(self) -> float:
        """For models and for tools."""
        return self.cost_usd + self.tool_cost_usd

    def __add__(self, other: Usage) -> Usage:
        mine, theirs = asdict(self), asdict(other)
        return Usage(**{name: mine[name] + theirs[name] for name in mine})


def _count(value: float) -> int:
    return 0 if value != value else int(min(max(value, 0), MAX_COUNT))  # NaN differs from itself


def _amount(value: float) -> float:
    return 0.0 if value != value else float(min(max(value, 0.0), MAX_COUNT))
