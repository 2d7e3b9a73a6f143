"""The reconciler's decision when a session ends, and afterwards."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agentsession_operator.api.conditions import AdmittedReason
from agentsession_operator.api.objects import Pod
from agentsession_operator.decisions.quotas.verdict import Wait
from support.control_plane.builders import (
    COMPLETED,
    EARLIER,
    JSON,
    READY,
    STAMP,
    admitted,
    condition,
    container,
    ended,
    finished,
    later,
    pod,
    pod_status,
    report,
    running,
    session,
    terminated,
    waiting,
)
from support.control_plane.decided import decided, deletes, reasons, told, written

STARTED: JSON = {"startTime": EARLIER}
QUEUED = Wait(AdmittedReason.GLOBAL_LIMIT_REACHED, "Queued: all slots are in use (50/50 sessions).", 3)


def test_the_outcome_is_that_of_the_report_in_the_termination_message() -> None:
    last = report(outcome="Completed", outcome_message="All done.", message_count=4, last_message="Bye.", sequence=9)
    decision = decided(admitted(status=STARTED), pod=pod(status=ended(message=last.model_dump_json())))
    assert reasons(decision)["Finished"] == ("True", "Completed")
    assert told(decision, "Finished").message == "All done."
    assert reasons(decision)["Admitted"] == ("False", "Released")
    assert reasons(decision)["Active"] == ("False", "Stopped")
    assert reasons(decision)["PodReady"] == ("False", "PodEnded")
    assert (decision.status.message_count, decision.status.last_message) == (4, "Bye.")
    assert (decision.status.phase, decision.status.finish_time) == ("Completed", STAMP)


def test_the_outcome_that_was_received_counts_where_the_pod_left_none() -> None:
    decision = decided(
        admitted(status=STARTED), pod=pod(status=ended()), said=report(outcome="Failed", outcome_message="No key.")
    )
    assert reasons(decision)["Finished"] == ("True", "Failed")
    assert told(decision, "Finished").message == "No key."


def test_a_task_without_budget_left_says_so_and_gives_back_its_slot() -> None:
    last = report(outcome="BudgetExceeded", outcome_message="10 tokens are used up.")
    decision = decided(admitted(status=STARTED), pod=pod(status=ended(message=last.model_dump_json())))
    assert reasons(decision)["Finished"] == ("True", "BudgetExceeded")
    assert reasons(decision)["Admitted"] == ("False", "Released")
    assert told(decision, "Ready").message == "10 tokens are used up."
    assert decision.status.phase == "Failed"


def test_a_task_that_was_never_seen_ready_has_its_times() -> None:
    last = report(outcome="Completed")
    status = decided(admitted(), pod=pod(status=ended(message=last.model_dump_json()))).status
    assert (status.start_time, status.finish_time) == (EARLIER, STAMP)


def test_nothing_is_pending_when_the_session_has_finished() -> None:
    last = report(outcome="Failed", pending_approvals=[{"tool": "bash", "tool_call_id": "1"}], tool_problems=["docs: away"])
    status = decided(admitted(), pod=pod(status=ended(message=last.model_dump_json()))).status
    assert (status.pending_approvals, status.tool_problems) == ([], [])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (pod_status("Failed", reason="Evicted", message="The node was low on resource: memory."), "low on resource"),
        (ended("Failed", code=1), "The pod has failed"),
        (ended("Succeeded"), "exited without reporting an outcome"),
    ],
)
def test_an_end_without_a_report_is_a_failure(status: JSON, words: str) -> None:
    decision = decided(admitted(status=STARTED), pod=pod(status=status))
    assert reasons(decision)["Finished"] == ("True", "Failed")
    assert words in told(decision, "Finished").message
    assert reasons(decision)["Stalled"] == ("True", "Failed")
    assert decision.status.phase == "Failed"


def test_an_evicted_pod_is_told_as_evicted() -> None:
    evicted = pod_status("Failed", reason="Evicted", message="The node was low on resource: memory.")
    assert reasons(decided(admitted(status=STARTED), pod=pod(status=evicted)))["PodReady"] == ("False", "Evicted")


def test_a_pod_that_is_lost_after_its_start_fails_the_session() -> None:
    decision = decided(admitted(status=STARTED))
    assert reasons(decision)["Finished"] == ("True", "Failed")
    assert reasons(decision)["PodReady"] == ("False", "PodGone")
    assert reasons(decision)["Admitted"] == ("False", "Released")
    assert not decision.actions


def test_a_loss_after_the_outcome_was_reported_changes_nothing() -> None:
    decision = decided(admitted(status=STARTED), said=report(outcome="Completed", outcome_message="All done."))
    assert reasons(decision)["Finished"] == ("True", "Completed")


@pytest.mark.parametrize("outcome", [None, "Completed"])
def test_a_pod_that_reported_has_started_though_nobody_saw_it_ready(outcome: str | None) -> None:
    """Its prompt has been worked on: it is not worked on a second time."""
    decision = decided(admitted(), said=report(outcome=outcome))
    assert not decision.actions
    assert reasons(decision)["Finished"] == ("True", outcome or "Failed")


def test_the_start_of_a_pod_deleted_before_ready_is_recorded() -> None:
    starting = pod_status("Running", container("agent", running()), container("workspace", waiting("ContainerCreating")))
    assert decided(admitted(), pod=pod(status=starting)).status.start_time is None
    assert decided(admitted(), pod=pod(status=starting, deleting=True)).status.start_time == EARLIER


def test_a_pod_that_lingers_after_its_outcome_has_a_grace_period() -> None:
    decision = decided(admitted(status=STARTED), pod=pod(status=READY), said=report(outcome="Completed"), ago=59)
    assert (decision.actions, decision.look_again) == ([], timedelta(seconds=1))
    assert reasons(decision)["Finished"] == ("False", "Running")


def test_a_pod_whose_session_is_over_is_not_told_as_not_ready() -> None:
    """Its workspace has ended, its agent is about to: the pod's end reports both, in one write."""
    going = pod_status("Running", container("agent", running(), ready=True), container("workspace", terminated(0)))
    ready = admitted(extra=[condition("PodReady", "True", "PodReady")], status=STARTED)
    decision = decided(ready, pod=pod(status=going), said=report(outcome="Completed"), ago=1)
    assert reasons(decision)["PodReady"] == ("True", "PodReady")
    assert decision.look_again == timedelta(seconds=59)


