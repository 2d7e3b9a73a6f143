"""The one coroutine that admits sessions: a snapshot of the ledger, a decision, the creations.

The pod is the reservation: with its pod's creation a session holds a slot, and nothing else admits a session. A pass ends when
each of its creations has ended, so the next pass counts their results. wakeups.py says what wakes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentsession_operator import metrics
from agentsession_operator.api.conditions import AdmittedReason
from agentsession_operator.api.objects import SessionUID, UnreadableObject
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError
from agentsession_operator.control.session_objects import Outcome, SessionObjects
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.decisions.admission import Ledger, Plan, Wait, caps_of, plan
from agentsession_operator.decisions.decide import POSITIONS_SHOWN
from agentsession_operator.decisions.ledger import Startable, asks, build_ledger
from agentsession_operator.decisions.persistent import workspace_of
from agentsession_operator.decisions.resolve import Resolved, resolve

BATCH: Final = 64
"""Creations between two counts of the holders."""
CONCURRENT_WRITES: Final = 16
POSITION_REFRESH_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counts:
    """How full the quotas are, as of the last pass."""

    held: int = 0
    waiting: int = 0
    leftovers: Sequence[str] = ()
    """Pods that hold a slot though their session is gone, as NAMESPACE/NAME."""


class Admitter:
    """Gives slots to sessions, in passes."""

    def __init__(self, cache: Cache, objects: SessionObjects, queue: WorkQueue[SessionUID], wakeups: Wakeups) -> None:
        self._cache, self._objects, self._queue, self._due = cache, objects, queue, wakeups.admission
        self._verdicts: dict[SessionUID, Wait] = {}
        self._positions_published = float("-inf")
        self._startable: Startable | None = None
        self._read_before: set[SessionUID] | None = set()
        """Sessions that were read since this process started; None once the watches are known to be in step, and then a cached
        session is trusted. Between the first list and the start of the watches a deletion goes unseen."""
        self.counts = Counts()

    def verdict(self, uid: SessionUID) -> Wait | None:
        """Why a session waits, as of the last pass that changed the reason."""
        return self._verdicts.get(uid)

    def trust_the_watches(self) -> None:
        """The caches have been compared with a list since the watches began: no session is read before its pod is created."""
        self._read_before = None

    def distrust_the_watches(self) -> None:
        """The watches begin again, and may have missed a deletion: each session is read once before its pod is created."""
        self._read_before = set()

    async def run(self) -> None:
        """Admit until cancelled."""
        while True:
            try:
                async with asyncio.timeout(min(POSITION_REFRESH_SECONDS, self._objects.next_due())):
                    await self._due.wait()
            except TimeoutError:
                pass  # positions to refresh, a refused session that may ask again, or a doubt to settle
            self._due.clear()
            if not self._cache.complete:
                continue
            await self._objects.settle()
            await self._pass()

    async def _pass(self) -> None:
        # 1. Count and decide, from what is in the cache at this moment. No await from here to 2.
        started = time.perf_counter()
        decision, ledger = self._decide()
        held = len(ledger.holders)
        grants = [SessionUID(uid) for uid in decision.grants[:BATCH]]
        metrics.ADMISSION_SECONDS.observe(time.perf_counter() - started)
        told = self._publish({SessionUID(uid): wait for uid, wait in decision.waits.items()})
        # 2. Create. Each creation ends by itself: refused, unanswered or cut off by a lost lease, it ends no other.
        limit = asyncio.Semaphore(CONCURRENT_WRITES)
        outcomes = Counter(await asyncio.gather(*(self._admit(uid, limit) for uid in grants)))
        created = outcomes[Outcome.CREATED] + outcomes[Outcome.UNKNOWN]
        self.counts = Counts(held + created, len(decision.waits) + len(decision.grants) - created, ledger.leftovers)
        metrics.SLOTS_USED.set(self.counts.held)
        metrics.SESSIONS_WAITING.set(self.counts.waiting)
        metrics.ADMISSIONS.inc(outcomes[Outcome.CREATED])
        if grants or told:
            log.info(
                "admission pass: granted %d (%s), held %d, waiting %d (%d with a new reason), %.0f ms",
                len(grants),
                ", ".join(f"{count} {outcome.value}" for outcome, count in sorted(outcomes.items(), key=str)) or "none",
                self.counts.held,
                self.counts.waiting,
                told,
                (time.perf_counter() - started) * 1000,
            )
        if outcomes[Outcome.NOT_SENT]:
            await asyncio.sleep(RETRY_SECONDS)  # no lease, or no answer to a read: the same would follow at once
        if len(decision.grants) > BATCH or outcomes[Outcome.REFUSED] or outcomes[Outcome.NOT_SENT]:
            self._due.set()

    def _decide(self) -> tuple[Plan, Ledger]:
        """What the quotas say to the present ledger."""
        cache = self._cache
        ledger = build_ledger(
            cache.sessions.all(),
            cache.pods.all(),
            self._startable_now(),
            self._objects.creating(),
            self._objects.backs_off,
        )
        caps = caps_of(cache.quotas.all())
        if caps is not None:
            return plan(ledger, caps), ledger
        unreadable = "A SessionQuota cannot be read. No session is admitted until the quota is fixed or deleted."
        waits = {item.uid: Wait(AdmittedReason.QUEUED, unreadable, place) for place, item in enumerate(ledger.waiting, start=1)}
        return Plan((), waits), ledger

    def _startable_now(self) -> Startable:
        """By the classes as they are; a class that changed makes another object."""
        classes = self._cache.classes_by_name()
        if self._startable is None or self._startable.classes != classes:
            self._startable = Startable(classes)
        return self._startable

    def _publish(self, waits: dict[SessionUID, Wait]) -> int:
        """Pass verdicts on; returns how many sessions have a new reason to wait.

        A new reason is passed on at once. A new position is passed on every 30 s and near the front only: it costs a write.
        """
        refresh = time.monotonic() - self._positions_published >= POSITION_REFRESH_SECONDS
        if refresh:
            self._positions_published = time.monotonic()
        for uid in self._verdicts.keys() - waits.keys():
            del self._verdicts[uid]
        news = 0
        for uid, wait in waits.items():
            before = self._verdicts.get(uid)
            near = wait.position <= POSITIONS_SHOWN or (before is not None and before.position <= POSITIONS_SHOWN)
            new_reason = before is None or before.reason != wait.reason
            if new_reason or (refresh and near and before != wait):
                news += new_reason
                self._verdicts[uid] = wait
                self._queue.add(uid)
        return news

    async def _admit(self, uid: SessionUID, limit: asyncio.Semaphore) -> Outcome:
        """Create the session's pod, unless the session has changed its mind since it was counted."""
        async with limit:
            session = self._cache.sessions.get(uid)
            unread = self._read_before is not None and uid not in self._read_before
            if session is not None and (unread or not session.whole):
                try:
                    session = await self._objects.read_session(session)
                except (ApiError, UnreadableObject) as error:
                    log.info("session UID %s: cannot be read before its pod is created: %s", uid, error)
                    return Outcome.NOT_SENT
                if self._read_before is not None:
                    self._read_before.add(uid)
            if session is None or session.admitted or not asks(session):
                return Outcome.REFUSED
            resolved = resolve(session.spec, self._cache.classes_by_name())
            if not isinstance(resolved, Resolved):
                return Outcome.REFUSED  # the class was deleted a moment ago
            outcome = await self._objects.create(session, resolved, workspace_of(session, resolved))
            self._queue.add(uid)
            return outcome
