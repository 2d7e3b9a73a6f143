"""Who gets a slot, who waits and why, who is turned away, and who makes room: the decision on a ledger.

Invariants (docs/architecture.md): no grant takes a count above a limit; nobody waits at rest while a slot that they may use is
free; a free slot goes by priority, then by the lowest dominant share, then first come first served (lanes.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentsession_operator.api.conditions import SuspendedReason
from agentsession_operator.api.objects import Quota
from agentsession_operator.decisions.quotas import wording
from agentsession_operator.decisions.quotas.claims import Claim
from agentsession_operator.decisions.quotas.lanes import Blocked, Lane, Pool, in_order, in_own_order
from agentsession_operator.decisions.quotas.ledger import Entry, Ledger
from agentsession_operator.decisions.quotas.replacement import Replacements
from agentsession_operator.decisions.quotas.verdict import Displaced, TurnedAway, Verdict

POSITIONS_SHOWN: Final = 50
"""Sessions further back are not told their position: it would cost a write each whenever anyone moves."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a decision changes."""

    grants: Sequence[str] = ()
    """UIDs that get a slot, in the order in which they get it. The ledger counts them as holders."""
    news: Sequence[str] = ()
    """UIDs whose verdict is new, or who are to make room."""
    more: bool = False
    """Whether further slots could have been granted. Then nobody who waits has been told anything."""


