"""The model behind the loop: what the loop needs of one, and the one that speaks to every provider through litellm."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any, Protocol

from agent.messages import Message, Thought, Usage
from agent.model.answer import ModelChunk, ToolCallDelta, read_usage
from agent.model.retry import (
    ContextOverflowError,
    ModelError,
    ModelUnavailableError,
    RateLimitedError,
    RequestRefusedError,
    retry_after,
)
from agent.reasoning import ReasoningEffort, lowered, supported

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT = 600.0
"""Seconds without a byte from the provider. Reasoning models can be silent for minutes."""

OVERFLOW_CODES = {"context_length_exceeded", "exceed_context_size_error"}
"""Codes of OpenAI and of llama.cpp for too long a conversation, for messages that litellm does not recognise."""


class Model(Protocol):
    """Something that answers a conversation."""

    @property
    def name(self) -> str: ...

    async def context_window(self) -> int | None:
        """Tokens that a request can have, None when nobody knows."""
        ...

    def cost_usd(self, used: Usage) -> float:
        """The price of these tokens; 0 for a model without a price. Only of an answer whose `stream` has begun."""
        ...

    def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
        """The answer in pieces. `tools` are OpenAI function definitions. Raises `ModelError`, also half way."""
        ...


class LiteLLMModel:
    """A model of any provider that litellm knows, or any model of an OpenAI-compatible server (`base_url`).

    litellm is imported with the first call, in a thread: it takes seconds and 160 MB, which a session that waits for
    its first prompt need not spend, nor the event loop stand still for.

    Where the provider refuses a request, it is sent again with less reasoning effort, level by level, down to none said.
    The level that was taken is kept for later requests; a request that is refused without one, too, had something else
    wrong with it, and changes nothing.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        reasoning_effort: ReasoningEffort | None = None,
    ) -> None:
        self._name = name
        self._base_url = base_url
        self._api_key = api_key
        self._effort = reasoning_effort

    @property
    def name(self) -> str:
        return self._name

    async def context_window(self) -> int | None:
        await loaded_litellm()
        window = self._info["max_input_tokens"] if self._info is not None else None
        return int(window) if window else None

    def cost_usd(self, used: Usage) -> float:
        with contextlib.suppress(Exception):  # litellm raises for a model that its price table does not have
            prices = load_litellm().cost_per_token(
                model=self._routed_name,
                prompt_tokens=used.input_tokens,
                completion_tokens=used.output_tokens,
                cache_read_input_tokens=used.cached_tokens,
            )
            return float(sum(prices))
        return 0.0

    async def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
        litellm = await loaded_litellm()
        effort = self._supported_effort()
        while True:
            answering = False
            try:
                response = await litellm.acompletion(**self._request(messages, tools, effort))
                async for chunk in response:
                    answering = True
                    self._effort = effort
                    yield self._read(litellm, chunk)
                return
            except Exception as error:
                failure = classify(litellm, error, datetime.now(UTC))
                if answering or effort is None or not _may_be_the_effort(failure):
                    raise failure from error
                logger.warning("%s may not take reasoning effort %s; trying with %s", self._name, effort, lowered(effort))
                effort = lowered(effort)

    def _supported_effort(self) -> ReasoningEffort | None:
        """The effort to ask for, where the table knows what the model can do; litellm leaves it out where none can be."""
        return self._effort if self._info is None else supported(self._effort, self._info)

    @cached_property
    def _info(self) -> Mapping[str, Any] | None:
        """What the price table says of the model, None when it does not have it."""
        with contextlib.suppress(Exception):  # litellm has no exception of its own for that
            info: Mapping[str, Any] = load_litellm().get_model_info(self._routed_name)
            return info
        return None

    def _request(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        effort: ReasoningEffort | None,
    ) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._routed_name,
            "messages": [message.to_wire(self._name) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "timeout": REQUEST_TIMEOUT,
            "num_retries": 0,  # the loop retries: it can be interrupted, and it knows what it has already shown
            "max_retries": 0,
            "drop_params": True,  # what litellm knows that the provider does not take is left out
        }
        if effort is not None:
            request["reasoning_effort"] = effort
        if tools:
            request["tools"] = list(tools)
        if self._base_url:
            request["api_base"] = self._base_url
            # The client insists on a key, even where the server does not.
            request["api_key"] = self._api_key or os.environ.get("OPENAI_API_KEY") or "none"
        elif self._api_key:
            request["api_key"] = self._api_key
        return request

    @cached_property
    def _routed_name(self) -> str:
        """At a server of one's own, a name without a provider's prefix means the OpenAI protocol."""
        provider = self._name.partition("/")[0]
        if self._base_url and provider not in {str(getattr(p, "value", p)) for p in load_litellm().provider_list}:
            return f"openai/{self._name}"
        return self._name

    def _read(self, litellm: Any, chunk: Any) -> ModelChunk:
        usage = getattr(chunk, "usage", None)
        choice = chunk.choices[0] if chunk.choices else None
        delta = getattr(choice, "delta", None)
        return ModelChunk(
            text=getattr(delta, "content", None) or "",
            tool_calls=tuple(
                ToolCallDelta(call.index or 0, call.id, call.function.name, call.function.arguments or "")
                for call in getattr(delta, "tool_calls", None) or ()
            ),
            thoughts=tuple(map(self._thought, getattr(delta, "thinking_blocks", None) or ())),
            usage=None if usage is None else self._usage(litellm, usage),
            finish_reason=getattr(choice, "finish_reason", None),
        )

    def _thought(self, block: Mapping[str, Any]) -> Thought:
        text, signature, redacted = (block.get(name) or "" for name in ("thinking", "signature", "data"))
        return Thought(self._name, text, signature, redacted)

    def _usage(self, litellm: Any, reported: Any) -> Usage | None:
        used = read_usage(reported.model_dump())
        if used is None:
            return None
        cost = 0.0
        # litellm raises for a model that its price table does not have.
        with contextlib.suppress(Exception):
            cost = sum(litellm.cost_per_token(model=self._routed_name, usage_object=reported))
        return replace(used, cost_usd=cost)


