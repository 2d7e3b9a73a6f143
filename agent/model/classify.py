"""What an error that a model's server reports means: HTTP statuses, error objects inside of a stream, other content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from agent.model.failure import (
    ContextOverflowError,
    CredentialsError,
    ImagesRefusedError,
    ModelError,
    ModelUnavailableError,
    NoAnswerError,
    QuotaError,
    RateLimitedError,
    RequestRefusedError,
    Where,
    WithheldError,
    with_words,
)
from agent.model.overflow import exceeds_the_limit_per_minute, limit_in, means_overflow

_QUOTA_CODES = {
    "insufficient_quota",  # OpenAI
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_balance",
    "insufficient_credits",
    "credit_balance_too_low",
    "billing_error",  # Anthropic
}
_QUOTA_WORDS = re.compile(
    r"exceeded your current quota|insufficient (balance|credits?|funds|quota)|credit balance is too low|"
    r"out of credits|not enough credits|payment required|billing",
    re.IGNORECASE,
)
_FILTER_CODES = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed"}
_IMAGE_WORDS = re.compile(
    r"image(s|[ _](input|url|content)s?) (is|are) (not|only) supported|"  # llama.cpp (with 500), OpenAI
    r"(does not|doesn't|do not|don't|no endpoints found that) support (image|vision|multimodal)|"  # OpenRouter (with 404)
    r"not a (multimodal|vision) model|"  # vLLM
    r"(unsupported content part type|unknown variant).{0,10}image_url",  # llama.cpp before it knew images, DeepSeek
    re.IGNORECASE,
)
_DELAY = re.compile(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"')
_CONFUSED = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.LOCKED, HTTPStatus.TOO_EARLY)
"""Statuses below 500 with which the same request may succeed later."""


def http_error(status: int, headers: Mapping[str, str], body: str, where: Where, now: datetime) -> ModelError:
    """What an answer with an error status means. `body` may be cut; the names of `headers` are in lower case."""
    error = _json(body)
    return _error(status, error, _words(error, body), where, _wait(headers, body, now))


def reported_error(error: Mapping[str, Any], where: Where) -> ModelError:
    """What an error object means that came with status 200, as the whole answer or in the middle of a stream.

    If the object names no HTTP status, the server had a fault of its own.
    """
    text = json.dumps(error, ensure_ascii=False)
    statuses = (
        value for level in _levels(error) for value in (level.get("code"), level.get("status"), level.get("status_code"))
    )
    status = next((code for value in statuses if (code := _status(value)) is not None), 500)
    return _error(status, error, _words(error, text), where, _wait({}, text, datetime.min.replace(tzinfo=UTC)))


def is_error(data: Mapping[str, Any]) -> bool:
    """Whether a piece of an answer is an error object, in any of the shapes that servers have for one."""
    if data.get("error") or data.get("object") == "error" or data.get("type") == "error":
        return True
    return not data.get("choices") and any(isinstance(data.get(name), str) for name in ("detail", "message", "error_message"))


def other_content(content_type: str, body: str, where: Where) -> NoAnswerError:
    """What an answer with status 200 means that is neither a stream of events nor JSON."""
    what = content_type.partition(";")[0].strip() or "no content type"
    kind = "a web page" if body.lstrip()[:1] == "<" else f"something else ({what})"
    return NoAnswerError(
        with_words(
            f"{where.sentence} answered with {kind} in place of a completion. Check that baseURL is the address of an "
            "OpenAI-compatible API (it usually ends with /v1).",
            _page_words(body),
        )
    )


def _error(status: int, error: object, words: str, where: Where, wait: float | None) -> ModelError:
    codes = {
        str(value).lower() for level in _levels(error) for value in (level.get("code"), level.get("type"), level.get("status"))
    }
    say = _Sayer(where, status, words)
    if 300 <= status < 400:
        return ModelError(
            say(f"{where.sentence} redirects requests elsewhere (HTTP {status}). Set baseURL to its present address.")
        )
    if status in (401, 407) or codes & {"invalid_api_key", "authentication_error"}:
        return CredentialsError(
            say(f"{where.sentence} does not accept the API key (HTTP {status}). Check the key in the session's credentials.")
        )
    if status == 402 or codes & _QUOTA_CODES or (status in (400, 403, 429) and _QUOTA_WORDS.search(words)):
        return QuotaError(
            say(
                f"The account at {where.server} has no credit or quota left (HTTP {status}). Add credit, or use "
                "another key or model."
            )
        )
    if codes & _FILTER_CODES:
        return WithheldError(
            say(f"The content filter of {where.server} withheld the request. Rephrase it, or undo the last message.")
        )
    if status not in (403, 429) and _IMAGE_WORDS.search(words):
        return ImagesRefusedError(say(f"{where.sentence} takes no images for {where.model} (HTTP {status})."))
    if status == 429:
        if exceeds_the_limit_per_minute(words):
            return ContextOverflowError(
                say(f"The request is larger than the limit per minute for {where.model}."), limit_in(words)
            )
        return RateLimitedError(say(f"{where.sentence} limits the rate of requests for {where.model} (HTTP 429)."), wait)
    if status == 413 or (status not in (403, 404) and means_overflow(codes, words)):
        return ContextOverflowError(
            say(f"The conversation is too long for {where.model}."), limit_in(f"{words} {json.dumps(error)}")
        )
    if status >= 500 or status in _CONFUSED:
        return ModelUnavailableError(say(f"{where.sentence} has a fault or is overloaded (HTTP {status})."), wait)
    return _refused(status, error, where, say)


def _refused(status: int, error: object, where: Where, say: _Sayer) -> ModelError:
    if status == 403:
        return CredentialsError(
            say(
                f"{where.sentence} does not let this API key use {where.model} (HTTP 403). Check the key's "
                "permissions, or choose another model."
            )
        )
    if status == 404:
        return ModelError(
            say(
                f"{where.sentence} does not know the model {where.model} or this address (HTTP 404). Check the "
                "model's name and baseURL (it usually ends with /v1)."
            )
        )
    if status in (400, 413, 422):
        parameter = next((value for level in _levels(error) if isinstance(value := level.get("param"), str)), None)
        return RequestRefusedError(say(f"{where.sentence} refused the request (HTTP {status})."), parameter)
    return ModelError(say(f"{where.sentence} refused the request (HTTP {status}). Check the model's name and baseURL."))


class _Sayer:
    """Puts the provider's words behind a message."""

    def __init__(self, where: Where, status: int, words: str) -> None:
        self._words = words or _phrase(status)

    def __call__(self, message: str) -> str:
        return with_words(message, self._words)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _status(value: object) -> int | None:
    """An HTTP error status, written as a number or as digits."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).isdecimal():
        return None
    return int(value) if 300 <= int(str(value)[:4]) < 600 and len(str(value)) == 3 else None


def _json(body: str) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _levels(error: object, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The error object and those inside of it: some servers wrap one in another, some in a list, some as text."""
    if depth > 4:
        return
    if isinstance(error, str) and "{" in error[:2000]:
        yield from _levels(_json(error[error.index("{") :]), depth + 1)
    elif isinstance(error, list):
        for item in error[:5]:
            yield from _levels(item, depth + 1)
    elif isinstance(error, Mapping):
        yield error
        for name in ("error", "errors", "detail", "details", "message", "metadata", "raw"):
            yield from _levels(error.get(name), depth + 1)


