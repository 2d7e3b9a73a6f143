"""What a session's report says, in the terms of its status."""

from __future__ import annotations

from datetime import UTC, datetime

from agentsession_operator.api.session import PendingApprovalStatus, UsageStatus
from session_runtime.wire import SessionReport


def reported(report: SessionReport) -> dict[str, object]:
    """The fields of the status that a report has something to say about."""
    usage = report.usage
    fields: dict[str, object] = {
        "usage": UsageStatus(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.input_tokens + usage.output_tokens,
            cost_usd=f"{usage.cost_usd:.6f}".rstrip("0").rstrip("."),
            llm_calls=usage.llm_calls,
            tool_calls=usage.tool_calls,
        ),
        "message_count": report.message_count,
    }
    if report.last_message is not None:
        fields["last_message"] = report.last_message
    if report.last_activity_time is not None:
        fields["last_activity_time"] = _utc(report.last_activity_time)
    # A map by id, in the schema; but not every model gives its calls different ones.
    pending = {call.tool_call_id: call for call in reversed(report.pending_approvals)}
    fields["pending_approvals"] = [
        PendingApprovalStatus(tool=call.tool, tool_call_id=call.tool_call_id, reason=call.reason or None)
        for call in reversed(pending.values())
    ]
    return fields


def _utc(moment: datetime) -> str:
    return (moment.astimezone(UTC) if moment.tzinfo else moment).strftime("%Y-%m-%dT%H:%M:%SZ")
