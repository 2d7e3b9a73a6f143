"""The reconciler's decision from the first sight of a session to its pod's start."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agentsession_operator.api.conditions import AdmittedReason
from agentsession_operator.api.objects import Session
from agentsession_operator.api.session import QueuePlace
from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.decisions.decision import CreatePod
from agentsession_operator.decisions.patch import only_activity
from agentsession_operator.decisions.persistent import TOLERATED
from agentsession_operator.decisions.quotas.verdict import Wait
from support.control_plane.builders import (
    CRASHED,
    EARLIER,
    JSON,
    NO_CLASS,
    READY,
    STAMP,
    STARTING,
    admitted,
    condition,
    container,
    pod,
    pod_status,
    resolved,
    session,
    waiting,
)
from support.control_plane.decided import creates, decided, deletes, reasons, releases, told, written

QUEUED = Wait(AdmittedReason.GLOBAL_LIMIT_REACHED, "Queued: all slots are in use (50/50 sessions).", 3)


# Before admission.


def test_a_new_session_is_pending_and_has_no_conditions() -> None:
    decision = decided(session())
    assert (decision.status.phase, decision.status.conditions, decision.actions) == ("Pending", [], [])


def test_a_session_that_waits_says_for_which_cap_and_at_which_place() -> None:
    decision = decided(session(), verdict=QUEUED)
    assert reasons(decision) == {
        "Admitted": ("False", "GlobalLimitReached"),
        "Ready": ("False", "GlobalLimitReached"),
    }
    assert told(decision, "Ready").message == told(decision, "Admitted").message == QUEUED.message
    assert decision.status.queue == QueuePlace(position=3, since=STAMP)
    assert decision.status.phase == "Queued"
    assert not decision.actions


@pytest.mark.parametrize("reason", ["UserLimitReached", "GlobalLimitReached", "Queued"])
def test_the_reason_to_wait_is_the_admitters(reason: str) -> None:
    assert reasons(decided(session(), verdict=Wait(AdmittedReason(reason), "because", 1)))["Admitted"] == ("False", reason)


@pytest.mark.parametrize("position", [7, None])
def test_the_place_in_the_queue_is_told_where_it_is_known(position: int | None) -> None:
    queue = decided(session(), verdict=Wait(AdmittedReason.GLOBAL_LIMIT_REACHED, "", position)).status.queue
    assert queue == QueuePlace(position=position, since=STAMP)


def test_the_beginning_of_the_wait_stays_when_the_place_changes() -> None:
    before = session(status={"queue": {"position": 9, "since": EARLIER}})
    assert decided(before, verdict=QUEUED).status.queue == QueuePlace(position=3, since=EARLIER)


def test_a_misconfigured_session_is_stalled_with_the_message_that_names_the_field() -> None:
    decision = decided(session(), resolved_=NO_CLASS)
    assert reasons(decision) == {
        "Admitted": ("False", "Misconfigured"),
        "Ready": ("False", "Misconfigured"),
        "Stalled": ("True", "Misconfigured"),
    }
    assert told(decision, "Ready").message == NO_CLASS.message
    assert (decision.status.phase, decision.actions) == ("Pending", [])


def test_a_session_that_becomes_misconfigured_leaves_the_queue() -> None:
    waiting_ = session(
        status={
            "conditions": [condition("Admitted", "False", "GlobalLimitReached")],
            "queue": {"position": 1, "since": EARLIER},
        }
    )
    assert decided(waiting_, resolved_=NO_CLASS, verdict=QUEUED).status.queue is None


def test_a_mended_session_waits_and_is_not_stalled_any_more() -> None:
    broken = session(
        status={"conditions": [condition("Admitted", "False", "Misconfigured"), condition("Stalled", "True", "Misconfigured")]}
    )
    assert reasons(decided(broken, verdict=QUEUED)).keys() == {"Admitted", "Ready"}


def test_a_refused_pod_is_reported_while_the_session_waits() -> None:
    refusal = 'The API server refused the pod: pods "x" is forbidden: exceeded quota'
    decision = decided(session(), verdict=QUEUED, refusal=refusal)
    assert reasons(decision)["Admitted"] == ("False", "GlobalLimitReached")
    assert reasons(decision)["PodReady"] == reasons(decision)["Ready"] == ("False", "CreateFailed")
    assert "exceeded quota" in told(decision, "Ready").message
    backs_off = decided(session(), refusal=refusal)
    assert reasons(backs_off)["Admitted"] == ("False", "Queued")
    assert reasons(backs_off)["Ready"] == ("False", "CreateFailed")
    assert backs_off.status.queue == QueuePlace(position=None, since=STAMP)
    again = decided(written(session(), decision), verdict=QUEUED)
    assert "PodReady" not in reasons(again), "the refusal is over"


# The pod is the reservation.


def test_a_session_with_a_pod_holds_a_slot() -> None:
    decision = decided(session(), pod=pod(status=READY))
    assert reasons(decision) == {
        "Finished": ("False", "Running"),
        "Admitted": ("True", "Admitted"),
        "PodReady": ("True", "PodReady"),
        "Active": ("False", "NotStarted"),
        "Ready": ("True", "PodReady"),
    }
    assert (decision.status.phase, decision.status.model) == ("Running", "openai/small")
    assert (decision.status.pod_name, decision.status.pod_uid) == (pod().meta.name, pod().meta.uid)


def test_a_pod_is_a_reservation_whatever_the_status_says() -> None:
    """Somebody took the admission out of the status."""
    decision = decided(session(), pod=pod(status=READY), verdict=QUEUED)
    assert reasons(decision)["Admitted"] == ("True", "Admitted")
    assert not decision.actions


def test_nothing_is_written_of_a_pod_in_its_first_second() -> None:
    waiting_ = session(status={"queue": {"position": 1, "since": EARLIER}})
    decision = decided(waiting_, pod=pod(status=STARTING), created_ago=0.4)
    assert decision.status == waiting_.status
    assert decision.look_again == timedelta(seconds=0.6)
    assert reasons(decided(waiting_, pod=pod(status=READY), created_ago=0.4))["Ready"] == ("True", "PodReady")
    late = decided(waiting_, pod=pod(status=STARTING), created_ago=1)
    assert reasons(late)["Admitted"] == ("True", "Admitted")
    assert reasons(late)["PodReady"] == ("False", "Creating")
    assert late.status.queue is None


def test_nothing_is_decided_while_a_pod_is_being_created() -> None:
    for of in (session(), session(status={"conditions": [condition("Admitted", "False", "Queued")]}), admitted()):
        decision = decided(of, verdict=QUEUED, creating=True)
        assert (decision.status, list(decision.actions)) == (of.status, [])


def test_the_workspace_of_a_session_is_that_of_its_pod() -> None:
    """An operator that starts between the pod and the first status knows it from the pod, even if the class has changed."""
    kept = pod(status=READY, workspace={"claimName": "x", "size": "5Gi"})
    decision = decided(session(), pod=kept, resolved_=resolved())
    assert decision.status.workspace == WorkspaceStatus(claim_name="x", size="5Gi")


def test_a_session_keeps_the_workspace_that_it_got_though_its_class_changes() -> None:
    larger = resolved(workspace={"type": "Persistent", "size": "9Gi"})
    kept = admitted(status={"workspace": {"claimName": "x", "size": "5Gi"}})
    for now in (larger, resolved()):
        decision = decided(kept, resolved_=now)
        assert decision.status.workspace == kept.status.workspace
        assert decision.actions == [CreatePod(kept.status.workspace)]


def test_a_held_slot_survives_a_class_that_went_away() -> None:
    kept = admitted(status={"workspace": {"claimName": "x", "size": "5Gi"}})
    decision = decided(kept, resolved_=NO_CLASS)
    assert reasons(decision)["Admitted"] == ("True", "Admitted")
    assert reasons(decision)["PodReady"] == reasons(decision)["Ready"] == ("False", "Misconfigured")
    assert not decision.actions


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (STARTING, "Creating"),
        (pod_status("Pending", unschedulable="0/1 nodes are available"), "Unschedulable"),
        (pod_status("Pending", container("agent", waiting("ErrImagePull", "not found"))), "ImageError"),
        (pod_status("Pending", container("agent", waiting("CreateContainerConfigError", "no secret"))), "ContainerError"),
        (CRASHED, "Crashed"),
    ],
)
def test_what_keeps_the_pod_from_running_is_the_reason_of_ready(status: JSON, reason: str) -> None:
    decision = decided(admitted(), pod=pod(status=status))
    assert reasons(decision)["PodReady"] == reasons(decision)["Ready"] == ("False", reason)
    assert decision.status.phase == "Starting"
    assert not decision.actions


NEVER_RAN = [
    pod_status("Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu"),
    pod_status("Failed", reason="UnexpectedAdmissionError", message="Allocate failed"),
    pod_status("Failed", container("agent", waiting("ContainerCreating"))),
]


@pytest.mark.parametrize("status", NEVER_RAN)
@pytest.mark.parametrize("deleting", [True, False])
def test_a_pod_of_which_nothing_ran_is_created_again(status: JSON, deleting: bool) -> None:
    """A kubelet gives a deleted pod its last phase before it lets it go (KEP-3329), also one that never ran."""
    rejected = pod(status=status, deleting=deleting)
    known = admitted(status={"podUID": rejected.meta.uid})
    first = decided(known, pod=rejected)
    assert reasons(first)["Finished"] == ("False", "Running")
    assert reasons(first)["Admitted"] == ("True", "Admitted")
    assert reasons(first)["PodReady"] == ("False", "PodRejected")
    assert "created again" in told(first, "Ready").message
    assert not first.actions, "the loss is written before anything is done about it"
    second = decided(written(known, first), pod=rejected)
    assert deletes(second) == ([] if deleting else ["pod-of-demo"])
    assert releases(second) == ["pod-of-demo"]
    assert decided(written(known, first)).actions == [CreatePod(None)]


def test_a_pod_that_is_rejected_again_and_again_fails_the_session() -> None:
    rejected = pod(status=NEVER_RAN[0])
    known = admitted(status={"podUID": rejected.meta.uid, "lostPods": {"count": TOLERATED, "lastTime": STAMP}})
    decision = decided(known, pod=rejected)
    assert reasons(decision)["Finished"] == ("True", "Failed")
    for words in (f"rejected {TOLERATED + 1} times", "OutOfcpu"):
        assert words in told(decision, "Finished").message


def test_an_ephemeral_session_that_had_a_pod_never_gets_another() -> None:
    for of in (admitted(status={"podUID": "gone"}), admitted(), session(status={"podUID": "gone"})):
        decision = decided(of, verdict=QUEUED)
        assert creates(decision) == 0
        assert reasons(decision)["Finished"] == ("True", "Failed")
        assert reasons(decision)["PodReady"] == ("False", "PodGone")
        assert "Apply the session again" in told(decision, "Finished").message


# Details that hold everywhere.


def test_conditions_carry_the_generation_that_was_looked_at() -> None:
    body: dict[str, Any] = {"generation": 4}
    of = session()
    newer = Session(type(of.meta)(**{**{f: getattr(of.meta, f) for f in of.meta.__slots__}, **body}), of.spec, of.status)
    decision = decided(newer, verdict=QUEUED)
    assert decision.status.observed_generation == 4
    assert {item.observed_generation for item in decision.status.conditions} == {4}


def test_progress_alone_may_wait_to_be_written_and_anything_else_may_not() -> None:
    assert only_activity({"usage": {"llmCalls": 3}, "messageCount": 4, "lastMessage": "x", "lastActivityTime": STAMP})
    for field in ("phase", "conditions", "pendingApprovals", "startTime", "queue", "podName"):
        assert not only_activity({"usage": {}, field: None})


def test_a_cut_condition_message_ends_with_an_ellipsis() -> None:
    message = told(decided(session(), verdict=QUEUED, refusal="x" * 5000), "PodReady").message
    assert len(message) == 2048
    assert message.endswith("x…")
