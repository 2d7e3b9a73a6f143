"""Decisions on sessions whose workspace is persistent: their pods are lost and replaced."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.decisions.facts import CreatePod, Decision
from agentsession_operator.decisions.podstate import STARTING as STARTING_TEXT
from agentsession_operator.decisions.replacement import TOLERATED
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
    resolved,
)
from tests.unit.operator.test_decide import creates, decided, deletes, reasons, told, written

KEPT: JSON = {"workspace": {"claimName": "kept", "size": "5Gi"}}
TALKS = condition("PodReady", "True", "PodReady")
EVICTED = pod_status("Failed", reason="Evicted", message="The node was low on resource: memory.")


def ready(**status: object) -> Session:
    """A persistent session that could be talked to a moment ago."""
    return admitted(extra=[TALKS, condition("Active", "True", "Idle")], status={**KEPT, "startTime": EARLIER, **status})


def losing(count: int, last: str = STAMP) -> JSON:
    return {"lostPods": {"count": count, "lastTime": last}}


def keeps_its_slot(decision: Decision) -> bool:
    return reasons(decision)["Admitted"] == ("True", "Admitted") and reasons(decision)["Finished"] == ("False", "Running")


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (None, "PodGone"),
        (pod(status=READY, deleting=True), "PodGone"),
        (pod(status=EVICTED), "Evicted"),
        (pod(status=ended("Failed", code=143)), "PodGone"),
        (pod(status=ended("Failed", code=143), deleting=True), "PodGone"),
    ],
)
def test_a_lost_pod_is_told_and_its_session_keeps_the_slot(lost: Pod | None, reason: str) -> None:
    decision = decided(ready(), pod=lost)
    assert keeps_its_slot(decision)
    assert reasons(decision)["PodReady"] == reasons(decision)["Ready"] == ("False", reason)
    assert reasons(decision)["Active"] == ("False", "Stopped")
    assert "Another one continues the session" in told(decision, "Ready").message
    assert decision.status.phase == "Starting"
    assert decision.status.lost_pods is not None
    assert (decision.status.lost_pods.count, decision.status.lost_pods.last_time) == (1, STAMP)
    assert not decision.actions, "the loss is written before anything is done about it"


@pytest.mark.parametrize(
    ("lost", "deleted"),
    [
        (pod(status=EVICTED), ["pod-of-demo"]),
        (pod(status=EVICTED, deleting=True), []),
        (pod(status=READY, deleting=True), []),
    ],
)
def test_the_name_of_a_failed_pod_is_freed_and_a_pod_on_its_way_out_is_waited_for(lost: Pod, deleted: list[str]) -> None:
    known = written(ready(), decided(ready(), pod=lost))
    assert deletes(decided(known, pod=lost)) == deleted
    assert creates(decided(known, pod=lost)) == 0


def test_a_lost_pod_is_replaced_once_the_loss_is_written_and_counted_once() -> None:
    first = decided(ready(), pod=pod(status=READY, deleting=True))
    going = written(ready(), first)
    assert decided(going, pod=pod(status=READY, deleting=True)).status == first.status
    decision = decided(going)
    assert decision.status == first.status
    assert decision.actions == (CreatePod(resolved(), going.status.workspace),)


def test_the_successor_starts_as_any_pod_and_is_not_told_as_one_that_has_stopped_answering() -> None:
    lost = written(ready(), decided(ready()))
    decision = decided(lost, pod=pod(uid="second", status=STARTING))
    assert reasons(decision)["PodReady"] == ("False", "Creating")
    again = decided(written(lost, decision), pod=pod(uid="second", status=READY))
    assert reasons(again)["Ready"] == ("True", "PodReady")
    assert again.status.start_time == EARLIER


@pytest.mark.parametrize(("count", "seconds"), [(2, 5), (3, 10), (TOLERATED, 160)])
def test_a_pod_that_is_lost_again_and_again_is_replaced_later_each_time(count: int, seconds: int) -> None:
    gone = admitted(extra=[condition("PodReady", "False", "Evicted")], status={**KEPT, **losing(count)})
    decision = decided(gone)
    assert creates(decision) == 0
    assert decision.look_again == timedelta(seconds=seconds)
    assert keeps_its_slot(decision)


def test_the_eighth_loss_in_a_row_fails_the_session_and_says_why_and_where_its_work_is() -> None:
    decision = decided(ready(**losing(TOLERATED)), pod=pod(status=EVICTED))
    assert reasons(decision)["Finished"] == ("True", "Failed")
    message = told(decision, "Finished").message
    for words in (f"lost {TOLERATED + 1} pods in a row", "The node was low on resource: memory.", "PersistentVolumeClaim kept"):
        assert words in message
    assert "continues" not in message
    assert reasons(decision)["Admitted"] == ("False", "Released")


def test_the_slot_of_a_session_that_is_given_up_is_held_until_its_pod_is_gone() -> None:
    decision = decided(ready(**losing(TOLERATED)), pod=pod(status=READY, deleting=True))
    assert reasons(decision)["Finished"] == ("True", "Failed")
    assert reasons(decision)["Admitted"] == ("True", "Admitted")


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


def test_a_pod_whose_volume_is_being_made_is_starting_and_only_after_some_seconds_unschedulable() -> None:
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
