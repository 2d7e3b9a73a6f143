"""Decisions on sessions that somebody wants to suspend, or to have back."""

from __future__ import annotations

from typing import Any

import pytest

from agentsession_operator.api.conditions import AdmittedReason
from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.api.workspace import LostPods
from agentsession_operator.decisions.quotas.verdict import Wait
from support.control_plane.builders import (
    EARLIER,
    JSON,
    NO_CLASS,
    READY,
    STAMP,
    STARTING,
    admitted,
    condition,
    ended,
    pod,
    report,
    session,
)
from support.control_plane.decided import creates, decided, deletes, reasons, releases, told, written

KEPT: JSON = {"workspace": {"claimName": "kept", "size": "5Gi"}, "startTime": EARLIER, "podUID": "pod-of-demo"}
TALKS = [condition("PodReady", "True", "PodReady"), condition("Active", "True", "Idle")]
FULL = Wait(AdmittedReason.GLOBAL_LIMIT_REACHED, "Queued: all slots are in use (1/1 sessions).", 1)


def running(*, suspend: bool, status: JSON = KEPT, **fields: Any) -> Session:
    """A session that can be talked to, persistent unless its status says otherwise."""
    return admitted(extra=TALKS, status=status, suspend=suspend, **fields)


def changed(of: Session, *, suspend: bool) -> Session:
    return Session(of.meta, of.spec.model_copy(update={"suspend": suspend}), of.status)


def at_rest() -> Session:
    """A session that is suspended."""
    return written(running(suspend=True), decided(running(suspend=True)))


# To rest.


def test_suspending_holds_the_slot_until_the_pod_has_ended() -> None:
    decision = decided(running(suspend=True), pod=pod(status=READY))
    assert deletes(decision) == ["pod-of-demo"]
    assert reasons(decision)["Admitted"] == ("True", "Admitted")
    assert reasons(decision)["Suspended"] == ("False", "Suspending")
    assert reasons(decision)["Ready"] == ("False", "Suspending")
    assert decision.status.phase == "Suspending"
    assert not decided(written(running(suspend=True), decision), pod=pod(status=READY, deleting=True)).actions


@pytest.mark.parametrize("last", [None, pod(status=ended("Failed", code=143), deleting=True), pod(status=ended("Failed"))])
def test_then_the_slot_is_given_back(last: Pod | None) -> None:
    stopping = written(running(suspend=True), decided(running(suspend=True), pod=pod(status=READY)))
    decision = decided(stopping, pod=last)
    assert reasons(decision) == {
        "Admitted": ("False", "Released"),
        "Suspended": ("True", "UserRequested"),
        "PodReady": ("False", "Suspended"),
        "Active": ("False", "Stopped"),
        "Finished": ("False", "Running"),
        "Ready": ("False", "Suspended"),
    }
    assert "spec.suspend" in told(decision, "Ready").message
    assert decision.status.phase == "Suspended"
    assert decision.status.workspace is not None
    assert not decision.actions


def test_a_suspension_is_no_loss_and_forgets_earlier_ones() -> None:
    lossy = {**KEPT, "lostPods": {"count": 5, "lastTime": STAMP}}
    decision = decided(running(suspend=True, status=lossy), pod=pod(status=READY, deleting=True))
    assert decision.status.lost_pods is not None
    assert decision.status.lost_pods.count == 5
    forgotten = decided(running(suspend=True, status=lossy)).status
    assert forgotten.lost_pods == LostPods(count=0, last_time=STAMP, pod_uid="pod-of-demo")


def test_a_session_that_has_no_slot_yet_does_not_queue_for_one() -> None:
    for verdict in (None, FULL):
        decision = decided(session(suspend=True), verdict=verdict)
        assert reasons(decision)["Admitted"] == ("False", "Released")
        assert reasons(decision)["Suspended"] == ("True", "UserRequested")
        assert (decision.status.phase, decision.status.queue) == ("Suspended", None)
        assert not decision.actions


def test_a_session_that_waits_leaves_the_queue() -> None:
    waiting = written(session(), decided(session(), verdict=FULL))
    assert waiting.status.queue is not None
    assert decided(changed(waiting, suspend=True), verdict=FULL).status.queue is None


