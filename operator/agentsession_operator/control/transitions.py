"""What happened to a session between two versions of it, as lines for the operator's log.

They follow what the cache learns, not what was sent. So a write whose answer was lost is logged too, and a write that never
landed is not.

Only reasons are logged. Messages and reports can hold what the agent, its tools or the user wrote, and stay in the status.
"""

from __future__ import annotations

from agentsession_operator.api.conditions import ConditionType, SuspendedReason
from agentsession_operator.api.objects import Session


def transitions(before: Session | None, after: Session | None) -> list[str]:
    """Admission, loss of a pod, suspension and end. Empty for a session that is seen for the first time."""
    if before is None:
        return []
    if after is None:
        return [] if before.finished else ["deleted before it finished"]
    lines: list[str] = []
    if _became_true(before, after, ConditionType.ADMITTED):
        lines.append(f"admitted ({'resumes' if _was_suspended(before) else 'new session'})")
    lost = after.status.lost_pods
    if lost is not None and lost.count > 0 and lost != before.status.lost_pods:
        lines.append(f"lost its pod ({after.condition(ConditionType.POD_READY)[1]}, {lost.count} in a row)")
    for kind, word in ((ConditionType.SUSPENDED, "suspended"), (ConditionType.FINISHED, "finished")):
        if _became_true(before, after, kind):
            lines.append(f"{word} ({after.condition(kind)[1]})")
    return lines


def _became_true(before: Session, after: Session, kind: ConditionType) -> bool:
    return after.condition(kind)[0] == "True" != before.condition(kind)[0]


def _was_suspended(session: Session) -> bool:
    status, reason = session.condition(ConditionType.SUSPENDED)
    return status == "True" or reason == SuspendedReason.RESUMING
