"""How fast each session's objects are written: one `Pace` (decisions/pacing.py) for each session, on this process's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from agentsession_operator.api.objects import SessionUID
from agentsession_operator.decisions.pacing import Pace

_KEPT: Final = 1_000
"""Paces that are kept before those that matter no more are dropped."""


class Paces:
    """Counts the writes of each session: its status, its pod and its claim together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds and only goes forward."""
        self._clock = clock
        self._paces: dict[SessionUID, Pace] = {}
        self._prune_at = _KEPT

    def wait(self, session: SessionUID) -> float:
        """Seconds until the session's next write may be sent; 0 where it may be sent now."""
        pace = self._paces.get(session)
        return pace.wait(self._clock()) if pace is not None else 0.0

    def written(self, session: SessionUID) -> None:
        """A write is being sent."""
        now = self._clock()
        self._paces[session] = self._paces.get(session, Pace()).written(now)
        if len(self._paces) > self._prune_at:
            self._paces = {uid: pace for uid, pace in self._paces.items() if not pace.forgotten(now)}
            # Twice what is left, so that pruning costs a constant for each write.
            self._prune_at = max(_KEPT, 2 * len(self._paces))


def utc_now() -> datetime:
    """The time of day, in UTC: what every part that runs takes for `now` unless it is told otherwise."""
    return datetime.now(UTC)
