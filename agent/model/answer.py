"""What a model says in one answer: the pieces as they arrive, and the answer that they make."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.messages import MAX_COUNT, Thought, ToolCall, Usage
from agent.model.failure import ContextOverflowError, ModelUnavailableError, NoAnswerError, WithheldError

_SURROGATE = re.compile("[\ud800-\udfff]")

FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",  # Mistral
    "MAX_TOKENS": "length",
    "model_context_window_exceeded": "window_full",  # Anthropic
    "refusal": "content_filter",
    "content_filtered": "content_filter",
    "sensitive": "content_filter",  # Zhipu
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "BLOCKLIST": "content_filter",
    "SPII": "content_filter",
    "guardrail_intervened": "content_filter",  # Bedrock
    "network_error": "error",  # Zhipu
    "abort": "error",  # vLLM, SGLang
    "engine_overloaded": "error",
}
"""What servers say in place of OpenAI's reasons for the end of an answer."""


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a tool call. Pieces with the same `index` belong together; `arguments` are to be joined.

    Not all servers count: one with the index of an earlier call may begin another call.
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
    reasoning: str = ""
    """What the model thinks and nobody signed. It is not kept; it shows that the model is at work, and is paid for."""
    finish_reason: str | None = None
    """One of OpenAI's (`stop`, `length`, `tool_calls`, `content_filter`), `pause_turn`, `error`, `window_full`, or unknown."""

    @property
    def has_content(self) -> bool:
        """Whether the model has come further with this piece."""
        return bool(self.text or self.tool_calls or self.thoughts or self.reasoning or self.finish_reason)


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
    _reasoning: str = ""
    _thinking: str = ""
    _calls: dict[int, list[ToolCallDelta]] = field(default_factory=dict)

    def add(self, chunk: ModelChunk) -> None:
        self.begun = True
        self.text += chunk.text
        self._reasoning += chunk.reasoning
        self.usage = chunk.usage or self.usage
        self.finish_reason = chunk.finish_reason or self.finish_reason
        for thought in chunk.thoughts:
            self._thinking += thought.text
            if thought.signature or thought.redacted:
                self.thoughts = (*self.thoughts, replace(thought, text=self._thinking))
                self._thinking = ""
        for piece in chunk.tool_calls:
            begun = self._calls.setdefault(piece.index, [])
            if not begun or _begins_another(begun[-1], piece):
                begun.append(ToolCallDelta(piece.index))
            known = begun[-1]
            begun[-1] = ToolCallDelta(
                piece.index, known.id or piece.id, known.name or piece.name, known.arguments + piece.arguments
            )

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in the model's order. Ids and names are as the model gave them, perhaps empty."""
        return tuple(
            ToolCall(call.id or "", call.name or "", paired(call.arguments))
            for at in sorted(self._calls)
            for call in self._calls[at]
        )

    def continued_by(self, part: Answer) -> Answer:
        """This answer and its next part as one. The provider's count is the last one, whose request has this answer in it."""
        return replace(part, text=self.text + part.text)

    def check(self) -> None:
        """Raise ModelError for what ended without an error and is no answer all the same."""
        match self.finish_reason:
            case "content_filter":
                raise WithheldError(
                    "The provider's content filter withheld the answer. Rephrase the request, or undo it and try another way."
                )
            case "error":
                raise ModelUnavailableError("The model's server ended the answer with an error of its own.")
            case "window_full":
                raise ContextOverflowError("The answer does not fit into the model's context window beside the conversation.")
        if self.text.strip() or self.tool_calls:
            return
        if self.finish_reason == "length":
            what = "reached the limit for one answer before it said anything. Lower the reasoning effort, or raise the limit"
        elif self._reasoning or self._thinking or self.thoughts:
            what = "sent its reasoning, but no answer. Check the reasoning parser of the model's server"
        else:
            what = "sent an empty answer. Check that its server supports the chat format and, if it has tools, tool calls"
        raise NoAnswerError(f"The model {what}.")

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
        return "".join((self.text, *calls, *thoughts, self._thinking, self._reasoning))


class SurrogatePairs:
    """Joins the halves of characters that a server has split over two pieces of text.

    Some servers cut text between the two UTF-16 code units of a character, as in `"\\ud83d"` and then `"\\ude00"`.
    """

    def __init__(self) -> None:
        self._held = ""

    def join(self, chunk: ModelChunk) -> ModelChunk:
        """The piece with what was held back of the last one, and without a first half at its end."""
        text = self._held + chunk.text
        self._held = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" and chunk.finish_reason is None else ""
        text = paired(text[: len(text) - len(self._held)])
        return chunk if text == chunk.text else replace(chunk, text=text)


def paired(text: str) -> str:
    """The text with surrogate pairs as the characters that they stand for. Single halves stay."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _begins_another(known: ToolCallDelta, piece: ToolCallDelta) -> bool:
    """Whether a piece with the index of a call belongs to the next one: not all servers count, and not all have ids.

    What has an id is told by it. Without ids, a name begins a call, unless it is the call's own in each of its pieces.
    """
    if not piece.name or not known.name:
        return False
    if piece.id and known.id:
        return piece.id != known.id
    return piece.name != known.name or _complete(known.arguments)


def _complete(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False


def read_chunk(data: Mapping[str, Any], model: str) -> ModelChunk:
    """A piece of an answer as OpenAI's chat API has it: of a stream (`delta`), or the whole at once (`message`).

    Read with the liberties that servers take: content as a list of parts, a refusal in a field of its own, arguments that are
    no text yet, reasoning under several names. `model` is the name to be noted with signed thoughts.
    """
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    said = choice.get("delta") or choice.get("message")
    said = said if isinstance(said, Mapping) else {"content": choice.get("text")}
    text, reasoning = _content(said.get("content"))
    refusal = said.get("refusal")
    extra = next((value for name in ("reasoning_content", "reasoning") if isinstance(value := said.get(name), str)), "")
    reason = choice.get("finish_reason")
    return ModelChunk(
        text=text + (refusal if isinstance(refusal, str) else ""),
        tool_calls=tuple(_calls(said)),
        thoughts=tuple(_thought(block, model) for block in said.get("thinking_blocks") or () if isinstance(block, Mapping)),
        reasoning=reasoning + extra,
        usage=read_usage(data.get("usage")),
        finish_reason=FINISHES.get(reason, reason) if isinstance(reason, str) and reason else None,
    )


def _content(content: object) -> tuple[str, str]:
    """The words and the reasoning in a message's content."""
    if isinstance(content, str):
        return content, ""
    text = reasoning = ""
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            text += part
        elif isinstance(part, Mapping):
            if part.get("type") == "thinking":
                reasoning += "".join(_content(part.get("thinking")))
                continue
            text += "".join(value for name in ("text", "refusal") if isinstance(value := part.get(name), str))
    return text, reasoning


def _calls(said: Mapping[str, Any]) -> Iterator[ToolCallDelta]:
    calls = said.get("tool_calls")
    old = said.get("function_call")  # as the API had it before there were several calls in one answer
    for place, call in enumerate(calls if isinstance(calls, list) else [{"function": old}] if old else []):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            continue
        index, call_id, name, arguments = call.get("index"), call.get("id"), function.get("name"), function.get("arguments")
        yield ToolCallDelta(
            index if isinstance(index, int) else place,
            call_id if isinstance(call_id, str) else None,
            name if isinstance(name, str) else None,
            arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments),
        )


def _thought(block: Mapping[str, Any], model: str) -> Thought:
    return Thought(model, *(str(block.get(name) or "") for name in ("thinking", "signature", "data")))


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
