"""The reconciler's decision while a session runs: readiness, reports, crashes."""

from __future__ import annotations

import pytest

from support.control_plane.builders import (
    CRASHED,
    CREATED,
    EARLIER,
    READY,
    STARTING,
    admitted,
    condition,
    container,
    pod,
    pod_status,
    report,
    resolved,
    running,
    session,
)
from support.control_plane.decided import decided, reasons, told, written


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
        tool_problems=["docs: cannot be reached"],
        pending_approvals=[
            {"tool": "bash", "tool_call_id": "call_1", "arguments": {"command": "rm -r /"}, "reason": "it deletes"},
            {"tool": "bash", "tool_call_id": "call_2"},
            {
                "tool": "docs__book",
                "tool_call_id": "call_3",
                "reason": "the MCP server docs asks: Which seat?",
                "question": {"id": "question_1", "server": "docs", "message": "Which seat?"},
            },
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
    assert wire["toolProblems"] == ["docs: cannot be reached"]
    assert wire["pendingApprovals"] == [
        {"tool": "bash", "toolCallId": "call_1", "reason": "it deletes"},
        {"tool": "bash", "toolCallId": "call_2"},
        {
            "tool": "docs__book",
            "toolCallId": "call_3",
            "reason": "the MCP server docs asks: Which seat?",
            "questionId": "question_1",
        },
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
