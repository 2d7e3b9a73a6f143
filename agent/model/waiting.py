"""Whether and when a model call that failed is tried again. Decided by the failure's class, never by its text."""

from __future__ import annotations

from agent.config import Patience
from agent.model.failure import ModelError, ModelUnavailableError, NoAnswerError, RateLimitedError

MAX_WAIT = 60.0
"""Seconds between two tries, at most, unless the provider asks for more."""

RATE_LIMIT_FACTOR = 5.0
"""The first waits after a rate limit are so much longer than those after a failure."""

MAX_WITHOUT_ANSWER = 3
"""Tries that may end with something that is no answer. Each is paid for."""


class Tries:
    """The failed tries of one model call. Each class of failure has its own count and its own horizon."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._counts: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self.count = 0

    def next_wait(self, failure: ModelError, now: float, chance: float) -> float | None:
        """Seconds to wait before the next try; None gives up.

        `now` is in seconds on any clock. `chance`, from 0 to 1, spreads the tries of sessions that fail together.
        """
        self.count += 1
        kind = failure.kind
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        since = self._since.setdefault(kind, now)
        first = self._patience.first_wait
        if isinstance(failure, NoAnswerError):
            return first * (count - 1) if count < MAX_WITHOUT_ANSWER else None
        if isinstance(failure, ModelUnavailableError):
            horizon = self._patience.unavailable
        elif isinstance(failure, RateLimitedError):
            horizon, first = self._patience.rate_limited, RATE_LIMIT_FACTOR * first
        else:
            return None
        left = since + horizon - now
        if left <= 0:
            return None
        wait = min(first * 2.0 ** min(count - 1, 20), MAX_WAIT) * (0.75 + chance / 2)
        if failure.retry_after is None:
            return min(wait, left)
        if failure.retry_after > left:
            return None  # the provider has in effect refused
        # A wish for no wait at all must not make a loop.
        return max(failure.retry_after, 0.0 if count <= MAX_WITHOUT_ANSWER else min(wait, left))

    def summary(self, now: float) -> str:
        """How often and how long it was tried, as a sentence; empty after one try."""
        if self.count < 2:
            return ""
        seconds = now - min(self._since.values())
        time = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        return f" Tried {self.count} times in {time}."
