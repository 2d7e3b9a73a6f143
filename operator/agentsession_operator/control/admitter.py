"""One coroutine admits sessions, and nothing else does: it counts, decides, and writes the reservation before a pod exists.

wakeups.py lists what wakes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from agentsession_operator import metrics
from agentsession_operator.api.meta import SESSIONS
from agentsession_operator.api.objects import Session, SessionUID, UnreadableObject
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi, path_of
from agentsession_operator.cluster.lease import NotLeader
from agentsession_operator.control.repeats import Repeats
from agentsession_operator.control.session_objects import SessionObjects
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.decisions.admission import Plan, Wait, caps_of, plan
from agentsession_operator.decisions.decide import POSITIONS_SHOWN, decide
from agentsession_operator.decisions.facts import Facts, Granted
from agentsession_operator.decisions.ledger import build_ledger
from agentsession_operator.decisions.patch import merge_patch
from agentsession_operator.decisions.resolve import Misconfigured, resolve

BATCH: Final = 64
"""Reservations written between two counts of the holders."""
CONCURRENT_WRITES: Final = 16
POSITION_REFRESH_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counts:
    """How full the quotas are, as of the last pass."""

    held: int = 0
    waiting: int = 0


class Admitter:
    """Gives slots to sessions, in passes."""

    def __init__(
        self, api: KubeApi, cache: Cache, objects: SessionObjects, queue: WorkQueue[SessionUID], wakeups: Wakeups
    ) -> None:
        self._api, self._cache, self._objects = api, cache, objects
        self._queue, self._due = queue, wakeups.admission
        self._verdicts: dict[SessionUID, Wait] = {}
        self._positions_published = float("-inf")
        self._in_doubt: dict[SessionUID, str] = {}
        """Reservations whose write was not answered, with their user. They count as written until a read says otherwise."""
        self._errors: Repeats[str] = Repeats()
        self.counts = Counts()

    def verdict(self, uid: SessionUID) -> Wait | None:
        """Why a session waits, as of the last pass that changed the reason."""
        return self._verdicts.get(uid)

    async def run(self) -> None:
        """Admit until cancelled."""
        while True:
            try:
                async with asyncio.timeout(POSITION_REFRESH_SECONDS):
                    await self._due.wait()
            except TimeoutError:
                pass  # time to refresh positions
            self._due.clear()
            if not self._cache.complete:
                continue
            try:
                await self._settle_doubts()
                await self._pass()
                self._errors.forget("pass")
            except (ApiError, NotLeader) as error:
                level = logging.WARNING if self._errors.is_news("pass", error) else logging.DEBUG
                log.log(level, "admission: trying again every %.0f s: %s", RETRY_SECONDS, error)
                await asyncio.sleep(RETRY_SECONDS)
                self._due.set()

    async def _pass(self) -> None:
        # 1. Count and decide, from what is in the cache at this moment. No await from here to 2.
        started = time.perf_counter()
        decision, held = self._decide()
        grants = [SessionUID(uid) for uid in decision.grants[:BATCH]]
        waiting = len(decision.waits) + len(decision.grants) - len(grants)
        self.counts = Counts(held + len(grants), waiting)
        metrics.ADMISSION_SECONDS.observe(time.perf_counter() - started)
        metrics.SLOTS_USED.set(self.counts.held)
        metrics.SESSIONS_WAITING.set(self.counts.waiting)
        news = self._publish({SessionUID(uid): wait for uid, wait in decision.waits.items()})
        # 2. Write the reservations.
        limit = asyncio.Semaphore(CONCURRENT_WRITES)
        written = await asyncio.gather(*(self._reserve(uid, limit) for uid in grants))
        if grants or news:
            log.info(
                "admission pass: granted %d, held %d, waiting %d (%d with a new reason), %.0f ms",
                sum(written),
                self.counts.held,
                self.counts.waiting,
                news,
                (time.perf_counter() - started) * 1000,
            )
        if len(decision.grants) > BATCH:
            self._due.set()

    def _decide(self) -> tuple[Plan, int]:
        """What the quotas say to the present ledger, and how many slots are held."""
        cache, classes = self._cache, self._cache.classes_by_name()
        unsettled: dict[str, str] = {
            uid: user for source in (self._in_doubt, self._objects.creating()) for uid, user in source.items()
        }
        ledger = build_ledger(cache.sessions.all(), cache.pods.all(), classes, unsettled)
        caps = caps_of(cache.quotas.all())
        if caps is not None:
            return plan(ledger, caps), len(ledger.holders)
        unreadable = "A SessionQuota cannot be read. No session is admitted until the quota is fixed or deleted."
        waits = {item.uid: Wait("Queued", unreadable, place) for place, item in enumerate(ledger.waiting, start=1)}
        return Plan((), waits), len(ledger.holders)

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

    async def _reserve(self, uid: SessionUID, limit: asyncio.Semaphore) -> bool:
        """Write Admitted=True on exactly the version of the session that was counted. False if it was not written."""
        async with limit:
            session = self._cache.sessions.get(uid)
            if session is None or session.admitted or session.meta.deleting or session.spec.suspend:
                return False
            resolved = resolve(session.spec, self._cache.classes_by_name())
            if isinstance(resolved, Misconfigured):
                return False  # the class was deleted a moment ago
            decision = decide(Facts(session, resolved, None, verdict=Granted()), datetime.now(UTC))
            patch = merge_patch(session.status.to_wire(), decision.status.to_wire())
            try:
                answer = await self._api.patch_status(_path(session), session.meta.version, patch)
            except ApiError as error:
                await self._failed(session, error)
                return False
            metrics.ADMISSIONS.inc()
            self._cache.sessions.put(Session.of(answer))
            self._queue.add(uid)
            return True

    async def _failed(self, session: Session, error: ApiError) -> None:
        if error.outcome_unknown:
            self._in_doubt[session.meta.uid] = session.spec.user
            log.warning("session %s/%s: no answer to its admission: %s", session.meta.namespace, session.meta.name, error)
        elif not error.conflict and not error.gone:
            raise error
        # Conflict: another client wrote in between. Not found: it was deleted. A read shows which version counts now.
        await self._read_again(session)
        self._due.set()

    async def _settle_doubts(self) -> None:
        for uid in list(self._in_doubt):
            session = self._cache.sessions.get(uid)
            if session is None:
                del self._in_doubt[uid]
            else:
                await self._read_again(session)

    async def _read_again(self, session: Session) -> None:
        """Bring the cache up to date with one read, which settles a doubt. Raises ApiError if it cannot."""
        uid = session.meta.uid
        try:
            current = Session.of(await self._api.get(_path(session)))
        except UnreadableObject:
            return
        except ApiError as error:
            if not error.gone:
                raise
            self._cache.sessions.remove(uid)
        else:
            if current.meta.uid == uid:
                self._cache.sessions.put(current)
            else:
                self._cache.sessions.remove(uid)
        self._in_doubt.pop(uid, None)


def _path(session: Session) -> str:
    return path_of(SESSIONS, session.meta.namespace, session.meta.name)
