"""How full a quota says it is."""

from __future__ import annotations

import asyncio
import logging

import pytest

from agentsession_operator.api.meta import QUOTAS
from agentsession_operator.api.objects import Pod, Quota
from agentsession_operator.cluster.kube import ApiError, path_of
from agentsession_operator.control.quota_status import Counts, QuotaStatus, quota_status
from support.control_plane.builders import STAMP, pod_body, quota
from support.control_plane.stage import PODS, Stage
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio

PATH = path_of(QUOTAS, name="default")


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


def test_the_status_holds_the_counts_and_their_generation() -> None:
    status = quota_status(quota(maxSessions=5), counts=Counts(3, 2, STAMP), now=STAMP)
    assert (status["used"], status["waiting"], status["observedGeneration"]) == (3, 2, 1)
    assert (status["limit"], status["oldestWaiting"]) == (5, STAMP)
    ready, admitting = status["conditions"]
    assert (admitting["type"], admitting["status"], admitting["reason"]) == ("Admitting", "True", "HasRoom")
    assert (ready["type"], ready["status"], ready["reason"], ready["lastTransitionTime"]) == (
        "Ready",
        "True",
        "Enforced",
        STAMP,
    )


def test_a_quota_that_cannot_be_read_says_what_follows() -> None:
    status = quota_status(quota(maxSessions="many"), counts=Counts(0, 0), now=STAMP)
    assert "limit" not in status
    for condition in status["conditions"]:
        assert (condition["status"], condition["reason"]) == ("False", "Unreadable")
        assert "No session that the quota may count is admitted" in condition["message"]


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        (quota(maxSessions=3), "Full"),
        (quota(maxSessions=2), "Full"),
        (quota(stopPolicy="Hold"), "Hold"),
        (quota(stopPolicy="HoldAndDrain"), "HoldAndDrain"),
    ],
)
def test_a_quota_says_why_it_admits_nobody(of: Quota, reason: str) -> None:
    _, admitting = quota_status(of, counts=Counts(3, 2), now=STAMP)["conditions"]
    assert (admitting["status"], admitting["reason"]) == ("False", reason)


def test_pods_without_a_session_are_named_ten_at_most() -> None:
    status = quota_status(quota(), counts=Counts(30, 0, None, [f"team/p{number}" for number in range(30)]), now=STAMP)
    assert status["podsWithoutSession"] == [f"team/p{number}" for number in range(10)]


def test_a_status_that_holds_is_computed_as_it_is() -> None:
    first = quota_status(quota(), counts=Counts(3, 2), now=STAMP)
    assert quota_status(quota(status=first), counts=Counts(3, 2), now="2026-06-01T00:00:00Z") == first


async def at_work(stage: Stage, seconds: float) -> None:
    """Let the admitter and the quota's status run for a while."""
    tasks = [
        asyncio.create_task(work())
        for work in (stage.admitter.run, QuotaStatus(stage.server.kube, stage.cache, stage.books).run)
    ]
    stage.wake()
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


def full_stage() -> Stage:
    """A quota with one slot, and two sessions."""
    stage = Stage()
    body = {"metadata": {"name": "default", "uid": "uid-of-quota-default", "generation": 1}, "spec": {"maxSessions": 1}}
    stage.cache.quotas.put(Quota.of(stage.server.put(PATH, body)))
    stage.put_session("first")
    stage.put_session("second")
    return stage


async def test_the_counts_are_written_once_until_they_change() -> None:
    stage = full_stage()
    await at_work(stage, 60)
    status = stage.server.objects[PATH]["status"]
    assert (status["used"], status["waiting"]) == (1, 1)
    assert [call for call in stage.writes() if call[1] == PATH] == [("PATCH", PATH)]


async def test_an_error_that_repeats_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    stage = full_stage()

    def refuse(verb: str, path: str) -> None:
        if (verb, path) == ("PATCH", PATH):
            raise ApiError(422, "Invalid", "no")

    stage.server.answer = refuse
    with caplog.at_level(logging.INFO, logger="agentsession_operator.control.quota_status"):
        await at_work(stage, 60)
    assert [record.getMessage() for record in caplog.records if "quota default" in record.getMessage()] == [
        "quota default: its status was not written, trying again: 422 Invalid: no"
    ]


async def test_a_pod_that_holds_a_slot_without_its_session_is_named(caplog: pytest.LogCaptureFixture) -> None:
    stage = full_stage()
    stage.cache.pods.put(Pod.of(stage.server.put(f"{PODS}/left", pod_body("left"))))
    with caplog.at_level(logging.WARNING):
        await at_work(stage, 60)
    (name,) = [pod.meta.name for pod in stage.cache.pods.all() if pod.session_name == "left"]
    assert stage.server.objects[PATH]["status"]["podsWithoutSession"] == [f"team/{name}"]
    assert caplog.messages.count(f"pods that hold a slot without their session: team/{name}") == 1