@cache
def load_litellm() -> Any:
    """litellm, set up to keep to itself: no price table from the network, no `.env` file, no printing, no telemetry.

    Without the garbage collector the import takes a third less time; none of what it makes ever becomes garbage.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    gc.disable()
    try:
        litellm: Any = importlib.import_module("litellm")
        gc.freeze()
    finally:
        gc.enable()
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm


async def loaded_litellm() -> Any:
    """litellm, imported in a thread the first time: that takes seconds."""
    return load_litellm() if load_litellm.cache_info().currsize else await asyncio.to_thread(load_litellm)


def classify(litellm: Any, error: Exception, now: datetime) -> ModelError:
    """What an exception of litellm, raised now, means for the loop."""
    import httpx  # late: it imports slowly, and a start does not need it
    import openai
    from litellm.exceptions import MidStreamFallbackError

    if isinstance(error, ModelError):
        return error
    if isinstance(error, MidStreamFallbackError) and isinstance(error.original_exception, Exception):
        return classify(litellm, error.original_exception, now)
    message = str(getattr(error, "message", None) or error) or type(error).__name__
    if isinstance(error, litellm.ContextWindowExceededError) or _codes(error) & OVERFLOW_CODES:
        return ContextOverflowError(message)
    if any(type(cause) is openai.OpenAIError for cause in _causes(error)):
        return ModelError(message)  # no answer but a refusal of the client itself: it has no key
    if isinstance(error, openai.RateLimitError):
        headers = getattr(error, "litellm_response_headers", None) or {}
        return RateLimitedError(message, retry_after(headers.get("retry-after", ""), now))
    if isinstance(error, openai.APIConnectionError | openai.InternalServerError | httpx.TransportError):
        return ModelUnavailableError(message)
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 500:
        return ModelUnavailableError(message)
    # The other subclasses of BadRequestError say what else it was: the content, the payment.
    if type(error) is litellm.BadRequestError or isinstance(
        error, litellm.UnsupportedParamsError | openai.UnprocessableEntityError
    ):
        parameter = _body(error).get("param")
        return RequestRefusedError(message, parameter if isinstance(parameter, str) else None)
    return ModelError(message)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that litellm has turned into this one."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _may_be_the_effort(failure: ModelError) -> bool:
    """Whether less reasoning effort may help. Not all providers name the parameter that they refuse."""
    if not isinstance(failure, RequestRefusedError):
        return False
    return failure.parameter is None or "reasoning" in failure.parameter


def _codes(error: Any) -> set[object]:
    """The codes in the body of an error."""
    body = _body(error)
    return {body.get("code"), body.get("type")}


def _body(error: Any) -> dict[str, Any]:
    """The body of an error, as OpenAI's API has it (`message`, `type`, `param`, `code`)."""
    body = getattr(error, "body", None)
    return body if isinstance(body, dict) else {}
