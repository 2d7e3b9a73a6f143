"""Which status a reconciliation writes, and how many writes a session takes, on an API server in memory."""

from __future__ import annotations

import asyncio
import logging

import pytest

from agentsession_operator.api.objects import SessionUID
from agentsession_operator.cluster.kube import ApiError, core_path
from agentsession_operator.cluster.lease import NotLeader
from agentsession_operator.decisions.pacing import BURST, RECOVERY_SECONDS
from support.control_plane.builders import ADMITTED, READY, RUNNING, STARTING, condition, quota, report
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
    await stage.reconciler.reconcile(UID)
    assert stage.writes() == [("PATCH", SESSION)]
    for _ in range(5):
        await stage.reconciler.reconcile(UID)
    assert stage.writes() == []


async def test_a_conflict_is_settled_by_one_read() -> None:
    stage = admitted_stage()
    stage.server.put(SESSION, stage.server.objects[SESSION])
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Ready"] == "PodReady"


async def test_a_session_that_answers_404_is_gone_and_so_is_its_pod() -> None:
    stage = admitted_stage()
    del stage.server.objects[SESSION]
    for _ in range(5):
        await stage.reconciler.reconcile(UID)
    assert stage.cache.sessions.get(UID) is None
    assert stage.writes() == [("PATCH", SESSION), ("DELETE", POD)]


async def test_a_session_of_another_uid_is_another_session() -> None:
    stage = admitted_stage()
    body = stage.server.objects[SESSION]
    stage.server.put(SESSION, {**body, "metadata": {**body["metadata"], "uid": "applied-again"}})
    for _ in range(5):
        await stage.reconciler.reconcile(UID)
    assert stage.cache.sessions.get(UID) is None
    assert [call for call in stage.writes() if call[0] != "PATCH"] == [("DELETE", POD)]


def drained_stage() -> Stage:
    """A persistent session that answers, under a quota that drains. The ledger has taken in all of that."""
    stage = persistent_stage(admitted=True)
    answers = [ADMITTED, RUNNING, condition("PodReady", "True", "PodReady")]
    stage.put_session(conditions=answers, status=dict(stage.server.objects[SESSION]["status"]) | {"conditions": answers})
    stage.put_pod(status=READY)
    stage.cache.quotas.put(quota(stopPolicy="HoldAndDrain"))
    stage.books.bring_up_to_date()
    return stage


async def test_why_a_pod_is_to_stop_is_written_before_it_is_told() -> None:
    """Decided on again after the deletion, the session would be one that has lost its pod."""
    stage = drained_stage()
    stage.reports.put(report())
    seen: list[tuple[str, str]] = []

    def rest_at_deletion(verb: str, path: str) -> None:
        if (verb, path) == ("DELETE", POD):
            seen.append((verb, stage.server.objects[SESSION]["status"]["rest"]["reason"]))

    stage.server.answer = rest_at_deletion
    await stage.reconciler.reconcile(UID)
    assert seen == [("DELETE", "QuotaHeld")]
    assert stage.reasons()["PodReady"] == "Suspending"
    assert stage.writes() == [("PATCH", SESSION), ("DELETE", POD)]


async def test_a_session_that_is_idle_at_last_is_drained_without_a_pass() -> None:
    stage = drained_stage()
    stage.reports.put(report(activity="Processing"))
    await stage.reconciler.reconcile(UID)
    assert ("DELETE", POD) not in stage.writes()
    stage.reports.put(report(sequence=2))
    await stage.reconciler.reconcile(UID)
    assert ("DELETE", POD) in stage.writes()


async def test_a_session_that_goes_while_it_is_drained_is_left_alone() -> None:
    stage = drained_stage()
    stage.reports.put(report())
    del stage.server.objects[SESSION]
    await stage.reconciler.reconcile(UID)
    assert stage.cache.sessions.get(UID) is None
    assert stage.writes() == [("PATCH", SESSION)]


async def test_a_refused_event_does_not_fail_the_reconciliation() -> None:
    stage = admitted_stage()
    stage.change_pod(status={"phase": "Failed", "reason": "Evicted", "message": "low on memory", "containerStatuses": []})

    def no_events(verb: str, path: str) -> None:
        if path == core_path("events", "team"):
            raise ApiError(403, "Forbidden", "no")

    stage.server.answer = no_events
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["PodReady"] == "Evicted"


