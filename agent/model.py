"""The model behind the loop: what the loop needs of one, and the one that speaks to every provider through litellm."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from agent.messages import Message, ModelChunk, ToolCallDelta, Usage
from agent.retry import ContextOverflowError, ModelError, ModelUnavailableError, RateLimitedError

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

    def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
        """The answer in pieces. `tools` are OpenAI function definitions. Raises `ModelError`, also half way."""
        ...


class LiteLLMModel:
    """A model of any provider that litellm knows, or any model of an OpenAI-compatible server (`base_url`).

    litellm is imported with the first call, in a thread: it takes seconds and 160 MB, which a session that waits for
    its first prompt need not spend, nor the event loop stand still for.
    """

    def __init__(self, name: str, *, base_url: str | None = None, api_key: str | None = None) -> None:
        self._name = name
        self._base_url = base_url
        self._api_key = api_key

    @property
    def name(self) -> str:
        return self._name

    async def context_window(self) -> int | None:
        litellm = await asyncio.to_thread(load_litellm)
        # litellm raises for a model that its table does not have.
        with contextlib.suppress(Exception):
            window = litellm.get_model_info(self._routed_name(litellm))["max_input_tokens"]
            return int(window) if window else None
        return None

    async def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
        litellm = await asyncio.to_thread(load_litellm)
        try:
            response = await litellm.acompletion(**self._request(litellm, messages, tools))
            async for chunk in response:
                yield self._read(litellm, chunk)
        except Exception as error:
            raise classify(litellm, error) from error

    def _request(self, litellm: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._routed_name(litellm),
            "messages": [message.to_wire() for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "timeout": REQUEST_TIMEOUT,
            "num_retries": 0,  # the loop retries: it can be interrupted, and it knows what it has already shown
            "max_retries": 0,
            "drop_params": True,
        }
        if tools:
            request["tools"] = list(tools)
        if self._base_url:
            request["api_base"] = self._base_url
            # The client insists on a key, even where the server does not.
            request["api_key"] = self._api_key or os.environ.get("OPENAI_API_KEY") or "none"
        elif self._api_key:
            request["api_key"] = self._api_key
        return request

    def _routed_name(self, litellm: Any) -> str:
        """At a server of one's own, a name without a provider's prefix means the OpenAI protocol."""
        provider = self._name.partition("/")[0]
        if self._base_url and provider not in {str(getattr(p, "value", p)) for p in litellm.provider_list}:
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
            usage=None if usage is None else self._usage(litellm, usage),
            finish_reason=getattr(choice, "finish_reason", None),
        )

    def _usage(self, litellm: Any, usage: Any) -> Usage:
        cost = 0.0
        # litellm raises for a model that its price table does not have.
        with contextlib.suppress(Exception):
            cost = sum(litellm.cost_per_token(model=self._routed_name(litellm), usage_object=usage))
        details = getattr(usage, "prompt_tokens_details", None)
        return Usage(
            input_tokens=usage.prompt_tokens or 0,
            output_tokens=usage.completion_tokens or 0,
            cached_tokens=getattr(details, "cached_tokens", None) or 0,
            cost_usd=cost,
        )


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


def classify(litellm: Any, error: Exception) -> ModelError:
    """What an exception of litellm means for the loop."""
    import httpx
    import openai
    from litellm.exceptions import MidStreamFallbackError

    if isinstance(error, ModelError):
        return error
    if isinstance(error, MidStreamFallbackError) and isinstance(error.original_exception, Exception):
        return classify(litellm, error.original_exception)
    message = str(getattr(error, "message", None) or error) or type(error).__name__
    if isinstance(error, litellm.ContextWindowExceededError) or _codes(error) & OVERFLOW_CODES:
        return ContextOverflowError(message)
    if isinstance(error, openai.RateLimitError):
        return RateLimitedError(message, retry_after(error))
    if isinstance(error, openai.APIConnectionError | openai.InternalServerError | httpx.TransportError):
        return ModelUnavailableError(message)
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 500:
        return ModelUnavailableError(message)
    return ModelError(message)


def _codes(error: Any) -> set[object]:
    """The codes in the body of an error, as OpenAI's API has them."""
    body = getattr(error, "body", None)
    return {body.get("code"), body.get("type")} if isinstance(body, dict) else set()


def retry_after(error: Any) -> float | None:
    """Seconds from a Retry-After header in its numeric form (RFC 9110, 10.2.3), None without one."""
    headers = getattr(error, "litellm_response_headers", None) or {}
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return None
