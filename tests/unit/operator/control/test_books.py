"""The ledger follows the cluster, and a mistake in it is found."""

from __future__ import annotations

import asyncio
import logging

import pytest

from agentsession_operator.api.conditions import SuspendedReason
from agentsession_operator.api.objects import SessionUID
from agentsession_operator.control.books import CHECK_SECONDS
from agentsession_operator.decisions.facts import ReceivedReport
from agentsession_operator.decisions.quotas.claims import Claim
from agentsession_operator.decisions.quotas.verdict import Displaced
from support.control_plane.builders import ADMITTED, RUNNING, condition, namespace, quota, report, session_class
from support.control_plane.stage import UID, Stage, admitted_stage, time_of_day
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio

IDLE = condition("Active", "True", "Idle")


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


def claim(stage: Stage, uid: SessionUID = UID) -> Claim | None:
    stage.books.bring_up_to_date()
    entry = stage.books.admission.ledger.entries.get(uid)
    return entry.claim if entry is not None else None


async def test_a_session_is_counted_when_it_has_news() -> None:
    stage = Stage()
    assert claim(stage) is None
    stage.put_session()
    asks = claim(stage)
    assert asks is not None
    assert not asks.holds
    stage.remove_session()
    assert claim(stage) is None


async def test_labels_quotas_and_classes_are_followed() -> None:
    stage = Stage()
    stage.put_session()
    stage.cache.namespaces.put(namespace("team", team="a"))
    stage.cache.quotas.put(quota("b", maxSessions=0, namespaceSelector={"matchLabels": {"team": "b"}}))
    stage.books.bring_up_to_date()
    assert stage.books.admission.decide(10).grants == [UID]
    stage.cache.namespaces.put(namespace("team", version=2, team="b"))
    stage.cache.classes.put(session_class(version=5, priority=3))
    stage.books.bring_up_to_date()
    (limit,) = stage.books.admission.ledger.limits.values()
    assert [lane.priority for pool in stage.books.admission.ledger.pools.values() for lane in pool.lanes.values()] == [3]
    assert (limit.held, limit.full) == (0, True)


async def test_a_report_says_since_when_a_session_is_idle() -> None:
    stage = admitted_stage()
    held = claim(stage)
    assert held is not None
    assert held.idle_since is None, "nothing is known before a report"
    stage.reports.put(report(last_activity_time="2026-05-04T11:59:00Z"))
    idle = claim(stage)
    assert idle is not None
    assert idle.idle_since == "2026-05-04T11:59:00Z"
    stage.reports.put(report(sequence=2, activity="Processing"))
    works = claim(stage)
    assert works is not None
    assert works.idle_since is None


async def test_an_idle_session_makes_room_and_the_slot_is_the_others() -> None:
    stage = admitted_stage()
    stage.cache.quotas.put(quota(maxSessions=1, whenFull="ReplaceOldestIdle"))
    ready = condition("PodReady", "True", "PodReady")
    stage.put_session(conditions=[ADMITTED, RUNNING, ready, IDLE], status={"podUID": "pod-of-demo"})
    stage.reports.put(report(last_activity_time="2026-05-04T11:59:00Z"))
    stage.put_session("next")
    admitting = asyncio.create_task(stage.admitter.run())
    stage.wake()
    await asyncio.sleep(1)
    assert stage.books.admission.displaced(UID) == Displaced(SuspendedReason.REPLACED, "uid-of-next")
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Finished"] == "Replaced"
    await stage.reconciler.reconcile(UID)
    stage.change_pod(status={"phase": "Failed"}, deletionTimestamp="2026-05-04T12:00:00Z")
    await stage.reconciler.reconcile(UID)
    await asyncio.sleep(1)
    admitting.cancel()
    assert stage.cache.pod_of(SessionUID("uid-of-next")) is not None


async def test_a_mistake_in_the_ledger_is_found_told_and_corrected(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.put_session()
    asks = claim(stage)
    stage.books.admission.put(UID, None)
    stage.books.admission.ledger.built_in.held = 1
    with caplog.at_level(logging.ERROR):
        await asyncio.sleep(CHECK_SECONDS + 1)
        assert claim(stage) == asks
    assert caplog.messages == [
        f"the ledger was wrong, and is corrected: : 1 held, 0 waiting; session {UID}",
    ]


async def test_a_ledger_without_a_mistake_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    stage = admitted_stage()
    stage.put_session("other")
    with caplog.at_level(logging.ERROR):
        await asyncio.sleep(CHECK_SECONDS + 1)
        stage.books.bring_up_to_date()
    assert caplog.messages == []


async def test_a_wait_that_ends_during_the_check_is_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.put_session()
    stage.objects._refusals.add(UID, "exceeded quota", 0)
    assert claim(stage) is None
    with caplog.at_level(logging.ERROR):
        await asyncio.sleep(CHECK_SECONDS + 1)
        stage.objects._refusals.take_due()
        assert claim(stage) is not None
    assert caplog.messages == []


async def test_an_old_report_makes_nobody_idle_and_is_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    stage = admitted_stage()
    stage.reports.put(report(last_activity_time="2026-05-04T11:59:00Z"))
    stage.reports._reports[UID] = ReceivedReport(report(), time_of_day())
    idle = claim(stage)
    assert idle is not None
    assert idle.idle_since is not None
    with caplog.at_level(logging.ERROR):
        await asyncio.sleep(151)
        silent = claim(stage)
    assert silent is not None
    assert silent.idle_since is None
    assert caplog.messages == []
