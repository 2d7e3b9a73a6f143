"""Who gets a slot, on an API server in memory."""

from __future__ import annotations

import asyncio

import pytest

from agentsession_operator.api.meta import SESSIONS
from agentsession_operator.cluster.kube import path_of
from support.control_plane.builders import quota
from support.control_plane.stage import SESSION, UID, Stage
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


async def passes(stage: Stage, seconds: float = 5.0) -> None:
    """Let the admitter run for a while."""
    admitting = asyncio.create_task(stage.admitter.run())
    stage.wake()
    await asyncio.sleep(seconds)
    admitting.cancel()
    await asyncio.wait([admitting])
    assert admitting.cancelled()


async def test_the_admitter_writes_the_reservation_and_creates_no_pod() -> None:
    stage = Stage()
    stage.put_session()
    await passes(stage)
    assert stage.reasons()["Admitted"] == "Admitted"
    assert stage.writes() == [("PATCH", SESSION)]


async def test_no_session_is_admitted_before_the_cache_is_complete() -> None:
    stage = Stage(complete=False)
    stage.put_session()
    await passes(stage)
    assert stage.writes() == []


async def test_an_unreadable_quota_admits_no_session_and_reports_why() -> None:
    stage = Stage()
    stage.cache.quotas.put(quota(maxSessions="many"))
    stage.put_session()
    await passes(stage)
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Admitted"] == "Queued"


async def test_the_cap_holds_with_stale_caches_and_lost_answers() -> None:
    stage = Stage()
    stage.cache.quotas.put(quota(maxSessions=2, maxSessionsPerUser=10))
    for number in range(6):
        stage.put_session(f"s{number}", user=f"user-{number % 3}")
    stale = path_of(SESSIONS, "team", "s0")
    stage.server.put(stale, stage.server.objects[stale])
    stage.server.lost_answers |= {("PATCH", path_of(SESSIONS, "team", f"s{number}")) for number in (1, 2)}
    admitting = asyncio.create_task(stage.admitter.run())
    for _ in range(100):
        stage.wake()
        await asyncio.sleep(0.1)
        admitted = [
            body for body in stage.server.objects.values() if "Admitted" in stage.reasons(body["metadata"]["name"]).values()
        ]
        assert len(admitted) <= 2
    assert len(admitted) == 2
    admitting.cancel()
