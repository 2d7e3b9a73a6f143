"""What a decision on one session is made from: values, all of one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.decisions.quotas.verdict import Displaced, Verdict
from agentsession_operator.decisions.resolve import Misconfigured, Resolved
from session_runtime.wire import SessionReport


@dataclass(frozen=True, slots=True)
class ReceivedReport:
    """The newest report of a session, and when it came."""

    report: SessionReport
    received: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one session."""

    session: Session
    resolved: Resolved | Misconfigured
    pod: Pod | None
    """The session's pod, which the operator created."""
    report: ReceivedReport | None = None
    verdict: Verdict | None = None
    """Why the session waits or was turned away; None while it does not ask for a slot, or has not been looked at."""
    displaced: Displaced | None = None
    """Whether a quota wants the slot back that the session holds."""
    refusal: str | None = None
    """The API server's answer, where it refused the pod or the claim."""
    creating: bool = False
    """Whether a pod is being created, or may have been: its answer is not known."""
    created: datetime | None = None
    """When this operator created the pod; None where it did not."""
