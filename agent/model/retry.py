"""What can go wrong with a model call, and whether and when it is tried again. Decided by class, never by text."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class ModelError(Exception):
    """A model call failed, and the same call would fail again: a wrong key, an unknown model, a refused request."""

    kind = "model"


class RequestRefusedError(ModelError):
    """The provider will not have the call as it is; `parameter` names what it does not like, where it said that."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class ModelUnavailableError(ModelError):
    """The connection broke, timed out, or the provider had a fault of its own."""

    kind = "unavailable"


class NoAnswerError(ModelError):
    """The model answered, but with nothing that can be used: no words and no calls, or not what it was asked for."""

    kind = "no_answer"


class RateLimitedError(ModelError):
    """The provider asks for patience; `retry_after` is its own wish in seconds, when it said one."""

    kind = "rate_limited"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ContextOverflowError(ModelError):
    """The conversation is longer than the model's context window."""

    kind = "context_overflow"


UNAVAILABLE_WAITS = (5.0, 15.0)
"""Seconds before the second and the third try of a call that broke."""

NO_ANSWER_WAITS = (0.0, 0.0)
"""Seconds before the second and the third try of a call that had no usable answer: the next one may be better at once."""

RATE_LIMIT_WAITS = (30.0, 60.0, 120.0)
"""Seconds before the next tries of a call that was rate limited, where the provider says nothing itself."""

MAX_RETRY_AFTER = 600.0
"""Seconds; a provider that asks for a longer wait has in effect refused."""


def retry_wait(error: ModelError, failures: int) -> float | None:
    """Seconds to wait before trying again after `failures` failed tries of this call; None gives up."""
    if isinstance(error, RateLimitedError):
        if failures > len(RATE_LIMIT_WAITS):
            return None
        if error.retry_after is None:
            return RATE_LIMIT_WAITS[failures - 1]
        return error.retry_after if error.retry_after <= MAX_RETRY_AFTER else None
    if isinstance(error, ModelUnavailableError) and failures <= len(UNAVAILABLE_WAITS):
        return UNAVAILABLE_WAITS[failures - 1]
    if isinstance(error, NoAnswerError) and failures <= len(NO_ANSWER_WAITS):
        return NO_ANSWER_WAITS[failures - 1]
    return None


def retry_after(header: str, now: datetime) -> float | None:
    """Seconds to wait according to a Retry-After header, in either of its forms (RFC 9110, 10.2.3): seconds, or a date.

    None when it is neither. `now` must know its time zone.
    """
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    # Of the three forms of a date (RFC 9110, 5.6.7), the one of C's asctime has no zone; all are in UTC.
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())
