"""How often one object may be written: a safety net below every decision, no matter what the API server answers.

A healthy session is written a handful of times in its life. Where a defect, a stale cache or a fight with another controller
makes decisions repeat themselves, the writes of that object slow down instead of becoming a storm; all other objects are
unaffected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BURST: Final = 20
"""Writes of one object that never wait: its whole life from creation to the end in one go, with a loss and a suspension."""
RECOVERY_SECONDS: Final = 10.0
"""After a burst, one write is allowed in this time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """A token bucket for the writes of one object. Times are seconds of any clock that only goes forward."""

    spent: float = 0.0
    """Writes that are not forgiven yet."""
    last: float = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until the next write may be sent; 0 where it may be sent now."""
        return max(0.0, self._spent_at(now) - (BURST - 1)) * RECOVERY_SECONDS

    def written(self, now: float) -> Pace:
        """The pace after a write that is sent at `now`."""
        return Pace(self._spent_at(now) + 1, now)

    def forgotten(self, now: float) -> bool:
        """Whether nothing of it matters any more."""
        return self._spent_at(now) <= 0

    def _spent_at(self, now: float) -> float:
        return max(0.0, self.spent - max(0.0, now - self.last) / RECOVERY_SECONDS)
