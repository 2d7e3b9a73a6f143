"""A tool: something that the model may call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from agent.images import Image
from agent.question import DECLINED, Question, QuestionAnswer

DEFAULT_TIMEOUT = 300.0
"""Seconds that a tool call may take, unless the tool says otherwise."""

OUTPUT_LIMIT = 25_000
"""Characters of a tool's output that the model gets to see."""


Ask = Callable[[Question], Awaitable[QuestionAnswer]]
"""Puts a question to the person and waits for the answer, for as long as the call lasts."""


async def nobody(question: Question) -> QuestionAnswer:
    """Answers where no person is asked."""
    return DECLINED


asking: ContextVar[Ask] = ContextVar("asking", default=nobody)
"""What the call that this code works for asks a person through. A context variable, because MCP's official client runs what a
server asks in the context of the request that it came with."""


class ToolError(Exception):
    """A tool call that failed; the message is its result, written for the model."""


@dataclass(frozen=True)
class ToolResult:
    """What the model gets back for a call."""

    output: str
    """Describes the images, too, for a model that takes none."""
    success: bool = True
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Tool:
    """A tool's face for the model and the function behind it.

    `call` takes arguments that fit `parameters` (JSON Schema) and returns the output, or a result with images. It may raise
    anything: an exception becomes the call's error result. It is cancelled when its `timeout` (seconds) is up or the turn is
    interrupted; it may then raise a ToolError with what it has so far instead of the cancellation.
    `needs_consent` and `price` are only asked about arguments that fit.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Callable[[dict[str, Any]], Awaitable[str | ToolResult]]
    timeout: float = DEFAULT_TIMEOUT
    read_only: bool = False
    """It changes nothing, so that several of its calls may run at the same time."""
    needs_consent: Callable[[Mapping[str, Any]], str | None] = lambda arguments: None
    """Why a person should be asked before a call with these arguments, where no rule says otherwise; None: need not."""
    price: Callable[[Mapping[str, Any]], float | None] = lambda arguments: None
    """An estimate, in US dollars, of what a call with these arguments costs, at most; None: it costs nothing, or nobody
    knows. A call with a price can run without a question (`AgentConfig.auto_approve_usd`), so give none to a call that
    destroys something."""

    def definition(self) -> dict[str, Any]:
        """As the OpenAI chat API has it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


def cut_output(text: str, limit: int = OUTPUT_LIMIT) -> str:
    """At most `limit` characters of `text`: a quarter from its head, the rest from its tail, where errors usually
    are, and a note of what is missing between them. Mask secrets before: the cut may go through one.
    """
    if len(text) <= limit:
        return text
    head = limit // 4
    tail = limit - head
    return f"{text[:head]}\n[... {len(text) - limit} of {len(text)} characters cut ...]\n{text[-tail:]}"


def parameters(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
