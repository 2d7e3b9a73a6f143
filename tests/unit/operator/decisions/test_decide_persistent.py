"""Decisions on sessions whose workspace is persistent: their pods are lost and replaced."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.api.workspace import LostPods
from agentsession_operator.decisions.decision import CreatePod, Decision
from agentsession_operator.decisions.persistent import TOLERATED
from agentsession_operator.decisions.podstate import STARTING as STARTING_TEXT
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
    later,
    pod,
    pod_status,
    report,
)
from support.control_plane.decided import creates, decided, deletes, reasons, releases, told, written

KEPT: JSON = {"workspace": {"claimName": "kept", "size": "5Gi"}}
TALKS = condition("PodReady", "True", "PodReady")
EVICTED = pod_status("Failed", reason="Evicted", message="The node was low on resource: memory.")


def ready(**status: object) -> Session:
    """A persistent session that could be talked to a moment ago."""
    return admitted(
        extra=[TALKS, condition("Active", "True", "Idle")],
        status={**KEPT, "startTime": EARLIER, "podUID": "pod-of-demo", **status},
    )


def losing(count: int, last: str = STAMP) -> JSON:
    return {"lostPods": {"count": count, "lastTime": last}}


def keeps_its_slot(decision: Decision) -> bool:
    return reasons(decision)["Admitted"] == ("True", "Admitted") and reasons(decision)["Finished"] == ("False", "Running")


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (None, "PodGone"),
        (pod(status=EVICTED), "Evicted"),
        (pod(status=ended("Failed", code=143)), "PodGone"),
        (pod(status=ended("Failed", code=143), deleting=True), "PodGone"),
        (pod(status=READY, deleting=True, grace=0), "PodGone"),
    ],
)
def test_a_lost_pod_is_told_and_its_session_keeps_the_slot(lost: Pod | None, reason: str) -> None:
    decision = decided(ready(), pod=lost)
    assert keeps_its_slot(decision)
    assert reasons(decision)["PodReady"] == reasons(decision)["Ready"] == ("False", reason)
    assert reasons(decision)["Active"] == ("False", "Stopped")
    assert "Another pod continues the session" in told(decision, "Ready").message
    assert decision.status.phase == "Starting"
    assert decision.status.lost_pods == LostPods(count=1, last_time=STAMP, pod_uid="pod-of-demo")
    assert decision.status.pod_uid is None
    assert not decision.actions, "the loss is written before anything is done about it"


def test_a_pod_being_deleted_counts_as_lost_at_its_end() -> None:
    decision = decided(ready(), pod=pod(status=READY, deleting=True))
    assert keeps_its_slot(decision)
    assert reasons(decision)["PodReady"] == ("False", "PodGone")
    assert decision.status.lost_pods is None
    assert not decision.actions


def test_a_loss_that_is_written_lets_the_pod_go() -> None:
    for lost, deleted in ((pod(status=EVICTED), ["pod-of-demo"]), (pod(status=EVICTED, deleting=True), [])):
        known = written(ready(), decided(ready(), pod=lost))
        decision = decided(known, pod=lost)
        assert (deletes(decision), releases(decision), creates(decision)) == (deleted, ["pod-of-demo"], 0)
        assert decision.status == known.status, "it is counted once"


def test_a_lost_pod_is_replaced_once_its_name_is_free() -> None:
    known = written(ready(), decided(ready(), pod=pod(status=EVICTED)))
    decision = decided(known)
    assert decision.status.lost_pods == known.status.lost_pods
    assert decision.actions == [CreatePod(known.status.workspace)]


def test_a_replacement_that_is_refused_is_reported_and_keeps_the_slot() -> None:
    known = written(ready(), decided(ready()))
    decision = decided(known, refusal="The API server refused the pod: exceeded quota")
    assert reasons(decision)["PodReady"] == ("False", "CreateFailed")
    assert keeps_its_slot(decision)
    assert creates(decision) == 1


def test_a_replacement_starts_as_any_pod() -> None:
    lost = written(ready(), decided(ready()))
    decision = decided(lost, pod=pod(uid="second", status=STARTING))
    assert reasons(decision)["PodReady"] == ("False", "Creating")
    again = decided(written(lost, decision), pod=pod(uid="second", status=READY))
    assert reasons(again)["Ready"] == ("True", "PodReady")
    assert again.status.start_time == EARLIER


@pytest.mark.parametrize(("count", "seconds"), [(2, 5), (3, 10), (TOLERATED, 160)])
def test_repeated_losses_are_replaced_later_each_time(count: int, seconds: int) -> None:
    gone = admitted(extra=[condition("PodReady", "False", "Evicted")], status={**KEPT, **losing(count)})
    decision = decided(gone)
    assert creates(decision) == 0
    assert decision.look_again == timedelta(seconds=seconds)
    assert keeps_its_slot(decision)


def test_the_eighth_loss_in_a_row_fails_the_session() -> None:
    decision = decided(ready(**losing(TOLERATED)), pod=pod(status=EVICTED))
    assert reasons(decision)["Finished"] == ("True", "Failed")
    message = told(decision, "Finished").message
    for words in (f"lost {TOLERATED + 1} pods in a row", "The node was low on resource: memory.", "PersistentVolumeClaim kept"):
        assert words in message
    assert "continues" not in message
    assert reasons(decision)["Admitted"] == ("False", "Released")


def test_an_old_loss_does_not_count() -> None:
    decision = decided(ready(**losing(TOLERATED, EARLIER)), pod=pod(status=EVICTED))
    assert decision.status.lost_pods is not None
    assert decision.status.lost_pods.count == 1


def test_a_pod_that_is_lost_before_it_was_ready_counts_too() -> None:
    starting = admitted(extra=[condition("PodReady", "False", "Creating")], status=KEPT)
    decision = decided(starting, pod=pod(status=EVICTED))
    assert decision.status.lost_pods is not None


def test_a_first_pod_that_is_not_there_yet_is_not_lost() -> None:
    for reason in ("Creating", "CreateFailed", "Misconfigured"):
        decision = decided(admitted(extra=[condition("PodReady", "False", reason)], status=KEPT))
        assert decision.status.lost_pods is None
        assert creates(decision) == 1


def test_a_successor_waits_for_a_class_that_went_away() -> None:
    lost = written(ready(), decided(ready()))
    decision = decided(lost, resolved_=NO_CLASS)
    assert reasons(decision)["PodReady"] == ("False", "Misconfigured")
    assert keeps_its_slot(decision)
    assert creates(decided(written(lost, decision))) == 1


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (pod(status=ended("Succeeded", report(outcome="Completed").model_dump_json())), "Completed"),
        (pod(status=ended("Failed", report(outcome="Failed").model_dump_json()), deleting=True), "Failed"),
        (pod(status=ended("Succeeded")), "Failed"),
    ],
)
def test_a_session_that_has_ended_is_not_continued(last: Pod, outcome: str) -> None:
    decision = decided(ready(), pod=last)
    assert reasons(decision)["Finished"] == ("True", outcome)
    assert decision.status.lost_pods is None
    assert not decision.actions


def test_a_session_whose_outcome_came_before_its_pod_was_lost_has_ended() -> None:
    decision = decided(ready(), said=report(outcome="Completed"))
    assert reasons(decision)["Finished"] == ("True", "Completed")
    assert not decision.actions


def test_a_pod_is_unschedulable_only_after_its_volume_had_time() -> None:
    """Each of the two would cost a write, and be an event that alarms for nothing."""
    status = pod_status("Pending", unschedulable="pod has unbound immediate PersistentVolumeClaims")
    status["conditions"][0]["lastTransitionTime"] = later(-4).isoformat()
    starting = admitted(extra=[condition("PodReady", "False", "Creating", STARTING_TEXT)], status=KEPT)
    decision = decided(starting, pod=pod(status=status))
    assert reasons(decision)["PodReady"] == ("False", "Creating")
    assert decision.look_again == timedelta(seconds=6)
    status["conditions"][0]["lastTransitionTime"] = later(-10).isoformat()
    decision = decided(starting, pod=pod(status=status))
    assert reasons(decision)["PodReady"] == ("False", "Unschedulable")
    assert "unbound" in told(decision, "PodReady").message
    assert reasons(decided(written(starting, decision), pod=pod(status=status)))["PodReady"] == ("False", "Unschedulable")
