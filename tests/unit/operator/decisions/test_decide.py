"""The reconciler's decision at each stage of a session's life."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agentsession_operator.api.conditions import AdmittedReason
from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.api.session import QueuePlace
from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.decisions.admission import Wait
from agentsession_operator.decisions.decide import POSITIONS_SHOWN
from agentsession_operator.decisions.decision import CreatePod
from agentsession_operator.decisions.patch import only_activity
from agentsession_operator.decisions.persistent import TOLERATED
from support.control_plane.builders import (
    COMPLETED,
    CREATED,
    EARLIER,
    JSON,
    NO_CLASS,
    READY,
    STAMP,
    STARTING,
    admitted,
    condition,
    container,
    ended,
    finished,
    later,
    pod,
    pod_status,
    report,
    resolved,
    running,
    session,
    terminated,
    waiting,
)
from support.control_plane.decided import creates, decided, deletes, reasons, releases, told, written

QUEUED = Wait(AdmittedReason.GLOBAL_LIMIT_REACHED, "Queued: all slots are in use (50/50 sessions).", 3)
CRASHED = pod_status(
    "Running",
    container("agent", waiting("CrashLoopBackOff"), last=terminated(1), restarts=2),
    container("workspace", running(), ready=True),
)
STARTED: JSON = {"startTime": EARLIER}


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


def test_only_those_near_the_front_are_told_their_place() -> None:
    for position, shown in ((POSITIONS_SHOWN, POSITIONS_SHOWN), (POSITIONS_SHOWN + 1, None)):
        queue = decided(session(), verdict=Wait(AdmittedReason.GLOBAL_LIMIT_REACHED, "", position)).status.queue
        assert queue == QueuePlace(position=shown, since=STAMP)


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
    """An operator that starts between the pod and the first status knows it from the pod, whatever the class has become."""
    kept = pod(status=READY, workspace={"claimName": "x", "size": "5Gi"})
    decision = decided(session(), pod=kept, resolved_=resolved())
    assert decision.status.workspace == WorkspaceStatus(claim_name="x", size="5Gi")


def test_a_session_keeps_the_workspace_that_it_got_though_its_class_changes() -> None:
    larger = resolved(workspace={"type": "Persistent", "size": "9Gi"})
    kept = admitted(status={"workspace": {"claimName": "x", "size": "5Gi"}})
    for now in (larger, resolved()):
        decision = decided(kept, resolved_=now)
        assert decision.status.workspace == kept.status.workspace
        assert decision.actions == [CreatePod(now, kept.status.workspace)]


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
    assert decided(written(known, first)).actions == [CreatePod(resolved(), None)]


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


# Running.


def test_a_ready_pod_makes_a_session_that_can_be_talked_to() -> None:
    decision = decided(admitted(extra=[condition("Active", "False", "NotStarted")]), pod=pod(status=READY))
    assert reasons(decision)["PodReady"] == reasons(decision)["Ready"] == ("True", "PodReady")
    assert decision.status.start_time == EARLIER
    assert decision.status.phase == "Running"


def test_the_start_time_is_written_once() -> None:
    before = admitted(status={"startTime": CREATED})
    assert decided(before, pod=pod(status=READY)).status.start_time == CREATED


@pytest.mark.parametrize(
    ("activity", "phase"), [("Processing", "Running"), ("AwaitingApproval", "AwaitingApproval"), ("Idle", "Idle")]
)
def test_what_the_agent_does_is_its_activity(activity: str, phase: str) -> None:
    decision = decided(admitted(), pod=pod(status=READY), said=report(activity=activity))
    assert reasons(decision)["Active"] == ("True", activity)
    assert decision.status.phase == phase


def test_a_session_that_goes_on_without_budget_says_so() -> None:
    said = report(activity="Idle", budget_used_up="10 tokens are used up")
    decision = decided(admitted(), pod=pod(status=READY), said=said)
    assert told(decision, "Active").message == "No further model calls: 10 tokens are used up."
    assert (reasons(decision)["Active"], decision.status.phase) == (("True", "Idle"), "Idle")


def test_a_report_fills_the_status() -> None:
    said = report(
        usage={"input_tokens": 1200, "output_tokens": 34, "cost_usd": 0.0125, "llm_calls": 3, "tool_calls": 2},
        message_count=7,
        last_activity_time="2026-05-04T11:59:58Z",
        last_message="Done.",
        pending_approvals=[
            {"tool": "bash", "tool_call_id": "call_1", "arguments": {"command": "rm -r /"}, "reason": "it deletes"},
            {"tool": "bash", "tool_call_id": "call_2"},
        ],
    )
    wire = decided(admitted(), pod=pod(status=READY), said=said).status.to_wire()
    assert wire["usage"] == {
        "inputTokens": 1200,
        "outputTokens": 34,
        "totalTokens": 1234,
        "costUSD": "0.0125",
        "llmCalls": 3,
        "toolCalls": 2,
    }
    assert (wire["messageCount"], wire["lastMessage"]) == (7, "Done.")
    assert wire["lastActivityTime"] == "2026-05-04T11:59:58Z"
    assert wire["pendingApprovals"] == [
        {"tool": "bash", "toolCallId": "call_1", "reason": "it deletes"},
        {"tool": "bash", "toolCallId": "call_2"},
    ]


@pytest.mark.parametrize(
    ("cost", "text"),
    [(0.0, "0"), (10.0, "10"), (0.5, "0.5"), (0.000001, "0.000001"), (0.0000001, "0"), (1234.567891, "1234.567891")],
)
def test_a_cost_is_a_plain_decimal(cost: float, text: str) -> None:
    usage = decided(admitted(), pod=pod(status=READY), said=report(usage={"cost_usd": cost})).status.usage
    assert usage is not None
    assert usage.cost_usd == text


def test_times_of_reports_are_written_in_utc() -> None:
    said = report(last_activity_time="2026-05-04T13:30:00+02:00")
    assert decided(admitted(), pod=pod(status=READY), said=said).status.last_activity_time == "2026-05-04T11:30:00Z"


def test_two_pending_calls_of_one_id_make_one_entry() -> None:
    """`pendingApprovals` is a map by toolCallId, and not every model gives its calls different ids."""
    twice = [{"tool": tool, "tool_call_id": "call_0"} for tool in ("read", "bash")]
    said = report(activity="AwaitingApproval", pending_approvals=twice)
    pending = decided(admitted(), pod=pod(status=READY), said=said).status.pending_approvals
    assert [call.tool_call_id for call in pending] == ["call_0"]


def test_a_report_before_ready_is_not_worth_a_write() -> None:
    before = decided(admitted(), pod=pod(status=STARTING)).status
    assert decided(admitted(), pod=pod(status=STARTING), said=report(message_count=1)).status == before


def test_a_report_without_a_last_message_keeps_the_last_one() -> None:
    before = admitted(status={"lastMessage": "Hello."})
    assert decided(before, pod=pod(status=READY), said=report()).status.last_message == "Hello."


def test_the_model_is_that_with_which_the_pod_was_made() -> None:
    before = admitted(status={"model": "openai/small"})
    changed = resolved(agent={"model": "openai/large"})
    assert decided(before, resolved_=changed, pod=pod(status=READY)).status.model == "openai/small"


def test_a_crash_is_reported_and_left_to_the_kubelet() -> None:
    before = admitted(extra=[condition("Active", "True", "Processing"), condition("PodReady", "True", "PodReady")])
    decision = decided(before, pod=pod(status=CRASHED), said=report(activity="Processing"))
    assert reasons(decision)["PodReady"] == ("False", "Crashed")
    assert reasons(decision)["Active"] == ("False", "Stopped")
    assert reasons(decision)["Finished"] == ("False", "Running")
    assert decision.status.start_time == EARLIER
    assert not decision.actions


def test_a_session_that_stops_answering_is_not_ready_in_the_kubelets_words() -> None:
    ready = decided(session(), pod=pod(status=READY))
    silent = pod_status("Running", container("agent", running()), container("workspace", running(), ready=True))
    decision = decided(written(session(), ready), pod=pod(status=silent))
    assert reasons(decision)["PodReady"] == ("False", "NotReady")
    assert told(decision, "Ready").message == "containers with unready status: [agent]"
    assert decision.status.phase == "Running"
    again = decided(written(session(), decision), pod=pod(status=silent))
    assert reasons(again)["PodReady"] == ("False", "NotReady")


# The end.


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
    last = report(outcome="Failed", pending_approvals=[{"tool": "bash", "tool_call_id": "1"}])
    assert not decided(admitted(), pod=pod(status=ended(message=last.model_dump_json()))).status.pending_approvals


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
    """Its workspace has ended, its agent is about to: the pod's end tells it all, in one write."""
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
    """The kubelet does not start an agent again that ended with 0: such a pod would hold its slot for ever."""

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


# After the end.


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
