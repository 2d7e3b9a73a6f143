"""What a decision on one session is made from, and what it asks for: values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.api.session import AgentSessionStatus
from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.decisions.admission import Wait
from agentsession_operator.decisions.resolve import Misconfigured, Resolved
from session_runtime.wire import SessionReport


@dataclass(frozen=True, slots=True)
class Granted:
    """The admitter gives the session a slot. It alone may say so."""


@dataclass(frozen=True, slots=True)
class ReceivedReport:
    """The newest report of a session, and when it came."""

    report: SessionReport
    received: datetime


@dataclass(frozen=True, slots=True)
class CreateClaim:
    """Create the claim of the session's persistent workspace."""

    workspace: WorkspaceStatus


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Create the session's pod."""

    resolved: Resolved
    workspace: WorkspaceStatus | None


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete the session's pod."""

    pod: Pod


Action = CreateClaim | CreatePod | DeletePod


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one session."""

    session: Session
    resolved: Resolved | Misconfigured
    pod: Pod | None
    report: ReceivedReport | None = None
    verdict: Granted | Wait | None = None
    """What the admitter says; None while it has not looked at the session."""
    create_error: str | None = None
    """The API server's answer, where it refused the pod or the claim."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The status that the session should have, and what must be done."""

    status: AgentSessionStatus
    actions: Sequence[Action] = ()
    look_again: timedelta | None = None
    """When a decision that depends on time would change."""
