"""The creations of pods whose outcome is not known: under way, or ended without an answer.

Each counts as a holder of a slot, because the pod may exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from agentsession_operator.api.objects import SessionUID


@dataclass(frozen=True, slots=True)
class Pending:
    """One creation."""

    sent: float
    """When the last request was sent, by the clock of Creations."""
    doubt: bool = False
    """Whether the request has ended without an answer."""


class Creations:
    """By session."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds and only goes forward."""
        self._clock = clock
        self._pending: dict[SessionUID, Pending] = {}
        self._changed: dict[SessionUID, None] = {}

    def __contains__(self, uid: object) -> bool:
        return uid in self._pending

    def __len__(self) -> int:
        return len(self._pending)

    def sent(self, uid: SessionUID) -> None:
        """A request is being sent."""
        self._pending[uid] = Pending(self._clock())
        self._changed[uid] = None

    def ended(self, uid: SessionUID) -> None:
        """The outcome is known."""
        self._pending.pop(uid, None)
        self._changed[uid] = None

    def unanswered(self, uid: SessionUID) -> None:
        """The request has ended without an answer."""
        self._pending[uid] = replace(self._pending[uid], doubt=True)

    def doubts(self) -> list[tuple[SessionUID, Pending]]:
        """Those without an answer."""
        return [(uid, pending) for uid, pending in self._pending.items() if pending.doubt]

    def take_changed(self) -> list[SessionUID]:
        """The sessions whose creation began or ended since the last call."""
        changed = list(self._changed)
        self._changed.clear()
        return changed
