"""What a decision on one session asks for: values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from agentsession_operator.api.objects import Pod
from agentsession_operator.api.session import AgentSessionStatus
from agentsession_operator.api.workspace import WorkspaceStatus


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Create the pod of a session that holds a slot and has lost its pod. First pods are the admitter's."""

    workspace: WorkspaceStatus | None


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete the session's pod."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class ReleasePod:
    """Remove our finalizer from the session's pod: its end is recorded."""

    pod: Pod


Action = CreatePod | DeletePod | ReleasePod


@dataclass(frozen=True, slots=True)
class Decision:
    """The status that the session should have, and what must be done after it is written."""

    status: AgentSessionStatus
    actions: Sequence[Action] = ()
    look_again: timedelta | None = None
    """When a decision that depends on time would change."""