def _words(error: object, body: str) -> str:
    """What the provider says in words, all of it that may tell what went wrong."""
    said: list[str] = []
    for level in _levels(error):
        for name in ("message", "detail", "error", "error_message", "msg", "title", "raw", "reason"):
            value = level.get(name)
            if isinstance(value, str) and value.strip() and not any(value in other for other in said):
                said.append(value.strip())
    if said:
        return " / ".join(said)
    return _page_words(body) if error is None else json.dumps(error, ensure_ascii=False)


def _page_words(body: str) -> str:
    """A page's words without its markup."""
    if body.lstrip()[:1] != "<":
        return body.strip()
    body = re.sub(r"<(script|style)\b.*?(</\1>|$)", " ", body[:20_000], flags=re.IGNORECASE | re.DOTALL)
    return re.sub(r"<[^>]*(>|$)", " ", body)


def _wait(headers: Mapping[str, str], body: str, now: datetime) -> float | None:
    """The provider's wish in seconds: OpenAI's and Azure's retry-after-ms, Retry-After, or Google's RetryInfo."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    if (wait := retry_after(headers.get("retry-after", ""), now)) is not None:
        return wait
    found = _DELAY.search(body)
    return float(found[1]) if found else None


def retry_after(header: str, now: datetime) -> float | None:
    """Seconds to wait according to a Retry-After header, in either of its forms (RFC 9110, 10.2.3): seconds, or a date.

    None when it is neither. `now` must know its time zone.
    """
    try:
        seconds = float(header)
        return max(0.0, seconds) if seconds == seconds else None
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    # Of the three forms of a date (RFC 9110, 5.6.7), the one of C's asctime has no zone; all are in UTC.
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())
