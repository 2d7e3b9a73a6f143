"""The ledger: who holds a slot and who asks for one, counted claim by claim.

A change costs what it changes: `put` moves the counts of one session. Nothing here looks at all sessions, except when the
quotas change, and in `miscounts`, which checks the counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from agentsession_operator.api.objects import Quota
from agentsession_operator.api.quota import QuotaScope, SessionQuotaSpec
from agentsession_operator.decisions.quotas.claims import NOT_TOLD, Claim
from agentsession_operator.decisions.quotas.lanes import Blocked, Lane, Pool, Seat
from agentsession_operator.decisions.quotas.limits import BUILT_IN, Group, Limit


@dataclass(slots=True)
class Entry:
    """One claim, and where it counts."""

    claim: Claim
    seats: tuple[Seat, ...]
    lane: Lane | None = None
    """Where it waits; None for a holder, and for a session that was turned away."""
    accepted: bool = False
    """Whether its place in the queue is its own, and counted."""


class Ledger:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        """By the session's UID."""
        self.limits: dict[str, Limit] = {}
        """By the quota's UID."""
        self.built_in = _built_in()
        self.pools: dict[tuple[Limit, ...], Pool] = {}
        self.fresh: dict[str, None] = {}
        """Sessions that ask and have not been through a decision."""
        self.touched: dict[Lane, None] = {}
        """Lanes whose sessions may wait for something else than they were told."""
        self.held = 0
        """Sessions that hold a slot."""
        self.waiting = 0
        """Sessions that stand in a lane."""
        self._leftovers: dict[str, str] = {}
        self._turned_away: set[str] = set()
        self._accepted: set[str] = set()
        """Sessions that keep a place in the queue, or had a slot, although their status does not say so yet."""
        self._labels: dict[str, Mapping[str, str]] = {}
        self._in_namespace: dict[str, set[str]] = {}
        self._selected: dict[tuple[str, str | None], tuple[Limit, ...]] = {}
        self._lanes_of: dict[Group, dict[Lane, None]] = {}
        self._lanes = 0
        """Lanes that there ever were."""

    # What changes.

    def put(self, uid: str, claim: Claim | None) -> bool:
        """What a session claims now; None for nothing. False if that is no news."""
        before = self.entries.get(uid)
        if (before.claim if before is not None else None) == claim:
            return False
        if before is not None and before.accepted and claim == replace(before.claim, accepted=True):
            before.claim = claim  # its status says so now, and nothing else has changed
            return False
        if before is not None:
            self._take_out(before)
        if claim is None or claim.holds:
            self._turned_away.discard(uid)
        if claim is None:
            self._accepted.discard(uid)
        else:
            self._take_in(claim)
        return True

    def grant(self, entry: Entry) -> None:
        """The session gets a slot. It is not turned away any more, even if its creation is refused."""
        self._take_out(entry)
        self._accepted.add(entry.claim.uid)
        self._take_in(replace(entry.claim, holds=True))

    def accept(self, entry: Entry) -> None:
        """The session keeps its place in the queue."""
        self._accepted.add(entry.claim.uid)
        entry.accepted = True
        for seat in entry.seats:
            seat.limit.waiting += 1
            seat.group.waiting += 1

    def turn_away(self, entry: Entry) -> None:
        """The session asks no longer, although its status does not say so yet."""
        self._turned_away.add(entry.claim.uid)
        self._leave_lane(entry)

    def set_quotas(self, quotas: Iterable[Quota]) -> None:
        """The quotas are these now. Everything is counted again."""
        self.limits = {quota.meta.uid: Limit(quota.meta.name, quota.spec, quota.scope) for quota in quotas}
        self.built_in = _built_in()
        self._selected.clear()
        decided = [uid for uid in self.entries if uid not in self.fresh]
        claims = [entry.claim for entry in self.entries.values()]
        for counted in (self.entries, self.pools, self.touched, self._leftovers, self._in_namespace, self._lanes_of):
            counted.clear()
        self.held = self.waiting = 0
        # No lane moves because of a holder who comes first.
        self._take_back(sorted(claims, key=lambda claim: not claim.holds), decided)

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> list[str]:
        """The labels of a namespace are these now; None when it is gone. Returns the sessions that are counted again."""
        if labels is None:
            self._labels.pop(name, None)
        else:
            self._labels[name] = labels
        for key in [key for key in self._selected if key[0] == name]:
            del self._selected[key]
        uids = sorted(self._in_namespace.get(name, ()))
        entries = [self.entries[uid] for uid in uids]
        decided = [uid for uid in uids if uid not in self.fresh]
        for entry in entries:
            self._take_out(entry)
        self._take_back([entry.claim for entry in entries], decided)
        return uids

    def _take_back(self, claims: Iterable[Claim], decided: Iterable[str]) -> None:
        """Count claims that were out; who was decided on has a verdict, although other limits may count it now."""
        for claim in claims:
            self._take_in(claim)
        for uid in decided:
            self.fresh.pop(uid, None)

    # Taking in and out. Each is the other's inverse.

    def _take_in(self, claim: Claim) -> None:
        seats = tuple(Seat(limit, limit.group_of(claim.user)) for limit in self._select(claim.namespace, claim.class_name))
        entry = self.entries[claim.uid] = Entry(claim, seats)
        self._in_namespace.setdefault(claim.namespace, set()).add(claim.uid)
        if claim.leftover is not None:
            self._leftovers[claim.uid] = claim.leftover
        if claim.holds:
            self.held += 1
            self._count(seats, 1)
        elif claim.uid not in self._turned_away:
            self._join_lane(entry)

    def _take_out(self, entry: Entry) -> None:
        claim = entry.claim
        del self.entries[claim.uid]
        self._leftovers.pop(claim.uid, None)
        neighbors = self._in_namespace[claim.namespace]
        neighbors.discard(claim.uid)
        if not neighbors:
            del self._in_namespace[claim.namespace]
        if claim.holds:
            self.held -= 1
            self._count(entry.seats, -1)
        self._leave_lane(entry)
        for seat in entry.seats:
            if not (seat.group.held or seat.group.waiting or seat.group in self._lanes_of):
                seat.limit.forget(seat.group)

    def _join_lane(self, entry: Entry) -> None:
        claim, limits = entry.claim, tuple(seat.limit for seat in entry.seats)
        pool = self.pools.setdefault(limits, Pool(limits))
        self._lanes += 1
        lane = entry.lane = pool.lane_of(entry.seats, claim.priority, self._lanes)
        lane.add(claim.arrival, claim.uid)
        pool.update(lane)
        for seat in entry.seats:
            self._lanes_of.setdefault(seat.group, {})[lane] = None
        self.waiting += 1
        self.fresh[claim.uid] = None
        self.touched[lane] = None
        if claim.accepted or claim.uid in self._accepted:
            self.accept(entry)

    def _leave_lane(self, entry: Entry) -> None:
        if (lane := entry.lane) is None:
            return
        self.waiting -= 1
        lane.remove(entry.claim.arrival, entry.claim.uid)
        lane.pool.update(lane)
        if not lane.waiting:
            self._forget(lane)
        if not lane.pool.lanes:
            del self.pools[lane.pool.limits]
        self.fresh.pop(entry.claim.uid, None)
        if entry.accepted:
            for seat in entry.seats:
                seat.limit.waiting -= 1
                seat.group.waiting -= 1
        entry.lane, entry.accepted = None, False

    def _forget(self, lane: Lane) -> None:
        """Nobody stands in the lane any more."""
        self.touched.pop(lane, None)
        for seat in lane.seats:
            lanes = self._lanes_of[seat.group]
            del lanes[lane]
            if not lanes:
                del self._lanes_of[seat.group]

    def _count(self, seats: tuple[Seat, ...], change: int) -> None:
        for seat in seats:
            seat.limit.held += change
            seat.group.held += change
            for lane in self.lanes_of(seat.group):
                lane.pool.update(lane)
                self.touched[lane] = None

    def _select(self, namespace: str, class_name: str | None) -> tuple[Limit, ...]:
        """The limits that count such sessions; where it is not certain that any quota does, the built-in ones too."""
        key = namespace, class_name
        if (known := self._selected.get(key)) is None:
            labels = self._labels.get(namespace)
            answers = {limit: limit.counts(labels, class_name) for limit in self.limits.values()}
            limits = [limit for limit, answer in answers.items() if answer is not False]
            if True not in answers.values():
                limits.append(self.built_in)
            known = self._selected[key] = tuple(limits)
        return known

    # What is read.

    def next_lane(self) -> Lane | None:
        """The lane whose head gets the next slot."""
        heads = [lane for pool in self.pools.values() if not pool.stopped_by and (lane := pool.open.first()) is not None]
        return min(heads, key=lambda lane: lane.key_at(0, {}), default=None)

    def lanes_of(self, group: Group) -> Collection[Lane]:
        """The lanes in which a group waits."""
        return self._lanes_of.get(group, {})

    def waits_for(self, uid: str) -> Blocked | None:
        """What a session waits for; None for one that does not wait."""
        lane = self.entries[uid].lane
        return lane.blocked() if lane is not None else None

    def oldest_waiting(self, limit: Limit) -> str | None:
        """Since when the session that has waited longest for a limit has waited."""
        oldest = (pool.oldest.first() for pool in self.pools.values() if limit in pool.limits)
        times = (lane.waiting[0][0][0] for lane in oldest if lane is not None)
        return min((time for time in times if time != NOT_TOLD), default=None)

    def leftovers(self, limit: Limit | None = None) -> list[str]:
        """Pods that hold a slot (of a limit, if one is given) though their session is gone, as NAMESPACE/NAME."""
        return sorted(
            name
            for uid, name in self._leftovers.items()
            if limit is None or any(seat.limit is limit for seat in self.entries[uid].seats)
        )

    def miscounts(self) -> Iterator[str]:
        """Counts that a full count of the entries contradicts. There are none, or this module has a mistake."""
        held: Counter[Group] = Counter()
        waiting: Counter[Group] = Counter()
        for entry in self.entries.values():
            counter = held if entry.claim.holds else waiting
            if entry.claim.holds or entry.accepted:
                counter.update(seat.group for seat in entry.seats)
        for limit in (*self.limits.values(), self.built_in):
            groups = limit.groups()
            for group in groups:
                if (group.held, group.waiting) != (held[group], waiting[group]):
                    yield f"{limit.name}, {group.name}: {group.held} held, {group.waiting} waiting"
            if (limit.held, limit.waiting) != (sum(held[group] for group in groups), sum(waiting[group] for group in groups)):
                yield f"{limit.name}: {limit.held} held, {limit.waiting} waiting"


def _built_in() -> Limit:
    return Limit(BUILT_IN, SessionQuotaSpec(), QuotaScope())
