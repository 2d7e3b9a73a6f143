"""Where a session stands: what the stage of its life decided, before `conditions` puts it into words.

A stage (decide.py, persistent.py) fills in one Standing; every field is typed, and None in one of the conditions' fields means
that the stage has nothing new to say about that condition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agentsession_operator.api.conditions import ActiveReason, ConditionType, FinishedReason, SuspendedReason
from agentsession_operator.api.meta import Condition
from agentsession_operator.api.objects import Pod
from agentsession_operator.api.session import (
    AgentSessionStatus,
    PendingApprovalStatus,
    QueuePlace,
    Rest,
    UsageStatus,
)
from agentsession_operator.api.workspace import LostPods, WorkspaceStatus
from agentsession_operator.decisions.decision import Action
from agentsession_operator.decisions.facts import Facts
from agentsession_operator.decisions.podstate import Readiness, started_at
from agentsession_operator.decisions.quotas.verdict import TurnedAway, Wait
from agentsession_operator.decisions.resolve import Misconfigured
from session_runtime.wire import Outcome


@dataclass(frozen=True, slots=True)
class Held:
    """The session holds a slot."""


@dataclass(frozen=True, slots=True)
class Released:
    """The session neither holds a slot nor asks for one; `message` says why."""

    message: str


@dataclass(frozen=True, slots=True)
class Activity:
    """What the agent does."""

    reason: ActiveReason
    message: str = ""


@dataclass(frozen=True, slots=True)
class Suspension:
    """The state of a request to suspend the session, or to resume it."""

    reason: SuspendedReason
    message: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """The session is over."""

    outcome: Outcome | FinishedReason
    message: str


Slot = Held | Released | Wait | TurnedAway | Misconfigured


@dataclass(slots=True)
class Standing:
    """A status under construction. It starts as what is written."""

    facts: Facts
    now: datetime
    stamp: str
    """`now` as RFC 3339."""
    pod_name: str | None
    pod_uid: str | None
    model: str | None
    workspace: WorkspaceStatus | None
    lost_pods: LostPods | None
    queue: QueuePlace | None
    rest: Rest | None
    start_time: str | None
    finish_time: str | None
    last_activity_time: str | None
    usage: UsageStatus | None
    message_count: int | None
    pending_approvals: list[PendingApprovalStatus]
    tool_problems: list[str]
    last_message: str | None

    slot: Slot | None = None
    pod: Readiness | None = None
    activity: Activity | None = None
    suspension: Suspension | None = None
    end: End | None = None
    actions: list[Action] = field(default_factory=list)
    look_again: timedelta | None = None
    quiet: bool = False
    """Whether nothing is to be written for now, even if something else changed."""

    @classmethod
    def of(cls, facts: Facts, now: datetime, stamp: str) -> Standing:
        """What is written, and nothing new."""
        status = facts.session.status
        return cls(
            facts=facts,
            now=now,
            stamp=stamp,
            pod_name=status.pod_name,
            pod_uid=status.pod_uid,
            model=status.model,
            workspace=status.workspace,
            lost_pods=status.lost_pods,
            queue=status.queue,
            rest=status.rest,
            start_time=status.start_time,
            finish_time=status.finish_time,
            last_activity_time=status.last_activity_time,
            usage=status.usage,
            message_count=status.message_count,
            pending_approvals=list(status.pending_approvals),
            tool_problems=list(status.tool_problems),
            last_message=status.last_message,
        )

    def status(self, conditions: list[Condition]) -> AgentSessionStatus:
        """The whole status, but for the phase."""
        return AgentSessionStatus(
            conditions=conditions,
            observed_generation=self.facts.session.meta.generation,
            pod_name=self.pod_name,
            pod_uid=self.pod_uid,
            model=self.model,
            workspace=self.workspace,
            lost_pods=self.lost_pods,
            queue=self.queue,
            rest=self.rest,
            start_time=self.start_time,
            finish_time=self.finish_time,
            last_activity_time=self.last_activity_time,
            usage=self.usage,
            message_count=self.message_count,
            pending_approvals=self.pending_approvals,
            tool_problems=self.tool_problems,
            last_message=self.last_message,
        )

    # What several stages ask.

    def written(self, kind: ConditionType) -> Condition | None:
        """A condition as it is written."""
        return next((condition for condition in self.facts.session.status.conditions if condition.type == kind), None)

    @property
    def has_started(self) -> bool:
        """Whether the prompt may have been worked on. It is not worked on twice."""
        pod = self.facts.pod
        return self.start_time is not None or self.facts.report is not None or (pod is not None and started_at(pod) is not None)

    def note_start(self, pod: Pod) -> None:
        """Record when the agent first started, as far as the pod knows."""
        self.start_time = self.start_time or started_at(pod)

    def look_again_in(self, wait: timedelta) -> None:
        """Decide again after `wait` at the latest."""
        self.look_again = wait if self.look_again is None else min(wait, self.look_again)
