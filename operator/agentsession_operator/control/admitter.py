"""The one coroutine that admits sessions: a snapshot of the ledger, a decision, the creations.

The pod is the reservation: with its pod's creation a session holds a slot, and nothing else admits a session. A pass ends when
each of its creations has ended, so the next pass counts their results. wakeups.py says what wakes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Final

from agentsession_operator import metrics
from agentsession_operator.api.objects import SessionUID, UnreadableObject
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError
from agentsession_operator.control.books import Books
from agentsession_operator.control.session_objects import Outcome, SessionObjects
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.decisions.persistent import workspace_of
from agentsession_operator.decisions.quotas.admission import POSITIONS_SHOWN
from agentsession_operator.decisions.quotas.claims import asks
from agentsession_operator.decisions.resolve import Resolved, resolve

BATCH: Final = 64
"""Creations between two counts of the holders."""
CONCURRENT_WRITES: Final = 16
POSITION_REFRESH_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class Admitter:
    """Gives slots to sessions, in passes."""

    def __init__(
        self, cache: Cache, objects: SessionObjects, queue: WorkQueue[SessionUID], wakeups: Wakeups, books: Books
    ) -> None:
        self._cache, self._objects, self._queue, self._due, self._books = cache, objects, queue, wakeups.admission, books
        self._positions_told = float("-inf")
        self._read_before: set[SessionUID] | None = set()
        """Sessions that were read since this process started; None once the watches are known to be in step, and then a cached
        session is trusted. Between the first list and the start of the watches a deletion goes unseen."""

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
        self._books.bring_up_to_date()
        plan = self._books.admission.decide(BATCH)
        metrics.ADMISSION_SECONDS.observe(time.perf_counter() - started)
        for uid in (*plan.news, *self._moved()):
            self._queue.add(SessionUID(uid))
        # 2. Create. Each creation ends by itself: refused, unanswered or cut off by a lost lease, it ends no other.
        limit = asyncio.Semaphore(CONCURRENT_WRITES)
        outcomes = Counter(await asyncio.gather(*(self._admit(SessionUID(uid), limit) for uid in plan.grants)))
        self._books.recount(plan.grants)  # what was not created has given its slot back
        metrics.ADMISSIONS.inc(outcomes[Outcome.CREATED])
        held, waiting = self._books.admission.ledger.held, self._books.admission.ledger.waiting
        metrics.SLOTS_USED.set(held)
        metrics.SESSIONS_WAITING.set(waiting)
        if plan.grants or plan.news:
            log.info(
                "admission pass: granted %d (%s), held %d, waiting %d (%d with a new reason), %.0f ms",
                len(plan.grants),
                ", ".join(f"{count} {outcome.value}" for outcome, count in sorted(outcomes.items(), key=str)) or "none",
                held,
                waiting,
                len(plan.news),
                (time.perf_counter() - started) * 1000,
            )
        if outcomes[Outcome.NOT_SENT]:
            await asyncio.sleep(RETRY_SECONDS)  # no lease, or no answer to a read: the same would follow at once
        if plan.more or outcomes[Outcome.REFUSED] or outcomes[Outcome.NOT_SENT]:
            self._due.set()

    def _moved(self) -> list[str]:
        """Sessions that have moved up in the queue. A position costs a write: it is told every 30 s, to the foremost only."""
        if time.monotonic() - self._positions_told < POSITION_REFRESH_SECONDS:
            return []
        self._positions_told = time.monotonic()
        return self._books.admission.moved(POSITIONS_SHOWN)

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
