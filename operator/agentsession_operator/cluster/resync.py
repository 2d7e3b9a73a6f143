"""The periodic relist: it fills the cache at the start, and corrects what a watch missed.

A watch can miss a deletion (kopf does not synthesize any after a 410) or die unnoticed. An operator that only watches would
then leak slots and report that it is healthy. So everything is listed and compared from time to time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from agentsession_operator import metrics
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kinds import Comparison, Kind
from agentsession_operator.cluster.kube import ApiError, KubeApi

FIRST_SECONDS: Final = 10.0
"""Time until the second list, which closes the gap between the first list and the start of the watches."""
INTERVAL_SECONDS: Final = 120.0
WATCH_GRACE_SECONDS: Final = 5.0
"""How far a watch may lag behind a list before that counts as a fault of the watch."""
STALE_SECONDS: Final = 3 * INTERVAL_SECONDS
FAULTS_TOLERATED: Final = 2

log = logging.getLogger(__name__)


class Resync:
    """Lists, compares, corrects."""

    def __init__(self, api: KubeApi, cache: Cache, kinds: Sequence[Kind[Any, Any]]) -> None:
        self._api, self._cache, self._kinds = api, cache, kinds
        self._last = time.monotonic()
        self._faults = 0
        self._gap = asyncio.Event()
        """Set while something may have been deleted that no watch reports."""
        self._up = asyncio.Event()
        """Set while the watches run, and before they run for the first time."""
        self._up.set()

    def health(self) -> str | None:
        """What is wrong, or None: the last list is too old, or the watches lag behind list after list."""
        age = time.monotonic() - self._last
        if age > STALE_SECONDS:
            return f"no list has succeeded for {age:.0f} s"
        if self._faults > FAULTS_TOLERATED:
            return f"the watches missed changes before each of the last {self._faults} relists"
        return None

    async def first(self) -> None:
        """Fill the cache, and try until that succeeds. Only then may a session be admitted."""
        while True:
            try:
                await self._compare(grace=0)
            except ApiError as error:
                log.warning("the first lists failed, trying again: %s", error)
                await asyncio.sleep(1.0)
            else:
                self._last = time.monotonic()
                log.info("the cache is complete: %d sessions, %d pods", len(self._cache.sessions), len(self._cache.pods))
                self._cache.mark_complete()
                return

    async def fresh(self) -> None:
        """Compare the cache with lists that begin now, and try until that succeeds."""
        while True:
            try:
                await self._compare(grace=0)
            except ApiError as error:
                log.warning("cannot list, trying again: %s", error)
                await asyncio.sleep(1.0)
            else:
                return

    def watches_ended(self) -> None:
        """The watches are down, and do not report what is deleted until they list again."""
        self._gap.set()
        self._up.clear()

    def watches_started(self) -> None:
        """The watches list and watch again: a list after FIRST_SECONDS closes the gap."""
        self._up.set()

    async def run(self, in_step: Callable[[], None]) -> None:
        """Compare until cancelled. `in_step` is called when a gap of the watches is closed: the one between the first list and
        their start, and each after that."""
        self._gap.set()
        while True:
            closing = await self._wait()
            if closing:
                self._gap.clear()  # a watch that ends from here on is a new gap
            listed = await self._once(count_faults=not closing and not self._gap.is_set())
            if closing and not listed:
                self._gap.set()
            elif closing and not self._gap.is_set():
                in_step()

    async def _wait(self) -> bool:
        """Wait until a list is due. True if it closes a gap: the watches have been up for FIRST_SECONDS."""
        try:
            async with asyncio.timeout(INTERVAL_SECONDS):
                await self._gap.wait()
                await self._up.wait()
                await asyncio.sleep(FIRST_SECONDS)
        except TimeoutError:
            return False
        return self._up.is_set()

    async def _once(self, *, count_faults: bool) -> bool:
        """False if the lists failed."""
        try:
            corrected = await self._compare(grace=WATCH_GRACE_SECONDS)
        except ApiError as error:
            log.warning("the relist failed: %s", error)
            return False
        self._last = time.monotonic()
        self._faults = self._faults + 1 if corrected and count_faults else 0
        return True

    async def _compare(self, *, grace: float) -> int:
        """Number of corrections. A `grace` of 0 seconds is the first list, which finds everything missing."""
        comparisons = [Comparison(kind) for kind in self._kinds]
        corrected = 0
        for comparison in comparisons:
            async for page in self._api.pages(comparison.kind.path, comparison.kind.query):
                comparison.see(page)
                if not grace:
                    corrected += comparison.take()
        if grace:
            await asyncio.sleep(grace)  # what the watch is about to deliver is not its fault
        for comparison in comparisons:
            number, plural = comparison.finish(), comparison.kind.plural
            if number and grace:
                log.warning("the watch of %s missed %d changes; the relist corrected them", plural, number)
                metrics.WATCH_CORRECTIONS.labels(plural).inc(number)
            corrected += number
        return corrected
