"""The one coroutine that admits: it counts, decides, and writes the reservation before there is a pod. No other door."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from agentsession_operator import metrics
from agentsession_operator.api.meta import SESSIONS
from agentsession_operator.api.objects import Session, UnreadableObject
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi, path_of
from agentsession_operator.cluster.lease import NotLeader
from agentsession_operator.decisions.admission import Plan, Wait, caps_of, plan
from agentsession_operator.decisions.decide import POSITIONS_SHOWN, decide
from agentsession_operator.decisions.facts import Facts, Granted
from agentsession_operator.decisions.ledger import build_ledger
from agentsession_operator.decisions.patch import merge_patch
from agentsession_operator.decisions.resolve import Misconfigured, resolve

BATCH: Final = 64
"""Reservations written between two counts."""
CONCURRENT_WRITES: Final = 16
POSITION_REFRESH_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class Admitter:
    """Gives slots away. `wake` it whenever somebody may have come for one or left one."""

    def __init__(self, api: KubeApi, cache: Cache, enqueue: Callable[[str], None]) -> None:
        self._api, self._cache, self._enqueue = api, cache, enqueue
        self._awake = asyncio.Event()
        self._verdicts: dict[str, Wait] = {}
        self._positions_told = float("-inf")
        self._in_doubt: dict[str, str] = {}
        """Reservations whose write was not answered, by UID: they count as written until a read says otherwise."""
        self.creating: dict[str, str] = {}
        """Pods that are being created, UID to user: the session may be deleted before the answer is here."""
        self.used = self.queued = 0

    def wake(self) -> None:
        """Look again, soon."""
        self._awake.set()

    def verdict(self, uid: str) -> Wait | None:
        """Why a session waits, as of the last pass that changed the reason."""
        return self._verdicts.get(uid)

    async def run(self) -> None:
        """Admit until cancelled."""
        while True:
            try:
                async with asyncio.timeout(POSITION_REFRESH_SECONDS):
                    await self._awake.wait()
            except TimeoutError:
                pass  # time to refresh positions
            self._awake.clear()
            if not self._cache.complete:
                continue
            try:
                await self._settle_doubts()
                await self._pass()
            except (ApiError, NotLeader) as error:
                log.warning("admission is held up: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                self.wake()

    async def _pass(self) -> None:
        # 1. Count, from what is in the cache at this moment. Nothing is awaited until the decision has been made.
        started = time.perf_counter()
        cache, classes = self._cache, self._cache.classes_by_name()
        ledger = build_ledger(cache.sessions.all(), cache.pods.all(), classes, {**self._in_doubt, **self.creating})
        caps = caps_of(cache.quotas.all())
        # 2. Decide.
        if caps is None:
            unreadable = "A SessionQuota cannot be read; nothing is admitted until it is mended or deleted."
            waits = {item.uid: Wait("Queued", unreadable, place) for place, item in enumerate(ledger.waiting, start=1)}
            decision = Plan((), waits)
        else:
            decision = plan(ledger, caps)
        grants = list(decision.grants)[:BATCH]
        self.used, self.queued = len(ledger.holders) + len(grants), len(ledger.waiting) - len(grants)
        metrics.ADMISSION_SECONDS.observe(time.perf_counter() - started)
        metrics.SLOTS_USED.set(self.used)
        metrics.SESSIONS_WAITING.set(self.queued)
        # 3. Tell those who wait, and write the reservations.
        self._tell(decision.waits)
        limit = asyncio.Semaphore(CONCURRENT_WRITES)
        await asyncio.gather(*(self._reserve(uid, limit) for uid in grants))
        if len(decision.grants) > BATCH:
            self.wake()

    def _tell(self, waits: dict[str, Wait]) -> None:
        """Pass verdicts on. A new reason is told at once; a new place every 30 s, and only near the front: it costs a write."""
        refresh = time.monotonic() - self._positions_told >= POSITION_REFRESH_SECONDS
        if refresh:
            self._positions_told = time.monotonic()
        for uid in self._verdicts.keys() - waits.keys():
            del self._verdicts[uid]
        for uid, wait in waits.items():
            before = self._verdicts.get(uid)
            near = wait.position <= POSITIONS_SHOWN or (before is not None and before.position <= POSITIONS_SHOWN)
            if before is None or before.reason != wait.reason or (refresh and near and before != wait):
                self._verdicts[uid] = wait
                self._enqueue(uid)

    async def _reserve(self, uid: str, limit: asyncio.Semaphore) -> None:
        """Write Admitted=True on the very version of the session that was counted."""
        async with limit:
            session = self._cache.sessions.get(uid)
            if session is None or session.admitted or session.meta.deleting or session.spec.suspend:
                return
            resolved = resolve(session.spec, self._cache.classes_by_name())
            if isinstance(resolved, Misconfigured):
                return  # the class went away a moment ago
            decision = decide(Facts(session, resolved, None, verdict=Granted()), datetime.now(UTC))
            patch = merge_patch(session.status.to_wire(), decision.status.to_wire())
            try:
                answer = await self._api.patch_status(_path(session), session.meta.version, patch)
            except ApiError as error:
                await self._failed(session, error)
                return
            metrics.ADMISSIONS.inc()
            self._cache.sessions.put(Session.of(answer))
            self._enqueue(uid)

    async def _failed(self, session: Session, error: ApiError) -> None:
        if error.outcome_unknown:
            self._in_doubt[session.meta.uid] = session.spec.user
            log.warning("no answer to the admission of %s/%s: %s", session.meta.namespace, session.meta.name, error)
        elif not error.conflict and not error.gone:
            raise error
        # Conflict: somebody wrote in between. Not found: it was deleted. Reading says which version counts now.
        await self._read_again(session)
        self.wake()

    async def _settle_doubts(self) -> None:
        for uid in list(self._in_doubt):
            session = self._cache.sessions.get(uid)
            if session is None:
                del self._in_doubt[uid]
            else:
                await self._read_again(session)

    async def _read_again(self, session: Session) -> None:
        """Bring the cache up to date with one read; settles a doubt. Raises ApiError where it cannot."""
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
