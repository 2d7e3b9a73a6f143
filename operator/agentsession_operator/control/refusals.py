"""Sessions whose pod or claim the API server refused: each backs off by itself."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentsession_operator.api.objects import SessionUID

FIRST_REFUSAL_SECONDS: Final = 1.0
LONGEST_REFUSAL_SECONDS: Final = 300.0
"""A session whose pod is refused asks again after FIRST_REFUSAL_SECONDS, doubling up to this."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    message: str
    tries: int
    until: float


class Refusals:
    """The last refusal of each session, until its pod exists."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds and only goes forward."""
        self._clock = clock
        self._refusals: dict[SessionUID, _Refusal] = {}
        self._due: list[tuple[float, SessionUID]] = []
        """A heap of when each may ask again."""

    def add(self, uid: SessionUID, message: str, at_least: float) -> int:
        """The session was refused, and asks again after `at_least` seconds or more. Returns the number of refusals in a row."""
        before = self._refusals.get(uid)
        tries = before.tries + 1 if before is not None else 1
        wait = min(LONGEST_REFUSAL_SECONDS, FIRST_REFUSAL_SECONDS * 2.0 ** min(tries - 1, 16))
        until = self._clock() + max(wait, at_least)
        self._refusals[uid] = _Refusal(message, tries, until)
        heapq.heappush(self._due, (until, uid))
        return tries

    def forget(self, uid: SessionUID) -> None:
        """The session has its pod, or is gone."""
        self._refusals.pop(uid, None)

    def message(self, uid: SessionUID) -> str | None:
        """What is said of the last refusal."""
        refusal = self._refusals.get(uid)
        return refusal.message if refusal is not None else None

    def backs_off(self, uid: SessionUID) -> bool:
        """Whether the session must not ask again yet."""
        refusal = self._refusals.get(uid)
        return refusal is not None and refusal.until > self._clock()

    def next_due(self) -> float:
        """Seconds until a session may ask again; infinite where none waits for that."""
        while self._due and self._outdated(*self._due[0]):
            heapq.heappop(self._due)
        return max(0.0, self._due[0][0] - self._clock()) if self._due else float("inf")

    def take_due(self) -> list[SessionUID]:
        """The sessions that may ask again since the last call."""
        due = []
        while self._due and (self._due[0][0] <= self._clock() or self._outdated(*self._due[0])):
            due.append(heapq.heappop(self._due)[1])
        return due

    def _outdated(self, until: float, uid: SessionUID) -> bool:
        refusal = self._refusals.get(uid)
        return refusal is None or refusal.until != until
