"""ReplaceOldestIdle: which idle session makes room for which waiting one.

Each waiting session has at most one that makes room for it, and the slot that this one leaves is the waiting one's. The pair is
also in the status of the session that leaves (`rest.successor`), so that it holds over a restart.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Final

from agentsession_operator.decisions.quotas.claims import Claim
from agentsession_operator.decisions.quotas.lanes import Blocked, Seat
from agentsession_operator.decisions.quotas.limits import Group, Limit

LOOKED_AT: Final = 64
"""Idle sessions that are looked at for one that waits. Those further down have been idle for a shorter time."""


class Replacements:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._idle: dict[Limit | Group, list[tuple[str, str]]] = {}
        """Of limits that replace, and of the groups under them: since when, and UID."""
        self._holders: dict[str, tuple[Claim, tuple[Seat, ...]]] = {}
        """The idle ones."""
        self._successor: dict[str, str] = {}
        self._leaving: dict[str, str] = {}
        """The inverse of `_successor`."""
        self._heirs: list[str] = []
        self._changed: dict[Group, None] = {}
        """Groups where others may make room than before."""
        self._alone: list[str] = []
        """Waiting sessions for which nobody makes room any more."""

    def update(self, uid: str, claim: Claim | None, seats: tuple[Seat, ...]) -> None:
        """What a session claims now, and where it counts."""
        self._forget_idle(uid)
        if claim is None and uid in self._leaving:
            self._part(self._leaving[uid])  # the one that was to have the slot is gone
        if claim is None or not claim.holds:
            if (heir := self._part(uid)) is not None:
                self._heirs.append(heir)
            return
        if claim.successor is not None:
            self._pair(uid, claim.successor)
        elif claim.idle_since is None:
            self._part(uid)  # it works again
        else:
            self._holders[uid] = claim, seats
            for counted in _replacing(seats):
                insort(self._idle.setdefault(counted, []), (claim.idle_since, uid))
            self._note(seats)

    def granted(self, uid: str) -> None:
        """A waiting session has its slot: nobody needs to make room for it."""
        if uid in self._leaving:
            self._part(self._leaving[uid])

    def take_heirs(self) -> list[str]:
        """The waiting sessions for which room was made since the last call."""
        heirs, self._heirs = self._heirs, []
        return heirs

    def take_changed(self) -> tuple[list[Group], list[str]]:
        """The groups where others may make room since the last call, and the sessions that lost the one that did."""
        changed, alone = list(self._changed), self._alone
        self._changed, self._alone = {}, []
        return changed, alone

    def successor(self, uid: str) -> str | None:
        """For whom a session makes room."""
        return self._successor.get(uid)

    def awaits(self, uid: str) -> bool:
        """Whether somebody makes room for a waiting session."""
        return uid in self._leaving

    def idle(self, limits: Sequence[Limit]) -> int:
        """How many idle sessions, at most, could make room under these limits."""
        return max((len(self._idle.get(limit, ())) for limit in limits), default=0)

    def find(self, claim: Claim, full: Sequence[Blocked]) -> str | None:
        """Pair a waiting session with the one that has been idle longest, and whose slot gives room in all that is full."""
        for _, uid in self._idle.get(full[0].group or full[0].limit, ())[:LOOKED_AT]:
            holder, seats = self._holders[uid]
            if uid not in self._successor and holder.priority <= claim.priority and all(_counts(seats, each) for each in full):
                self._pair(uid, claim.uid)
                return uid
        return None

    def _pair(self, uid: str, successor: str) -> None:
        self._part(uid)
        self._successor[uid] = successor
        self._leaving[successor] = uid

    def _part(self, uid: str) -> str | None:
        """Nobody is to have the slot any more; who was."""
        successor = self._successor.pop(uid, None)
        if successor is not None:
            self._leaving.pop(successor, None)
            self._alone.append(successor)
            if uid in self._holders:
                self._note(self._holders[uid][1])
        return successor

    def _note(self, seats: tuple[Seat, ...]) -> None:
        self._changed.update((seat.group, None) for seat in seats if seat.limit.rules.when_full == "ReplaceOldestIdle")

    def _forget_idle(self, uid: str) -> None:
        if (known := self._holders.pop(uid, None)) is None:
            return
        claim, seats = known
        for counted in _replacing(seats):
            queue, key = self._idle[counted], (claim.idle_since or "", uid)
            del queue[bisect_left(queue, key)]
            if not queue:
                del self._idle[counted]
        self._note(seats)


def _replacing(seats: tuple[Seat, ...]) -> list[Limit | Group]:
    replacing = [seat for seat in seats if seat.limit.rules.when_full == "ReplaceOldestIdle"]
    return [*(seat.limit for seat in replacing), *(seat.group for seat in replacing)]


def _counts(seats: tuple[Seat, ...], full: Blocked) -> bool:
    if full.group is not None:
        return any(seat.group is full.group for seat in seats)
    return any(seat.limit is full.limit for seat in seats)