def test_then_its_outcome_is_written_and_only_then_it_is_deleted() -> None:
    """An operator that restarts in between has no report any more, and would find a pod that is gone."""
    lingering = pod(status=READY)
    late = decided(admitted(status=STARTED), pod=lingering, said=report(outcome="Completed"), ago=60)
    assert (late.actions, late.look_again) == ([], None)
    assert reasons(late)["Finished"] == ("True", "Completed")
    assert reasons(late)["Admitted"] == ("True", "Admitted")
    assert deletes(decided(written(admitted(), late), pod=lingering)) == ["pod-of-demo"]


def test_a_lingering_pod_that_is_being_deleted_is_not_deleted_again() -> None:
    decision = decided(
        admitted(status=STARTED), pod=pod(status=READY, deleting=True), said=report(outcome="Completed"), ago=600
    )
    assert (decision.actions, decision.look_again) == ([], None)


@pytest.mark.parametrize("last", [report(outcome="Completed").model_dump_json(), ""], ids=["with a report", "without"])
def test_an_operator_that_was_away_ends_a_lingering_workspace(last: str) -> None:
    """The kubelet does not restart an agent that exited with 0: such a pod would hold its slot indefinitely."""

    def lingering(ended_ago: float) -> Pod:
        over = terminated(0, reason="Completed", message=last, ended=later(-ended_ago).strftime("%Y-%m-%dT%H:%M:%SZ"))
        return pod(status=pod_status("Running", container("agent", over), container("workspace", running(), ready=True)))

    early = decided(admitted(status=STARTED), pod=lingering(45))
    assert (early.actions, early.look_again) == ([], timedelta(seconds=15))
    assert "PodReady" not in reasons(early), "told with the end, in one write"
    assert early.status.finish_time is None
    late = decided(admitted(status=STARTED), pod=lingering(60))
    assert reasons(late)["Finished"] == ("True", "Completed" if last else "Failed")
    assert reasons(late)["Admitted"] == ("True", "Admitted")
    assert decided(admitted(), pod=lingering(60)).status.start_time == EARLIER, "though nobody saw it ready"
    assert deletes(decided(written(admitted(), late), pod=lingering(61))) == ["pod-of-demo"]


def test_a_finished_session_stays_as_it_is() -> None:
    done = finished()
    decision = decided(done, said=report(outcome="Failed"), verdict=QUEUED)
    assert reasons(decision)["Finished"] == ("True", "Completed")
    assert reasons(decision)["Admitted"] == ("False", "Released")
    assert not decision.actions


def test_a_pod_that_outlives_its_session_holds_the_slot_until_deleted() -> None:
    decision = decided(finished(released=False), pod=pod(status=READY))
    assert deletes(decision) == ["pod-of-demo"]
    assert reasons(decision)["Admitted"] == ("True", "Admitted")
    assert not decided(finished(released=False), pod=pod(status=READY, deleting=True)).actions


@pytest.mark.parametrize("last", [None, pod(status=ended())])
def test_a_finished_session_releases_its_slot_with_its_pods_end(last: Pod | None) -> None:
    assert reasons(decided(finished(released=False), pod=last))["Admitted"] == ("False", "Released")


@pytest.mark.parametrize(
    ("mode", "reason", "ready", "stalled"),
    [
        ("Task", "Completed", "True", False),
        ("Interactive", "Completed", "False", False),
        ("Task", "Failed", "False", True),
        ("Task", "BudgetExceeded", "False", True),
    ],
)
def test_ready_at_the_end_says_what_kubectl_wait_should_hear(mode: str, reason: str, ready: str, stalled: bool) -> None:
    over = session(
        mode=mode,
        prompt="hi",
        status={"conditions": [{**COMPLETED, "reason": reason}, condition("Admitted", "False", "Released")]},
    )
    decision = decided(over)
    assert reasons(decision)["Ready"] == (ready, reason)
    assert ("Stalled" in reasons(decision)) is stalled