async def at_work(stage: Stage) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(work()) for work in (stage.reconciler.work, stage.admitter.run)]
    stage.wake()
    await asyncio.sleep(0.5)
    return tasks


async def test_from_created_to_ready_there_are_two_writes() -> None:
    stage = Stage()
    stage.put_session()
    working = await at_work(stage)
    stage.change_pod(status=READY)
    await asyncio.sleep(5)
    assert stage.reasons()["Ready"] == "PodReady"
    assert stage.writes() == [("POST", PODS), ("PATCH", SESSION)]
    for task in working:
        task.cancel()


async def test_a_pod_that_takes_longer_costs_one_write_more() -> None:
    stage = Stage()
    stage.put_session()
    working = await at_work(stage)
    stage.change_pod(status=STARTING)
    await asyncio.sleep(3)
    assert stage.reasons()["Ready"] == "Creating"
    stage.change_pod(status=READY)
    await asyncio.sleep(5)
    assert stage.reasons()["Ready"] == "PodReady"
    assert stage.writes() == [("POST", PODS), ("PATCH", SESSION), ("PATCH", SESSION)]
    for task in working:
        task.cancel()


async def test_a_persistent_session_costs_its_claim_more() -> None:
    stage = persistent_stage()
    working = await at_work(stage)
    stage.change_pod(status=READY)
    await asyncio.sleep(5)
    assert stage.reasons()["Ready"] == "PodReady"
    assert stage.writes() == [("POST", CLAIMS), ("POST", PODS), ("PATCH", SESSION)]
    for task in working:
        task.cancel()


async def test_progress_alone_is_written_at_most_every_10_s() -> None:
    stage = admitted_stage()
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


# With any answers.


@pytest.mark.parametrize("code", [404, 409, 422, 429, 500])
async def test_no_session_is_written_in_a_storm_whatever_the_answers_are(code: int) -> None:
    stage = admitted_stage()
    sent: list[tuple[str, str]] = []

    def refuse(verb: str, path: str) -> None:
        if verb != "GET":
            sent.append((verb, path))
            raise ApiError(code, "Conflict" if code == 409 else "Refused", "no")

    stage.server.answer = refuse
    working = asyncio.create_task(stage.reconciler.work())
    for _ in range(600):
        stage.queue.add(UID)
        await asyncio.sleep(0.1)
    assert len(sent) <= BURST + 60 / RECOVERY_SECONDS + 1
    working.cancel()


async def test_a_decision_that_never_holds_is_not_written_in_a_storm() -> None:
    """Another controller that undoes each write."""
    stage = admitted_stage()
    working = asyncio.create_task(stage.reconciler.work())
    for _ in range(600):
        stage.put_session(conditions=[], status={})
        stage.queue.add(UID)
        await asyncio.sleep(0.1)
    assert len([call for call in stage.writes() if call == ("PATCH", SESSION)]) <= BURST + 60 / RECOVERY_SECONDS + 1
    working.cancel()


async def test_what_cannot_be_decided_concerns_that_session_alone(caplog: pytest.LogCaptureFixture) -> None:
    stage = admitted_stage()
    stage.put_session("odd")
    decide = stage.objects.refusal

    def broken(uid: SessionUID) -> str | None:
        if uid == "uid-of-odd":
            raise ZeroDivisionError("an odd object")
        return decide(uid)

    stage.objects.refusal = broken  # type: ignore[method-assign]
    working = asyncio.create_task(stage.reconciler.work())
    with caplog.at_level(logging.ERROR):
        stage.queue.add(SessionUID("uid-of-odd"))
        stage.queue.add(UID)
        await asyncio.sleep(120)
    assert stage.reasons()["Ready"] == "PodReady"
    assert len([record for record in caplog.records if "ZeroDivisionError" in record.getMessage()]) == 1
    assert not working.done()
    working.cancel()


async def test_without_the_lease_nothing_is_written() -> None:
    stage = admitted_stage()

    def shut(verb: str, path: str) -> None:
        if verb != "GET":
            raise NotLeader("shut")

    stage.server.answer = shut
    with pytest.raises(NotLeader):
        await stage.reconciler.reconcile(UID)
    assert stage.writes() == []
