"""What the admission says to one session."""

from __future__ import annotations

from dataclasses import dataclass

from agentsession_operator.api.conditions import AdmittedReason, SuspendedReason


@dataclass(frozen=True, slots=True)
class Wait:
    """The session waits."""

    reason: AdmittedReason
    message: str
    position: int | None = None
    """Its place among those that wait for the same; 1 is next. None where it is far back."""


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The session asked for the first time and finds neither a slot nor a place in the queue. It is over."""

    reason: AdmittedReason
    message: str


@dataclass(frozen=True, slots=True)
class Displaced:
    """The session holds a slot and is to give it back."""

    reason: SuspendedReason
    """REPLACED: for another session, and it stays away. QUOTA_HELD: until the hold is over."""
    successor: str | None = None
    """The UID of the session that gets the slot."""


Verdict = Wait | TurnedAway
