"""Which status a reconciliation writes, and how many writes a session takes, on an API server in memory."""

from __future__ import annotations

import asyncio

import pytest

from agentsession_operator.cluster.kube import ApiError, core_path
from support.control_plane.builders import READY, report
from support.control_plane.stage import CLAIMS, POD, PODS, SESSION, UID, Stage, admitted_stage, persistent_stage
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


async def test_a_session_that_is_not_admitted_gets_none() -> None:
    stage = Stage()
    stage.put_session()
    await stage.reconciler.reconcile(UID)
    assert stage.writes() == []


async def test_an_unchanged_status_is_not_written() -> None:
    stage = admitted_stage()
    stage.put_pod(status=READY)
    await stage.reconciler.reconcile(UID)
    assert stage.writes() == [("PATCH", SESSION)]
    for _ in range(5):
        await stage.reconciler.reconcile(UID)
    assert stage.writes() == []


async def test_a_conflict_is_settled_by_one_read() -> None:
    stage = admitted_stage()
    stage.put_pod(status=READY)
    stage.server.put(SESSION, stage.server.objects[SESSION])
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Ready"] == "PodReady"


async def test_a_refused_event_does_not_fail_the_reconciliation() -> None:
    stage = admitted_stage()
    stage.put_pod(status={"phase": "Failed", "reason": "Evicted", "message": "low on memory"})

    def no_events(verb: str, path: str) -> None:
        if path == core_path("events", "team"):
            raise ApiError(403, "Forbidden", "no")

    stage.server.answer = no_events
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Finished"] == "Failed"


async def test_from_created_to_ready_there_are_three_writes() -> None:
    """At most four are allowed."""
    stage = Stage()
    stage.put_session()
    working = [asyncio.create_task(work()) for work in (stage.reconciler.work, stage.admitter.run)]
    stage.wake()
    await asyncio.sleep(5)
    stage.put_pod(uid=stage.server.objects[POD]["metadata"]["uid"], status=READY)
    await asyncio.sleep(5)
    assert stage.reasons()["Ready"] == "PodReady"
    assert stage.writes() == [("PATCH", SESSION), ("POST", PODS), ("PATCH", SESSION)]
    for task in working:
        task.cancel()


async def test_a_persistent_session_takes_one_write_more() -> None:
    stage = persistent_stage()
    working = [asyncio.create_task(work()) for work in (stage.reconciler.work, stage.admitter.run)]
    stage.wake()
    await asyncio.sleep(5)
    stage.put_pod(uid=stage.server.objects[POD]["metadata"]["uid"], status=READY)
    await asyncio.sleep(5)
    assert stage.reasons()["Ready"] == "PodReady"
    assert stage.writes() == [("PATCH", SESSION), ("POST", CLAIMS), ("POST", PODS), ("PATCH", SESSION)]
    for task in working:
        task.cancel()


async def test_progress_alone_is_written_at_most_every_10_s() -> None:
    stage = admitted_stage()
    stage.put_pod(status=READY)
    stage.reports.put(report(activity="Processing", sequence=1))
    await stage.reconciler.reconcile(UID)
    stage.writes()
    for number in range(2, 20):
        stage.reports.put(report(activity="Processing", sequence=number, message_count=number))
        await stage.reconciler.reconcile(UID)
    assert stage.writes() == []
    stage.reports.put(report(activity="Idle", sequence=20, message_count=20))
    await stage.reconciler.reconcile(UID)
    assert stage.writes() == [("PATCH", SESSION)]
    assert stage.server.objects[SESSION]["status"]["messageCount"] == 20
