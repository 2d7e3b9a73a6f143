"""The periodic relist: completes the caches at the start, and corrects what a watch missed.

A watch can miss a deletion (kopf does not synthesise any after a 410) or die without a word, and then an operator that only
listens leaks slots and reports health. So everything is listed now and then and compared.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from agentsession_operator import metrics
from agentsession_operator.api.meta import CLASSES, QUOTAS, SESSION_UID_LABEL, SESSIONS
from agentsession_operator.api.objects import Pod, Quota, Session, SessionClass
from agentsession_operator.cluster.cache import Cache, Store
from agentsession_operator.cluster.kube import ApiError, KubeApi, core_path, path_of
from agentsession_operator.cluster.watch import take

FIRST_SECONDS: Final = 10.0
"""The second list: it closes the gap between the first one and the start of the watches."""
INTERVAL_SECONDS: Final = 120.0
WATCH_GRACE_SECONDS: Final = 5.0
"""How far a watch may lag behind a list before that is a fault of the watch."""
STALE_SECONDS: Final = 3 * INTERVAL_SECONDS
FAULTS_TOLERATED: Final = 2

log = logging.getLogger(__name__)


class Resync:
    """Lists, compares, corrects."""

    def __init__(self, api: KubeApi, cache: Cache, completed: Callable[[], None]) -> None:
        self._api, self._cache, self._completed = api, cache, completed
        self._last = time.monotonic()
        self._faults = 0

    def health(self) -> str | None:
        """What is wrong, or None: the last list is too old, or the watches lag behind list after list."""
        age = time.monotonic() - self._last
        if age > STALE_SECONDS:
            return f"nothing could be listed for {age:.0f} s"
        if self._faults > FAULTS_TOLERATED:
            return f"the watches have missed changes in {self._faults} relists in a row"
        return None

    async def first(self) -> None:
        """Fill the caches; tries until it has. Only then may anyone be admitted."""
        while True:
            try:
                await self._compare(grace=0)
            except ApiError as error:
                log.warning("the first lists failed; trying again: %s", error)
                await asyncio.sleep(1.0)
            else:
                self._cache.complete = True
                self._last = time.monotonic()
                log.info("caches complete: %d sessions, %d pods", len(self._cache.sessions), len(self._cache.pods))
                self._completed()
                return

    async def run(self) -> None:
        """Compare for ever."""
        await asyncio.sleep(FIRST_SECONDS)
        await self._once(count_faults=False)
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            await self._once(count_faults=True)

    async def _once(self, *, count_faults: bool) -> None:
        try:
            corrected = await self._compare(grace=WATCH_GRACE_SECONDS)
        except ApiError as error:
            log.warning("relist failed: %s", error)
            return
        self._last = time.monotonic()
        self._faults = self._faults + 1 if corrected and count_faults else 0

    async def _compare(self, *, grace: float) -> int:
        """Number of corrections."""
        cache = self._cache
        kinds: list[tuple[str, str, Mapping[str, str], Store[Any], Callable[[Mapping[str, Any]], Any]]] = [
            (QUOTAS, path_of(QUOTAS), {}, cache.quotas, Quota.of),
            (CLASSES, path_of(CLASSES), {}, cache.classes, SessionClass.of),
            (SESSIONS, path_of(SESSIONS), {}, cache.sessions, Session.of),
            ("pods", core_path("pods"), {"labelSelector": SESSION_UID_LABEL}, cache.pods, Pod.of),
        ]
        lists = [await self._api.list_all(path, query) for _, path, query, _, _ in kinds]
        if grace:
            await asyncio.sleep(grace)  # what the watch is about to deliver is not its fault
        corrected = 0
        for (resource, _, _, store, read), listed in zip(kinds, lists, strict=True):
            number = correct(store, read, listed)
            if number and grace:
                log.warning("the watch of %s had missed %d changes", resource, number)
                metrics.WATCH_CORRECTIONS.labels(resource).inc(number)
            corrected += number
        return corrected


def correct(store: Store[Any], read: Callable[[Mapping[str, Any]], Any], listed: Mapping[str, Any]) -> int:
    """Bring a store up to a list; the number of objects that were missing, stale or left over.

    An object that the store knows in a version younger than the list was created after it, and stays.
    """
    version = int(listed["metadata"]["resourceVersion"])
    uids = {body["metadata"]["uid"] for body in listed["items"]}
    corrected = 0
    for body in listed["items"]:
        known = store.get(body["metadata"]["uid"])
        if known is None or known.meta.version < int(body["metadata"]["resourceVersion"]):
            take(store, read, None, body)
            after = store.get(body["metadata"]["uid"])
            corrected += after is not known
    for item in store.all():
        if item.meta.uid not in uids and item.meta.version <= version:
            corrected += store.remove(item.meta.uid)
    return corrected
