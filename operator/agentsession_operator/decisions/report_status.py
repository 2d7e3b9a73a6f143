"""What a session's report says, in the terms of its status."""

from __future__ import annotations

from agentsession_operator.api.session import PendingApprovalStatus, UsageStatus
from agentsession_operator.api.times import rfc3339
from agentsession_operator.decisions.standing import Standing
from session_runtime.wire import PendingApproval, SessionReport, Usage


def take_report(standing: Standing, report: SessionReport | None) -> None:
    """Put what a report says into the status; nothing without one. Times without an offset are UTC."""
    if report is None:
        return
    standing.usage = _usage(report.usage)
    standing.message_count = report.message_count
    standing.pending_approvals = _pending(report.pending_approvals)
    standing.tool_problems = list(report.tool_problems)
    if report.last_message is not None:
        standing.last_message = report.last_message
    if (moment := report.last_activity_time) is not None:
        standing.last_activity_time = rfc3339(moment) if moment.tzinfo else f"{moment.isoformat(timespec='seconds')}Z"


def _usage(usage: Usage) -> UsageStatus:
    return UsageStatus(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        cost_usd=f"{usage.cost_usd:.6f}".rstrip("0").rstrip("."),
        llm_calls=usage.llm_calls,
        tool_calls=usage.tool_calls,
    )


def _pending(calls: tuple[PendingApproval, ...]) -> list[PendingApprovalStatus]:
    """A map by id, in the schema; but not every model gives its calls different ones."""
    first = {call.tool_call_id: call for call in reversed(calls)}
    return [
        PendingApprovalStatus(
            tool=call.tool,
            tool_call_id=call.tool_call_id,
            reason=call.reason or None,
            question_id=None if call.question is None else call.question.id,
        )
        for call in reversed(first.values())
    ]
