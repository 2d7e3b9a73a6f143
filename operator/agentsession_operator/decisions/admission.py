"""Who gets a slot: the quota checks, as a function of a ledger.

Invariants (docs/architecture.md): never more holders than the cap; nobody waits at rest while a slot that they may use
is free; a free slot goes to the user with the fewest holders, then first come first served.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentsession_operator.api.conditions import AdmittedReason
from agentsession_operator.api.objects import Quota
from agentsession_operator.api.quota import DEFAULT_MAX_SESSIONS, DEFAULT_MAX_SESSIONS_PER_USER


@dataclass(frozen=True, slots=True)
class Caps:
    """How many sessions may hold a slot at once."""

    sessions: int
    per_user: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A session that asks for a slot."""

    uid: str
    user: str
    arrived: tuple[str, str, str]
    """Time of asking, namespace and name: first come, first served, the same for every observer."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Who holds a slot and who asks for one, at one moment."""

    holders: Sequence[str]
    """The user of each slot that is held."""
    waiting: Sequence[Waiting]
    leftovers: Sequence[str] = ()
    """Pods that hold a slot though their session is gone, as NAMESPACE/NAME."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a session waits, and at which place."""

    reason: AdmittedReason
    message: str
    position: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the quotas say to a ledger."""

    grants: Sequence[str]
    """UIDs that get a slot, in the order in which they get it."""
    waits: dict[str, Wait]
    """For every other UID that asks."""


def caps_of(quotas: Iterable[Quota]) -> Caps | None:
    """The caps that all quotas leave; None when one of them cannot be read, and then nothing may be admitted."""
    specs = [quota.spec for quota in quotas]
    if not specs:
        return Caps(DEFAULT_MAX_SESSIONS, DEFAULT_MAX_SESSIONS_PER_USER)
    readable = [spec for spec in specs if spec is not None]
    if len(readable) < len(specs):
        return None
    return Caps(min(spec.max_sessions for spec in readable), min(spec.max_sessions_per_user for spec in readable))


def plan(ledger: Ledger, caps: Caps) -> Plan:
    """Give the free slots away, and tell everybody else why they wait.

    Takes O(n log u) for n waiting sessions of u users: 5,000 waiting sessions take some milliseconds.
    """
    # 1. Put everybody in the order in which slots would go out if they were endless.
    order = _fair_order(ledger)
    # 2. Hand out what is free, passing over users at their own cap: they must not block the others.
    held, total = Counter(ledger.holders), len(ledger.holders)
    grants: list[str] = []
    for session in order:
        if total >= caps.sessions:
            break
        if held[session.user] < caps.per_user:
            grants.append(session.uid)
            held[session.user] += 1
            total += 1
    # 3. The rest wait, for the cap that binds them; the user's own before the global one.
    granted = set(grants)
    rest = (session for session in order if session.uid not in granted)
    full, others = _user_is_full(caps), _all_slots_are_used(total, caps)
    waits = {
        session.uid: Wait(*(full if held[session.user] >= caps.per_user else others), position)
        for position, session in enumerate(rest, start=1)
    }
    return Plan(grants, waits)


def _fair_order(ledger: Ledger) -> list[Waiting]:
    """Fewest holders first, each grant counted at once, then first come first served."""
    queues: defaultdict[str, deque[Waiting]] = defaultdict(deque)
    for session in sorted(ledger.waiting, key=lambda session: session.arrived):
        queues[session.user].append(session)
    held = Counter(ledger.holders)
    heads = [(held[user], queue[0].arrived, user) for user, queue in queues.items()]
    heapq.heapify(heads)
    order: list[Waiting] = []
    while heads:
        holding, _, user = heads[0]
        queue = queues[user]
        order.append(queue.popleft())
        if queue:
            heapq.heapreplace(heads, (holding + 1, queue[0].arrived, user))
        else:
            heapq.heappop(heads)
    return order


def _user_is_full(caps: Caps) -> tuple[AdmittedReason, str]:
    return AdmittedReason.USER_LIMIT_REACHED, (
        f"Queued: the user has reached the maximum of {caps.per_user} concurrent sessions. The session starts by itself "
        f"when one of them ends or is suspended."
    )


def _all_slots_are_used(total: int, caps: Caps) -> tuple[AdmittedReason, str]:
    return AdmittedReason.GLOBAL_LIMIT_REACHED, (
        f"Queued: all slots are in use ({total}/{caps.sessions} sessions). The session starts by itself when one is free."
    )
