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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

from agentsession_operator.api.conditions import AdmittedReason
from agentsession_operator.decisions.quotas.limits import Group, Limit

Arrival: TypeAlias = "tuple[str, str, str]"
"""Time of asking, namespace and name: first come first served, the same for every observer."""
Key: TypeAlias = "tuple[int, float, Arrival, int]"
"""What lanes are ordered by: priority (negative), dominant share, arrival of the head, number of the lane."""
_SLACK: Final = 64
"""Outdated entries of a heap that are not worth a new one."""


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
        self.key: Key | None = None
        """Where it stands among the lanes of its pool; None while it is empty or one of its groups is full."""
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
        self.told: Limit | None = None
        """What stopped the whole pool when its sessions were told last."""
        self._heap: list[tuple[Key, Lane]] = []

    @property
    def stopped_by(self) -> Limit | None:
        """The limit that lets none of them in: one that is held up, or else one that is full."""
        held_up = next((limit for limit in self.limits if limit.held_up), None)
        return held_up or next((limit for limit in self.limits if limit.full), None)

    def lane_of(self, seats: tuple[Seat, ...], priority: int, number: int) -> Lane:
        """The lane for such sessions; `number` is what a new one gets."""
        key = tuple(seat.group for seat in seats), priority
        if (lane := self.lanes.get(key)) is None:
            lane = self.lanes[key] = Lane(self, seats, priority, number)
        return lane

    def update(self, lane: Lane) -> None:
        """A session of the lane came or went, or the count of one of its groups changed."""
        if not lane.waiting:
            lane.key = None
            del self.lanes[tuple(seat.group for seat in lane.seats), lane.priority]
            return
        key = lane.key_at(0, {}) if lane.has_room else None
        if key != lane.key:
            lane.key = key
            if key is not None:
                heapq.heappush(self._heap, (key, lane))
        if len(self._heap) > 2 * len(self.lanes) + _SLACK:
            self._heap = self.entries()
            heapq.heapify(self._heap)

    def first(self) -> Lane | None:
        """The lane whose head is next."""
        while self._heap and self._heap[0][0] != self._heap[0][1].key:
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap else None

    def entries(self) -> list[tuple[Key, Lane]]:
        """Key and lane of those that could be next, each once."""
        return list({lane: (key, lane) for key, lane in self._heap if key == lane.key}.values())


def in_order(pools: Iterable[Pool], most: int) -> list[str]:
    """UIDs in the order in which slots would go out if the limits were endless."""
    heap = [(key, lane, 0) for pool in pools for key, lane in pool.entries()]
    heapq.heapify(heap)
    more: Counter[Group] = Counter()
    order: list[str] = []
    while heap and len(order) < most:
        key, lane, place = heap[0]
        now = lane.key_at(place, more)
        if now != key:
            heapq.heapreplace(heap, (now, lane, place))
            continue
        order.append(lane.waiting[place][1])
        more.update(seat.group for seat in lane.seats)
        if place + 1 < len(lane.waiting):
            heapq.heapreplace(heap, (lane.key_at(place + 1, more), lane, place + 1))
        else:
            heapq.heappop(heap)
    return order


def in_own_order(lanes: Iterable[Lane], most: int) -> list[str]:
    """UIDs of those who wait for the same group to have room, by priority and arrival."""
    queues: Sequence[Iterable[tuple[int, Arrival, str]]] = [
        [(-lane.priority, *entry) for entry in lane.waiting[:most]] for lane in lanes
    ]
    return [uid for _, _, uid in islice(heapq.merge(*queues), most)]
