"""The relist: it completes the cache, corrects what the watches missed, and says when they miss too much."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agentsession_operator.api.meta import CLASSES, QUOTAS, SESSIONS
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kinds import followed
from agentsession_operator.cluster.kube import core_path, path_of
from agentsession_operator.cluster.resync import FAULTS_TOLERATED, FIRST_SECONDS, INTERVAL_SECONDS, WATCH_GRACE_SECONDS, Resync
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from support.control_plane.apiserver import UNREACHABLE, ApiServer
from support.control_plane.builders import INSTALLATION, pod_body, session_body
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio

SESSION = path_of(SESSIONS, "", "demo")
POD = core_path("pods", "", "demo")


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


class Relist:
    """A relist of a cache that no watch feeds."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.cache = Cache(Wakeups(WorkQueue()))
        self.resync = Resync(self.server.kube, self.cache, followed(self.cache, INSTALLATION.token_key))
        self.in_step = 0

    def _closed(self) -> None:
        self.in_step += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.resync.run(self._closed))
        yield
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_the_first_lists_complete_the_cache() -> None:
    relist = Relist()
    relist.server.put(SESSION, session_body())
    relist.server.put(POD, pod_body())
    await relist.resync.first()
    assert (len(relist.cache.sessions), len(relist.cache.pods), relist.cache.complete) == (1, 1, True)


@pytest.mark.parametrize("missing", [SESSIONS, CLASSES, QUOTAS, "namespaces", "pods"])
async def test_the_cache_is_incomplete_until_every_kind_is_listed(missing: str) -> None:
    relist = Relist()

    def away(_verb: str, path: str) -> None:
        if path.endswith(f"/{missing}"):
            raise UNREACHABLE

    relist.server.answer = away
    listing = asyncio.create_task(relist.resync.first())
    await asyncio.sleep(600)
    assert not relist.cache.complete
    relist.server.answer = lambda _verb, _path: None
    await listing
    assert relist.cache.complete


async def test_a_change_that_the_watch_missed_is_corrected_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    relist = Relist()
    await relist.resync.first()
    relist.server.put(SESSION, session_body())
    with caplog.at_level(logging.WARNING):
        async with relist.running():
            await asyncio.sleep(60)
    assert len(relist.cache.sessions) == 1
    assert relist.in_step == 1
    assert "the watch of agentsessions missed 1 changes" in caplog.text


async def test_watches_that_miss_changes_again_and_again_are_unhealthy() -> None:
    relist = Relist()
    await relist.resync.first()
    async with relist.running():
        await asyncio.sleep(2 * FIRST_SECONDS)
        for number in range(FAULTS_TOLERATED + 1):
            assert relist.resync.health() is None
            relist.server.put(f"{SESSION}-{number}", session_body(f"demo-{number}"))
            await asyncio.sleep(INTERVAL_SECONDS + WATCH_GRACE_SECONDS)
        assert "missed changes" in str(relist.resync.health())
        await asyncio.sleep(INTERVAL_SECONDS + WATCH_GRACE_SECONDS)
        assert relist.resync.health() is None


async def test_a_failed_list_does_not_end_the_relist() -> None:
    relist = Relist()
    await relist.resync.first()

    def away(_verb: str, _path: str) -> None:
        raise UNREACHABLE

    relist.server.answer = away
    async with relist.running():
        await asyncio.sleep(3 * INTERVAL_SECONDS)
        relist.server.answer = lambda _verb, _path: None
        relist.server.put(SESSION, session_body())
        await asyncio.sleep(2 * INTERVAL_SECONDS)
    assert len(relist.cache.sessions) == 1


async def test_a_fresh_comparison_is_made_now_and_tried_until_it_succeeds() -> None:
    relist = Relist()
    await relist.resync.first()
    relist.server.put(SESSION, session_body())
    failures = iter([UNREACHABLE, UNREACHABLE])

    def away(_verb: str, _path: str) -> None:
        if (error := next(failures, None)) is not None:
            raise error

    relist.server.answer = away
    await relist.resync.fresh()
    assert len(relist.cache.sessions) == 1


async def test_the_watches_are_in_step_after_a_list_since_their_start() -> None:
    relist = Relist()
    await relist.resync.first()
    async with relist.running():
        await asyncio.sleep(FIRST_SECONDS + WATCH_GRACE_SECONDS + 1)
        assert relist.in_step == 1
        relist.resync.watches_ended()
        await asyncio.sleep(INTERVAL_SECONDS + FIRST_SECONDS + WATCH_GRACE_SECONDS + 1)
        assert relist.in_step == 1, "they are down"
        relist.resync.watches_started()
        await asyncio.sleep(FIRST_SECONDS - 1)
        assert relist.in_step == 1, "they may not have listed yet"
        await asyncio.sleep(WATCH_GRACE_SECONDS + 2)
        assert relist.in_step == 2


async def test_watches_that_end_during_the_closing_list_are_not_in_step() -> None:
    relist = Relist()
    await relist.resync.first()
    async with relist.running():
        await asyncio.sleep(FIRST_SECONDS + 1)  # the lists were made, and the grace time runs
        relist.resync.watches_ended()
        relist.resync.watches_started()
        await asyncio.sleep(WATCH_GRACE_SECONDS)
        assert relist.in_step == 0
        await asyncio.sleep(FIRST_SECONDS + WATCH_GRACE_SECONDS + 1)
        assert relist.in_step == 1


async def test_what_is_deleted_while_the_watches_are_down_is_found_soon() -> None:
    relist = Relist()
    relist.server.put(SESSION, session_body())
    await relist.resync.first()
    async with relist.running():
        await asyncio.sleep(2 * FIRST_SECONDS)
        relist.server.remove(SESSION)
        relist.resync.watches_ended()
        relist.resync.watches_started()
        await asyncio.sleep(FIRST_SECONDS + WATCH_GRACE_SECONDS + 1)
        assert len(relist.cache.sessions) == 0
        assert relist.resync.health() is None