def test_a_session_whose_work_would_be_lost_goes_on_and_says_why() -> None:
    decision = decided(running(suspend=True, status={"startTime": EARLIER}), pod=pod(status=READY))
    assert not decision.actions
    assert reasons(decision)["Suspended"] == ("False", "NotPersistent")
    for words in ("ephemeral", "Delete the session", "spec.suspend to false", "Persistent"):
        assert words in told(decision, "Suspended").message
    assert reasons(decision)["Ready"] == ("True", "PodReady")
    assert decision.status.phase == "Idle"


def test_a_refusal_is_taken_back_with_the_request() -> None:
    asked = running(suspend=True, status={"startTime": EARLIER})
    refused = written(asked, decided(asked, pod=pod(status=READY)))
    decision = decided(changed(refused, suspend=False), pod=pod(status=READY))
    assert reasons(decision)["Suspended"] == ("False", "NotSuspended")


def test_a_session_that_ends_while_it_is_being_suspended_has_ended() -> None:
    last = pod(status=ended("Succeeded", report(outcome="Completed").model_dump_json()), deleting=True)
    stopping = written(running(suspend=True), decided(running(suspend=True), pod=pod(status=READY)))
    decision = decided(stopping, pod=last)
    assert reasons(decision)["Finished"] == ("True", "Completed")
    assert "Suspended" not in reasons(decision)


# And back.


def test_a_session_at_rest_asks_and_is_told_why_it_waits() -> None:
    back = changed(at_rest(), suspend=False)
    assert decided(back).status == at_rest().status, "nobody has looked yet: not worth a write"
    decision = decided(back, verdict=FULL)
    assert reasons(decision)["Admitted"] == reasons(decision)["Ready"] == ("False", "GlobalLimitReached")
    assert reasons(decision)["Suspended"] == ("False", "Resuming")
    assert decision.status.phase == "Queued"
    assert decision.status.queue is not None
    assert decision.status.queue.since == STAMP


def test_a_session_that_comes_back_has_a_pod_on_its_old_claim() -> None:
    back = changed(at_rest(), suspend=False)
    starting = decided(back, pod=pod(uid="second", status=STARTING))
    assert reasons(starting)["Admitted"] == ("True", "Admitted")
    assert reasons(starting)["Suspended"] == ("False", "Resuming")
    assert reasons(starting)["PodReady"] == ("False", "Resuming")
    assert starting.status.phase == "Starting"
    ready = decided(written(back, starting), pod=pod(uid="second", status=READY))
    assert reasons(ready)["Ready"] == ("True", "PodReady")
    assert reasons(ready)["Suspended"] == ("False", "NotSuspended")
    assert (ready.status.start_time, ready.status.pod_uid) == (EARLIER, "second")
    assert ready.status.lost_pods is None


def test_a_session_at_rest_asks_again_though_its_old_pod_lingers() -> None:
    """The old pod is no way past the queue."""
    left = pod(status=ended("Failed", code=143), deleting=True)
    rests = written(running(suspend=True), decided(running(suspend=True), pod=left))
    assert releases(decided(rests, pod=left)) == ["pod-of-demo"]
    decision = decided(changed(rests, suspend=False), pod=left, verdict=FULL)
    assert reasons(decision)["Admitted"] == ("False", "GlobalLimitReached")
    assert releases(decision) == ["pod-of-demo"]
    assert creates(decision) == 0


def test_a_suspension_taken_back_keeps_the_slot() -> None:
    stopping = changed(written(running(suspend=True), decided(running(suspend=True), pod=pod(status=READY))), suspend=False)
    last = pod(status=ended("Failed", code=143), deleting=True)
    decision = decided(stopping, pod=last)
    assert reasons(decision)["Admitted"] == ("True", "Admitted")
    assert reasons(decision)["Suspended"] == ("False", "Resuming")
    assert decision.status.lost_pods == LostPods(count=0, last_time=STAMP, pod_uid="pod-of-demo")
    after = written(stopping, decision)
    assert releases(decided(after, pod=last)) == ["pod-of-demo"]
    assert creates(decided(after)) == 1


def test_resuming_without_the_class_is_misconfigured() -> None:
    decision = decided(changed(at_rest(), suspend=False), resolved_=NO_CLASS)
    assert reasons(decision)["Admitted"] == reasons(decision)["Ready"] == ("False", "Misconfigured")
    assert decision.status.phase == "Pending"
