"""litellm: loaded late and set up to keep to itself, and what its exceptions mean."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from agent.model.answer import FINISHES
from agent.model.classify import http_error
from agent.model.connection import causes_of, connection_error
from agent.model.failure import ContextOverflowError, CredentialsError, ModelError, Where, WithheldError, with_words
from agent.model.overflow import limit_in

_PREFIX = re.compile(r"^\s*(litellm\.|[\w.]*?(Error|Exception|Exhausted|Timeout)\b\s*[:-]\s*)+")
"""What litellm puts before a provider's words: `litellm.RateLimitedError: RateLimitError: OpenAIException - slow down`."""

_SUFFIX = re.compile(r"\.? ?Handle with `litellm\.\w+`\.?$")


@cache
def load_litellm() -> Any:
    """litellm, set up to keep to itself: no price table from the network, no `.env` file, no printing, no telemetry.

    Without the garbage collector the import takes a third less time; none of what it makes ever becomes garbage.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    os.environ.setdefault("AIOHTTP_TTL_DNS_CACHE", "10")  # seconds; a Service that is created again has another address
    os.environ.setdefault("REPEATED_STREAMING_CHUNK_LIMIT", str(10**9))  # a ruler or an indentation is no endless loop
    gc.disable()
    try:
        litellm: Any = importlib.import_module("litellm")
        gc.freeze()
    finally:
        gc.enable()
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    # litellm calls reasons that it does not know `stop`, and a broken answer, too.
    reasons = importlib.import_module("litellm.litellm_core_utils.core_helpers")._FINISH_REASON_MAP
    # It maps a reason more than once, so what it is mapped to is mapped to itself.
    kept = ("pause_turn", "error", "window_full")
    reasons.update({reason: reason for reason in kept} | {reason: ours for reason, ours in FINISHES.items() if ours in kept})
    return litellm


async def loaded_litellm() -> Any:
    """litellm, imported in a thread the first time: that takes seconds."""
    return load_litellm() if load_litellm.cache_info().currsize else await asyncio.to_thread(load_litellm)


def client_without_redirects(timeout: float) -> Any:
    """A client for one call of a provider that litellm speaks to with its own; to be closed (`await client.close()`)."""
    handler = importlib.import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler(timeout=timeout)
    handler.client.follow_redirects = False
    return handler


def classify(litellm: Any, error: Exception, where: Where, now: datetime) -> ModelError:
    """What an exception of litellm, raised now, means for the loop."""
    import httpx  # late: they import slowly, and a start does not need them
    import openai
    from litellm.exceptions import MidStreamFallbackError

    if isinstance(error, ModelError):
        return error
    if isinstance(error, MidStreamFallbackError) and isinstance(error.original_exception, Exception):
        return classify(litellm, error.original_exception, where, now)
    words = _SUFFIX.sub("", _PREFIX.sub("", str(getattr(error, "message", None) or error))) or type(error).__name__
    causes = (error, *causes_of(error))
    if any(type(cause) is openai.OpenAIError for cause in causes):
        # No answer but a refusal of the client itself: it has no key.
        return CredentialsError(
            with_words(f"There is no API key for {where.server}. Add it to the session's credentials.", words)
        )
    if isinstance(error, litellm.ContextWindowExceededError):
        return ContextOverflowError(with_words(f"The conversation is too long for {where.model}.", words), limit_in(words))
    if isinstance(error, litellm.ContentPolicyViolationError):
        return WithheldError(with_words(f"The content filter of {where.server} withheld the request.", words))
    answered = any(isinstance(cause, httpx.HTTPStatusError) for cause in causes)
    broke = any(isinstance(cause, OSError | httpx.TransportError | openai.APIConnectionError) for cause in causes)
    if (broke and not answered) or not isinstance(getattr(error, "status_code", None), int):
        return connection_error(error, where)
    return http_error(*_response(error, words), where, now)


def _response(error: Exception, words: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of the provider's answer. litellm gives some statuses as others, so the first cause counts."""
    status: int = error.status_code  # type: ignore[attr-defined]
    headers: dict[str, str] = {}
    for cause in (error, *causes_of(error)):
        response = getattr(cause, "response", None)
        found = getattr(cause, "status_code", None) or getattr(response, "status_code", None)
        status = found if isinstance(found, int) else status
        for source in (cause, response):
            with contextlib.suppress(Exception):
                headers |= {str(name).lower(): str(value) for name, value in dict(source.headers).items()}  # type: ignore[union-attr]
        with contextlib.suppress(Exception):
            headers |= {str(name).lower(): str(value) for name, value in dict(cause.litellm_response_headers).items()}  # type: ignore[attr-defined]
        body = getattr(cause, "body", None)
        if isinstance(body, Mapping):
            words = json.dumps(body, default=str)
        else:
            with contextlib.suppress(Exception):  # the body of a response that was not read
                words = response.text or words  # type: ignore[union-attr]
    return status, headers, words