class Admission:
    """The ledger, and what its sessions have been told."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._replacements = Replacements()
        self._refusals: dict[str, TurnedAway] = {}
        self._positions: dict[str, int] = {}
        self._drained: list[str] = []
        """Sessions that a change of the quotas or labels drains, and that have not been told."""

    # What changes.

    def put(self, uid: str, claim: Claim | None) -> None:
        """What a session claims now; None for nothing."""
        if not self.ledger.put(uid, claim):
            return
        entry = self.ledger.entries.get(uid)
        self._replacements.update(uid, claim, entry.seats if entry is not None else ())
        if entry is None or claim is None or claim.holds:
            self._positions.pop(uid, None)
            self._refusals.pop(uid, None)

    def set_quotas(self, quotas: Iterable[Quota]) -> None:
        """The quotas are these now."""
        self.ledger.set_quotas(quotas)
        self._look_again(list(self.ledger.entries))

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """The labels of a namespace are these now; None when it is gone."""
        self._look_again(self.ledger.set_namespace(name, labels))

    def _look_again(self, uids: Iterable[str]) -> None:
        for uid in uids:
            entry = self.ledger.entries[uid]
            self._replacements.update(uid, entry.claim, entry.seats)
            if self.displaced(uid) is not None:
                self._drained.append(uid)

    # The decision.

    def decide(self, most: int) -> Plan:
        """Grant up to `most` of the free slots; when none is left, answer those who asked for the first time."""
        ledger = self.ledger
        grants: list[str] = []
        drained, self._drained = self._drained, []
        # 1. The slot that a replaced session has left is its successor's.
        for uid in self._replacements.take_heirs():
            heir = ledger.entries.get(uid)
            if heir is not None and heir.lane is not None and _has_room(heir.lane):
                grants.append(self._grant(heir))
        # 2. The others, in the order of their lanes.
        while (lane := ledger.next_lane()) is not None and len(grants) < most:
            grants.append(self._grant(ledger.entries[lane.waiting[0][1]]))
        if lane is not None:
            return Plan(grants, drained, more=True)
        # 3. Those who found no room wait or are turned away; somebody may make room for them.
        answered = self._answer()
        news = [*drained, *answered, *self._told_something_new(), *self._make_room()]
        return Plan(grants, list(dict.fromkeys(news)))

    def _grant(self, entry: Entry) -> str:
        uid = entry.claim.uid
        self.ledger.grant(entry)
        self._positions.pop(uid, None)
        self._replacements.granted(uid)
        return uid

    def _answer(self) -> list[str]:
        """Those who were not decided on, in the order of arrival: the queue's last places go to the first who came."""
        entries = sorted((self.ledger.entries[uid] for uid in self.ledger.fresh), key=lambda entry: entry.claim.arrival)
        for entry in entries:
            if entry.lane is None or entry.accepted:
                continue
            if (refusal := _refusal(entry, entry.lane)) is None:
                self.ledger.accept(entry)
            else:
                self._refusals[entry.claim.uid] = refusal
                self.ledger.turn_away(entry)
        self.ledger.fresh.clear()
        self._place({entry.claim.uid: entry.lane for entry in entries if entry.lane is not None})
        return [entry.claim.uid for entry in entries]

    def _told_something_new(self) -> Iterator[str]:
        """The sessions of those lanes that wait for something else than they were told."""
        ledger = self.ledger
        for pool in ledger.pools.values():
            if (now := pool.stopped_by) != pool.told:
                pool.told = now
                ledger.touched.update(dict.fromkeys(pool.lanes.values()))
        for lane in ledger.touched:
            if (blocked := lane.blocked()) != lane.told:
                lane.told = blocked
                yield from [uid for _, uid in lane.waiting]

    # Making room.

    def _make_room(self) -> Iterator[str]:
        """The sessions that have been idle longest, for those who find nothing but full quotas that replace such."""
        for pool in self.ledger.pools.values():
            most = self._replacements.idle(pool.limits)
            yield from self._seek(pool, in_order([pool], most))
        for lane in self._lanes_to_look_at():
            yield from self._seek(lane.pool, (uid for _, uid in lane.waiting))

    def _lanes_to_look_at(self) -> list[Lane]:
        """The lanes without room in a group for which somebody may have become idle; the others found nobody the last time."""
        ledger = self.ledger
        groups, alone = self._replacements.take_changed()
        lanes = {*ledger.touched, *(lane for group in groups for lane in ledger.lanes_of(group))}
        lanes |= {entry.lane for uid in alone if (entry := ledger.entries.get(uid)) is not None and entry.lane is not None}
        ledger.touched.clear()
        return [lane for _, lane in sorted((lane.place_at(0), lane) for lane in lanes if lane in lane.pool.full)]

    def _seek(self, pool: Pool, waiting: Iterable[str]) -> Iterator[str]:
        """Find somebody to make room for each of these. They wait for the same, the highest priority first: where there is
        nobody for one of them, there is nobody for those behind."""
        if any(limit.held_up for limit in pool.limits):
            return
        for uid in waiting:
            entry = self.ledger.entries[uid]
            if entry.lane is None or not entry.claim.first or self._replacements.awaits(uid):
                continue
            full = entry.lane.full()
            if not full or any(each.limit.rules.when_full != "ReplaceOldestIdle" for each in full):
                return
            if (idle := self._replacements.find(entry.claim, full)) is None:
                return
            yield idle

    def displaced(self, uid: str) -> Displaced | None:
        """Whether a session that holds a slot is to give it back."""
        entry = self.ledger.entries.get(uid)
        if entry is None or not entry.claim.holds:
            return None
        if (successor := self._replacements.successor(uid)) is not None:
            return Displaced(SuspendedReason.REPLACED, successor)
        drains = any(seat.limit.drains for seat in entry.seats)
        if drains and entry.claim.persistent and entry.claim.idle_since is not None:
            return Displaced(SuspendedReason.QUOTA_HELD)
        return None

    # What is told.

    def verdict(self, uid: str) -> Verdict | None:
        """Why a session waits or was turned away, as of the last decision. None where it does not ask, or is not decided on."""
        if (refusal := self._refusals.get(uid)) is not None:
            return refusal
        entry = self.ledger.entries.get(uid)
        if entry is None or entry.lane is None or entry.lane.told is None or uid in self.ledger.fresh:
            return None
        return wording.wait(entry.lane.told, self._positions.get(uid))

    def moved(self, most: int) -> list[str]:
        """Count the positions again. UIDs of up to `most` sessions that have another one than they were told, the foremost
        first; the others keep theirs until the next call."""
        now: dict[str, int] = {}
        for blocked in set().union(*(pool.blocked() for pool in self.ledger.pools.values())):
            now |= self._places(blocked)
        changed = [uid for uid in {**now, **self._positions} if now.get(uid) != self._positions.get(uid)]
        changed.sort(key=lambda uid: now.get(uid, POSITIONS_SHOWN + 1))
        for uid in changed[:most]:
            if uid in now:
                self._positions[uid] = now[uid]
            else:
                del self._positions[uid]
        return changed[:most]

    def _place(self, waiting: Mapping[str, Lane]) -> None:
        """Give those who begin to wait their positions."""
        for blocked in {lane.blocked() for lane in waiting.values()}:
            self._positions |= {uid: place for uid, place in self._places(blocked).items() if uid in waiting}

    def _places(self, blocked: Blocked) -> dict[str, int]:
        """The positions of those who wait for the same. Others may be between them, who wait for another limit as well."""
        ledger = self.ledger
        if blocked.group is not None:
            order = in_own_order(ledger.lanes_of(blocked.group), POSITIONS_SHOWN)
        else:
            order = in_order((pool for pool in ledger.pools.values() if blocked.limit in pool.limits), POSITIONS_SHOWN)
        return {uid: place for place, uid in enumerate(order, start=1) if ledger.waits_for(uid) == blocked}


def _has_room(lane: Lane) -> bool:
    return lane in lane.pool.open and not lane.pool.stopped_by


def _refusal(entry: Entry, lane: Lane) -> TurnedAway | None:
    """Why a session that asks for the first time is turned away. What binds it and rejects comes before the queue."""
    if not any(seat.limit.held_up for seat in entry.seats):
        for full in lane.full():
            if full.limit.rules.when_full == "Reject":
                return wording.rejected(full)
    for seat in entry.seats:
        rules = seat.limit.rules
        if seat.group.waiting >= rules.max_waiting_per_user:
            return wording.queue_is_full(seat.limit, seat.group)
        if seat.limit.waiting >= rules.max_waiting:
            return wording.queue_is_full(seat.limit, None)
    return None
