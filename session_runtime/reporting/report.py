"""The report to the operator, as a function of the session's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.budget import Budget
from agent.messages import Usage as AgentUsage
from session_runtime.session.snapshot import Snapshot
from session_runtime.wire import (
    LAST_MESSAGE_BYTES,
    PendingApproval,
    PendingQuestion,
    SessionConfig,
    SessionReport,
    Usage,
)

TERMINATION_BYTES: Final = 4096
"""The kubelet reads no more of a termination message (per container; 12 KiB in all)."""

ESSENTIAL_BYTES: Final = 1024
"""What the kubelet keeps of each message in a pod of twelve containers."""

ARGUMENT_CHARACTERS: Final = 500
"""Longest text in the arguments of a call that waits for approval; the whole is at `GET /v1/session`."""

MAX_APPROVALS: Final = 16

MAX_PROBLEMS: Final = 8

PROBLEM_BYTES: Final = 300
"""Longest text of a problem with a server of tools; the whole is at `GET /v1/session`."""


def build(snapshot: Snapshot, config: SessionConfig, sequence: int = 0) -> SessionReport:
    """The report of this moment. Its outcome is set as soon as it is decided."""
    ending = snapshot.ending
    return SessionReport(
        session_uid=config.uid,
        sequence=sequence,
        activity=snapshot.activity if ending is None else "Idle",
        usage=usage(snapshot.usage),
        message_count=len(snapshot.messages),
        last_activity_time=snapshot.last_activity_time,
        last_message=None if snapshot.last_message is None else cut(snapshot.last_message, LAST_MESSAGE_BYTES),
        pending_approvals=tuple(_brief(approval) for approval in pending(snapshot)[:MAX_APPROVALS]),
        tool_problems=_tool_problems(snapshot) if ending is None else (),
        budget_used_up=_budget_used_up(config, snapshot),
        outcome=None if ending is None else ending.outcome,
        outcome_message=None if ending is None else ending.message,
    )


def pending(snapshot: Snapshot) -> list[PendingApproval]:
    """What waits for a person: calls for a decision, and calls that run for an answer."""
    approvals = [
        PendingApproval(tool=p.tool, tool_call_id=p.tool_call_id, arguments=p.arguments, reason=p.reason)
        for p in snapshot.pending
    ]
    questions = [
        PendingApproval(
            tool=q.tool,
            tool_call_id=q.tool_call_id,
            arguments=q.arguments,
            reason=q.question.reason,
            question=PendingQuestion(
                id=q.id,
                server=q.question.server,
                message=q.question.message,
                form=None if q.question.form is None else dict(q.question.form),
                url=q.question.url,
            ),
        )
        for q in snapshot.questions
    ]
    return [*questions, *approvals]


def _tool_problems(snapshot: Snapshot) -> tuple[str, ...]:
    return tuple(cut(problem, PROBLEM_BYTES) for problem in snapshot.problems[:MAX_PROBLEMS])


def _budget_used_up(config: SessionConfig, snapshot: Snapshot) -> str | None:
    limit = config.agent.budget
    return Budget(limit.tokens, limit.cost_usd).exhausted_by(snapshot.usage)


def differs(before: SessionReport, after: SessionReport) -> bool:
    """Whether the operator must hear of it now. That time goes by, it hears with the next report."""
    ignored = {"sequence": 0, "last_activity_time": None}
    return before.model_copy(update=ignored) != after.model_copy(update=ignored)


def termination_message(report: SessionReport) -> str:
    """The report as one or two lines of JSON, in at most TERMINATION_BYTES.

    With more containers in the pod (an injected sidecar) the kubelet keeps less of each message, from its beginning. So what
    must be known, outcome and usage, stands first, in a line of its own of at most ESSENTIAL_BYTES; the whole report follows
    where it is more than that.
    """
    whole = report.model_dump_json()
    if len(whole.encode()) <= ESSENTIAL_BYTES:
        return whole
    bare = report.model_copy(update={"last_message": None, "pending_approvals": ()})
    essential = _fitted(bare, ESSENTIAL_BYTES)
    return f"{essential}\n{_fitted(report, TERMINATION_BYTES - len(essential.encode()) - 1)}"


def _fitted(report: SessionReport, limit: int) -> str:
    """The report as JSON in at most `limit` bytes: the last message gives way first, then what else can be long."""
    for update in ({}, {"pending_approvals": ()}):
        report = report.model_copy(update=update)
        text = report.model_dump_json()
        if len(text.encode()) <= limit:
            return text
        for field in ("last_message", "outcome_message", "budget_used_up"):
            report = _shortened(report, field, limit)
            text = report.model_dump_json()
            if len(text.encode()) <= limit:
                return text
    raise ValueError("the fields of fixed size alone are longer than a termination message")


def usage(used: AgentUsage) -> Usage:
    """The agent's counts in the terms of the wire."""
    return Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cost_usd=used.spent_usd,
        llm_calls=used.llm_calls,
        tool_calls=used.tool_calls,
    )


def cut(text: str, limit: int) -> str:
    """`text`, or its beginning and an ellipsis, in at most `limit` bytes of UTF-8."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: max(0, limit - 3)].decode("utf-8", "ignore") + "…" if limit >= 3 else ""


def _shortened(report: SessionReport, field: str, limit: int) -> SessionReport:
    """With so much less in this field that the whole fits, or with none of it."""
    value: str | None = getattr(report, field)
    low, high = 0, 0 if value is None else len(value.encode())
    while value is not None and low < high:  # JSON escapes make the size of a text a matter of trying
        middle = (low + high + 1) // 2
        candidate = report.model_copy(update={field: cut(value, middle)})
        if len(candidate.model_dump_json().encode()) <= limit:
            low = middle
        else:
            high = middle - 1
    return report.model_copy(update={field: cut(value, low) if value is not None and low else None})


def _brief(approval: PendingApproval) -> PendingApproval:
    question = approval.question
    if question is not None:
        message, url = cut(question.message, ARGUMENT_CHARACTERS), question.url and cut(question.url, ARGUMENT_CHARACTERS)
        question = question.model_copy(update={"message": message, "url": url, "form": None})
    return PendingApproval(
        tool=approval.tool,
        tool_call_id=approval.tool_call_id,
        arguments=_brief_arguments(approval.arguments),
        reason=cut(approval.reason, ARGUMENT_CHARACTERS),
        question=question,
    )


def _brief_arguments(arguments: Mapping[str, object]) -> dict[str, object]:
    return {
        name: cut(value, ARGUMENT_CHARACTERS)
        if isinstance(value, str)
        else value
        if isinstance(value, int | float | None)
        else cut(str(value), ARGUMENT_CHARACTERS)
        for name, value in list(arguments.items())[:20]
    }
