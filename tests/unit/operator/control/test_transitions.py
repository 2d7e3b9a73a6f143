"""What the log says about a session, and what it never says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agentsession_operator.api.names import bearer_token
from agentsession_operator.api.objects import Session
from agentsession_operator.cluster.kube import ApiError
from agentsession_operator.control.transitions import transitions
from support.control_plane.builders import (
    INSTALLATION,
    READY,
    admitted,
    condition,
    container,
    ended,
    finished,
    pod_status,
    quota,
    report,
    session,
    terminated,
)
from support.control_plane.stage import POD, PODS, SESSION, UID, Stage, persistent_stage
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio

POD_NAME = POD.rsplit("/", 1)[1]


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="agentsession_operator")
    return caplog


def lines(log: pytest.LogCaptureFixture, start: str) -> list[str]:
    found = [record.getMessage() for record in log.records]
    return [line for line in found if line.startswith(start)]


@asynccontextmanager
async def at_work(stage: Stage) -> AsyncIterator[None]:
    """The loops run while the block does, and for 5 s before it."""
    tasks = [asyncio.create_task(work()) for work in (stage.reconciler.work, stage.admitter.run)]
    stage.wake()
    await asyncio.sleep(5)
    yield
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_an_ephemeral_session_leaves_a_line_for_each_step(log: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.put_session()
    async with at_work(stage):
        stage.change_pod(status=READY)
        await asyncio.sleep(5)
        stage.change_pod(status=ended())
        stage.reports.put(report(outcome="Completed"))
        await asyncio.sleep(5)
    assert lines(log, "session team/demo: ") == [
        f"session team/demo: created pod {POD_NAME} (first pod)",
        "session team/demo: admitted (new session)",
        "session team/demo: finished (Completed)",
        f"session team/demo: released pod {POD_NAME}",
    ]


async def test_a_persistent_session_logs_loss_replacement_suspension_and_resumption(log: pytest.LogCaptureFixture) -> None:
    stage = persistent_stage()
    async with at_work(stage):
        stage.change_pod(status=READY)
        await asyncio.sleep(5)
        stage.change_pod(status=pod_status("Failed", container("agent", terminated(1)), reason="Evicted", message="low"))
        await asyncio.sleep(5)
        stage.change_pod(status=READY)
        await asyncio.sleep(15)
        suspend(stage, True)
        await asyncio.sleep(5)
        stage.change_pod(status=ended("Failed", code=143), deletionGracePeriodSeconds=0)
        await asyncio.sleep(60)
        suspend(stage, False)
        await asyncio.sleep(5)
    assert lines(log, "session team/demo: ") == [
        f"session team/demo: created pod {POD_NAME} (first pod)",
        "session team/demo: admitted (new session)",
        "session team/demo: lost its pod (Evicted, 1 in a row)",
        f"session team/demo: deleted pod {POD_NAME}",
        f"session team/demo: released pod {POD_NAME}",
        f"session team/demo: created pod {POD_NAME} (replaces a lost pod, 1 in a row)",
        f"session team/demo: deleted pod {POD_NAME}",
        "session team/demo: suspended (UserRequested)",
        f"session team/demo: released pod {POD_NAME}",
        f"session team/demo: created pod {POD_NAME} (resumes the session)",
        "session team/demo: admitted (resumes)",
    ]


def suspend(stage: Stage, wanted: bool) -> None:
    body = stage.server.objects[SESSION]
    stored = stage.server.put(SESSION, {**body, "spec": {**body["spec"], "suspend": wanted}})
    stage.cache.sessions.put(Session.of(stored))


async def test_an_admission_whose_answer_was_lost_is_logged_once(log: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.put_session()
    stage.server.lost_answers |= {("PATCH", SESSION), ("POST", PODS)}
    async with at_work(stage):
        await asyncio.sleep(60)
    assert lines(log, "session team/demo: admitted") == ["session team/demo: admitted (new session)"]


async def test_only_a_pass_with_news_leaves_a_line(log: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.cache.quotas.put(quota(maxSessions=1))
    stage.put_session("first")
    stage.put_session("second", created="2026-05-04T10:00:01Z")
    async with at_work(stage):
        (line,) = lines(log, "admission pass: ")
        assert line.startswith("admission pass: granted 1 (1 created), held 1, waiting 1 (1 with a new reason), ")
        for _ in range(10):
            stage.wake()
            await asyncio.sleep(60)
        assert lines(log, "admission pass: ") == [line]


async def test_an_idle_hour_leaves_no_line(log: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.put_session()
    async with at_work(stage):
        stage.change_pod(status=READY)
        await asyncio.sleep(5)
        log.clear()
        for sequence in range(1, 60):
            stage.reports.put(report(activity="Processing", sequence=sequence, message_count=sequence))
            await asyncio.sleep(60)
    assert log.records == []


async def test_a_refused_pod_leaves_a_line_for_each_try(log: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.put_session()

    def full(verb: str, path: str) -> None:
        if (verb, path) == ("POST", PODS):
            raise ApiError(403, "Forbidden", "exceeded quota: team")

    stage.server.answer = full
    async with at_work(stage):
        await asyncio.sleep(600)
    found = lines(log, "session team/demo: pod not created, try ")
    assert found[0] == "session team/demo: pod not created, try 1: 403 Forbidden: exceeded quota: team"
    assert len(found) < 15, "with waits of up to 5 minutes"


async def test_the_log_holds_no_secret_and_nothing_that_was_said(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, logger="agentsession_operator")
    stage = Stage()
    stage.put_session(prompt="the prompt", credentials={"secretName": "keys"})
    async with at_work(stage):
        stage.change_pod(status=READY)
        stage.reports.put(report(sequence=1, last_message="the last message"))
        await asyncio.sleep(5)
        stage.change_pod(status=ended("Failed", "the termination message", code=1))
        stage.reports.put(report(sequence=2, outcome="Failed", outcome_message="the outcome"))
        await asyncio.sleep(5)
    assert "finished (Failed)" in log.text
    token = bearer_token(INSTALLATION.token_key, UID)
    for secret in ("the prompt", "the last message", "the termination message", "the outcome", token, "kkkk"):
        assert secret not in log.text


# The lines, as a function of two versions.


def test_a_session_seen_for_the_first_time_leaves_no_line() -> None:
    assert transitions(None, admitted()) == []


def test_the_deletion_of_an_unfinished_session_is_its_end() -> None:
    assert transitions(admitted(), None) == ["deleted before it finished"]
    assert transitions(finished(), None) == []


def test_versions_that_were_skipped_leave_their_lines() -> None:
    assert transitions(session(), finished(released=False, version=9)) == ["admitted (new session)", "finished (Completed)"]


def test_progress_leaves_no_line() -> None:
    assert transitions(admitted(), admitted(version=2, extra=[condition("Active", "True", "Processing")])) == []
