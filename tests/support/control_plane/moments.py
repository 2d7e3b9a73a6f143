"""Moments in the lives of sessions, for properties: what may be known of one, with its status left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from agentsession_operator.api.conditions import AdmittedReason, SuspendedReason
from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.api.session import AgentSessionStatus
from agentsession_operator.decisions.decide import decide
from agentsession_operator.decisions.decision import Decision
from agentsession_operator.decisions.facts import Facts, ReceivedReport
from agentsession_operator.decisions.patch import merge_patch
from agentsession_operator.decisions.quotas.verdict import Displaced, TurnedAway, Verdict, Wait
from agentsession_operator.decisions.resolve import Misconfigured, Resolved
from support.control_plane.apiserver import merged
from support.control_plane.builders import (
    JSON,
    NO_CLASS,
    READY,
    STARTING,
    admitted,
    container,
    ended,
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

FINAL = report(outcome="Completed", outcome_message="Done.", sequence=9)

pod_statuses = st.sampled_from(
    [
        {},
        STARTING,
        READY,
        pod_status("Pending", unschedulable="0/1 nodes are available"),
        pod_status("Pending", container("agent", waiting("ErrImagePull", "not found"))),
        pod_status("Running", container("agent", waiting("CrashLoopBackOff"), last=terminated(1), restarts=1)),
        pod_status(
            "Running", container("agent", terminated(0, message=FINAL.model_dump_json())), container("workspace", running())
        ),
        pod_status("Failed", reason="Evicted", message="The node was low on resource: memory."),
        pod_status("Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu"),
        ended("Succeeded", message=FINAL.model_dump_json()),
        ended("Succeeded"),
        ended("Failed", code=1),
    ]
)
pods: st.SearchStrategy[Pod | None] = st.none() | st.builds(
    lambda status, uid, deleting, grace, workspace: pod(
        status=status, uid=uid, deleting=deleting, grace=grace, workspace=workspace
    ),
    pod_statuses,
    st.sampled_from(["first", "second"]),
    st.booleans(),
    st.sampled_from([15, 15, 0]),
    st.sampled_from([None, {"claimName": "kept", "size": "5Gi"}]),
)
said = st.sampled_from(
    [
        None,
        report(activity="Processing", message_count=2),
        report(activity="AwaitingApproval", pending_approvals=[{"tool": "bash", "tool_call_id": "1"}]),
        report(activity="Idle", last_message="Hello.", last_activity_time="2026-05-04T11:59:00Z"),
        FINAL,
        report(outcome="Failed", outcome_message="No key."),
        report(outcome="BudgetExceeded", outcome_message="Used up."),
    ]
)
verdicts: st.SearchStrategy[Verdict | None] = st.sampled_from(
    [
        None,
        Wait(AdmittedReason.USER_LIMIT_REACHED, "yours", 1),
        Wait(AdmittedReason.GLOBAL_LIMIT_REACHED, "all", 51),
        Wait(AdmittedReason.QUEUED, "hm", 2),
        Wait(AdmittedReason.QUOTA_HELD, "held"),
        TurnedAway(AdmittedReason.QUEUE_FULL, "full"),
    ]
)
settings: st.SearchStrategy[Resolved | Misconfigured] = st.sampled_from(
    [resolved(), resolved(agent={"model": "openai/large"}), resolved(workspace={"type": "Persistent", "size": "5Gi"}), NO_CLASS]
)


@dataclass(frozen=True)
class Moment:
    """What is known at one moment of a session's life, its status left out."""

    pod: Pod | None
    received: ReceivedReport | None
    verdict: Verdict | None
    resolved: Resolved | Misconfigured
    refusal: str | None
    creating: bool
    created: float | None
    """Seconds since this operator created the pod."""
    seconds: float
    suspend: bool
    """What the person wants at that moment: the one field of the spec that may change."""
    displaced: Displaced | None

    def facts(self, of: Session) -> Facts:
        created = None if self.created is None else later(self.seconds - self.created)
        return Facts(
            session=self.session(of),
            resolved=self.resolved,
            pod=self.pod,
            report=self.received,
            verdict=self.verdict,
            displaced=self.displaced,
            refusal=self.refusal,
            creating=self.creating,
            created=created,
        )

    def session(self, of: Session) -> Session:
        """As it is at that moment; each change of the spec has a generation."""
        changed = of.spec.suspend != self.suspend
        meta = replace(of.meta, generation=of.meta.generation + changed)
        return replace(of, meta=meta, spec=of.spec.model_copy(update={"suspend": self.suspend}))


@st.composite
def moments(draw: st.DrawFn) -> Moment:
    seconds = draw(st.integers(0, 600))
    words = draw(said)
    received = ReceivedReport(words, later(seconds - draw(st.integers(0, 120)))) if words else None
    refusal = draw(st.sampled_from([None, "The API server refused the pod: exceeded quota"]))
    suspend = draw(st.sampled_from([False, False, True]))
    creating = draw(st.sampled_from([False, False, False, True]))
    created = draw(st.sampled_from([None, 0.5, 3.0]))
    displaced = draw(
        st.sampled_from([None, None, Displaced(SuspendedReason.REPLACED, "next"), Displaced(SuspendedReason.QUOTA_HELD)])
    )
    return Moment(draw(pods), received, draw(verdicts), draw(settings), refusal, creating, created, seconds, suspend, displaced)


KEPT: JSON = {"workspace": {"claimName": "kept", "size": "5Gi"}}
new_sessions = st.sampled_from(
    [session(), session(mode="Task", prompt="hi"), admitted(status=KEPT), admitted(status={**KEPT, "podUID": "first"})]
)
lives = st.lists(moments(), min_size=1, max_size=6)


def stored(of: Session, decision: Decision) -> Session:
    """The session as the API server gives it back after the patch."""
    now = merged(of.status.to_wire(), merge_patch(of.status.to_wire(), decision.status.to_wire()))
    return Session(replace(of.meta, version=of.meta.version + 1), of.spec, AgentSessionStatus.model_validate(now))


def live(of: Session, life: list[Moment]) -> list[tuple[Session, Moment, Decision]]:
    """Each moment with the session as it was and the decision; the status is carried from one to the next."""
    steps = []
    for moment in life:
        decision = decide(moment.facts(of), later(moment.seconds))
        steps.append((of, moment, decision))
        of = stored(moment.session(of), decision)
    return steps


def holds(status: AgentSessionStatus, kind: str) -> bool:
    return any(item.type == kind and item.status == "True" for item in status.conditions)
