"""The queue: who waits, in lanes, and the order in which slots go out.

Sessions that the same quotas count, that share the same counts and have the same priority differ in nothing but the time at
which they asked: they stand in one lane, in that order. Only the head of a lane is ever compared with others, so that a slot
costs the logarithm of the number of lanes, however many sessions stand in them.

The order is: the highest priority of a class, then the lowest dominant share, then first come first served. The dominant share
of a user is the largest, over the quotas that count the session, of holders / (maxSessions x weight) (Ghodsi et al., Dominant
Resource Fairness, NSDI 2011).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from agentsession_operator.api.conditions import AdmittedReason
from agentsession_operator.decisions.quotas.limits import Group, Limit
from agentsession_operator.decisions.quotas.ranking import Ranking

Arrival: TypeAlias = "tuple[str, str, str]"
"""Time of asking, namespace and name: first come first served, the same for every observer."""
Key: TypeAlias = "tuple[int, float, Arrival, int]"
"""What lanes are ordered by: priority (negative), dominant share, arrival of the head, number of the lane."""
Place: TypeAlias = "tuple[int, Arrival, int]"
"""Priority (negative), arrival of the head, number of the lane."""
K = TypeVar("K", bound="tuple[Any, ...]")


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a session counts under one limit."""

    limit: Limit
    group: Group


@dataclass(frozen=True, slots=True)
class Blocked:
    """What keeps a lane waiting."""

    reason: AdmittedReason
    limit: Limit
    group: Group | None = None


class Lane:
    """Sessions that wait for the same, in the order of their arrival."""

    def __init__(self, pool: Pool, seats: tuple[Seat, ...], priority: int, number: int) -> None:
        self.pool, self.seats, self.priority, self.number = pool, seats, priority, number
        self.waiting: list[tuple[Arrival, str]] = []
        """Arrival and UID."""
        self.told: Blocked | None = None
        """What its sessions have been told that they wait for."""

    def add(self, arrival: Arrival, uid: str) -> None:
        insort(self.waiting, (arrival, uid))

    def remove(self, arrival: Arrival, uid: str) -> None:
        del self.waiting[bisect_left(self.waiting, (arrival, uid))]

    def key_at(self, place: int, more: Mapping[Group, int]) -> Key:
        """Its key if the session at `place` were its head, and if groups had so many more holders."""
        share = max(
            (seat.group.held + more.get(seat.group, 0)) / (max(1, seat.limit.rules.max_sessions) * seat.group.weight)
            for seat in self.seats
        )
        return -self.priority, share, self.waiting[place][0], self.number

    def place_at(self, place: int) -> Place:
        """Its place among those who wait for a group of theirs, if the session at `place` were its head."""
        return -self.priority, self.waiting[place][0], self.number

    @property
    def has_room(self) -> bool:
        """Whether none of its groups is full."""
        return not any(seat.group.full for seat in self.seats)

    def blocked(self) -> Blocked:
        """What its sessions wait for: a hold, or the first limit that is full."""
        for seat in self.seats:
            if seat.limit.held_up:
                return Blocked(AdmittedReason.QUOTA_HELD, seat.limit)
        return next(iter(self.full()), Blocked(AdmittedReason.QUEUED, self.seats[0].limit))

    def full(self) -> list[Blocked]:
        """The groups and the limits that leave it no room, a user's own first."""
        own = [Blocked(AdmittedReason.USER_LIMIT_REACHED, seat.limit, seat.group) for seat in self.seats if seat.group.full]
        return own + [Blocked(AdmittedReason.GLOBAL_LIMIT_REACHED, seat.limit) for seat in self.seats if seat.limit.full]


class Pool:
    """The lanes of those whom the same quotas count."""

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.limits = limits
        self.lanes: dict[tuple[tuple[Group, ...], int], Lane] = {}
        self.told: tuple[Limit, ...] = ()
        """What let none of them in when they were told last."""
        self.open: Ranking[Key, Lane] = Ranking()
        """Those that could be next."""
        self.full: Ranking[Place, Lane] = Ranking()
        """Those that one of their groups leaves no room."""
        self.oldest: Ranking[tuple[Arrival, int], Lane] = Ranking()
        """All, by the arrival of their heads."""

    def blocked(self) -> set[Blocked]:
        """What its lanes wait for. Those that are open all wait for the same."""
        lane = self.open.first()
        return ({lane.blocked()} if lane is not None else set()) | {lane.blocked() for lane in self.full}

    @property
    def stopped_by(self) -> tuple[Limit, ...]:
        """The limits that let none of them in."""
        return tuple(limit for limit in self.limits if limit.closed)

    def lane_of(self, seats: tuple[Seat, ...], priority: int, number: int) -> Lane:
        """The lane for such sessions; `number` is what a new one gets."""
        key = tuple(seat.group for seat in seats), priority
        if (lane := self.lanes.get(key)) is None:
            lane = self.lanes[key] = Lane(self, seats, priority, number)
        return lane

    def update(self, lane: Lane) -> None:
        """A session of the lane came or went, or the count of one of its groups changed."""
        if not lane.waiting:
            self.open.put(lane, None)
            self.full.put(lane, None)
            self.oldest.put(lane, None)
            del self.lanes[tuple(seat.group for seat in lane.seats), lane.priority]
            return
        room = lane.has_room
        self.open.put(lane, lane.key_at(0, {}) if room else None)
        self.full.put(lane, None if room else lane.place_at(0))
        self.oldest.put(lane, (lane.waiting[0][0], lane.number))


def in_order(pools: Iterable[Pool], most: int) -> Iterator[str]:
    """UIDs in the order in which slots would go out if the limits were endless. Nothing may change meanwhile."""
    more: Counter[Group] = Counter()
    # A lane's key only grows while slots go out: none is looked at before the key that it has now comes up.
    coming = heapq.merge(*(pool.open.in_order() for pool in pools))
    for lane, uid in islice(_walk(coming, lambda lane, place: lane.key_at(place, more)), most):
        more.update(seat.group for seat in lane.seats)
        yield uid


def in_own_order(lanes: Iterable[Lane], most: int) -> Iterator[str]:
    """UIDs of those who wait for a group of theirs to have room, by priority and arrival."""
    heads = sorted((lane.place_at(0), lane) for lane in lanes)
    return (uid for _, uid in islice(_walk(iter(heads), Lane.place_at), most))


def _walk(coming: Iterator[tuple[K, Lane]], key_at: Callable[[Lane, int], K]) -> Iterator[tuple[Lane, str]]:
    """Session by session, the least key first. `coming` are the keys of the heads, in order; a key may grow meanwhile."""
    following = next(coming, None)
    heap: list[tuple[K, Lane, int]] = []
    while heap or following is not None:
        if following is not None and not (heap and heap[0][0] < following[0]):
            heapq.heappush(heap, (*following, 0))
            following = next(coming, None)
            continue
        key, lane, place = heap[0]
        if (now := key_at(lane, place)) != key:
            heapq.heapreplace(heap, (now, lane, place))
            continue
        yield lane, lane.waiting[place][1]
        if place + 1 < len(lane.waiting):
            heapq.heapreplace(heap, (key_at(lane, place + 1), lane, place + 1))
        else:
            heapq.heappop(heap)
