"""A decision on one session, and what a test reads from it."""

from __future__ import annotations

from collections.abc import Sequence

from agentsession_operator.api.meta import Condition
from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.decisions.decide import decide
from agentsession_operator.decisions.decision import CreatePod, Decision, DeletePod, ReleasePod
from agentsession_operator.decisions.facts import Facts, ReceivedReport
from agentsession_operator.decisions.quotas.verdict import Displaced, Verdict
from agentsession_operator.decisions.resolve import Misconfigured, Resolved
from session_runtime.wire import SessionReport
from support.control_plane.builders import NOW, later, resolved


def decided(
    of: Session,
    *,
    pod: Pod | None = None,
    resolved_: Resolved | Misconfigured | None = None,
    said: SessionReport | None = None,
    ago: float = 0,
    verdict: Verdict | None = None,
    displaced: Displaced | None = None,
    refusal: str | None = None,
    creating: bool = False,
    created_ago: float | None = None,
) -> Decision:
    """`said` was received `ago` seconds before now."""
    received = None if said is None else ReceivedReport(said, later(-ago))
    created = None if created_ago is None else later(-created_ago)
    facts = Facts(
        session=of,
        resolved=resolved_ or resolved(),
        pod=pod,
        report=received,
        verdict=verdict,
        displaced=displaced,
        refusal=refusal,
        creating=creating,
        created=created,
    )
    return decide(facts, NOW)


def told(decision: Decision, kind: str) -> Condition:
    """A condition; fails where it is not there."""
    return {item.type: item for item in decision.status.conditions}[kind]


def reasons(decision: Decision) -> dict[str, tuple[str, str]]:
    return {item.type: (item.status, item.reason) for item in decision.status.conditions}


def deletes(decision: Decision) -> Sequence[str]:
    return [action.pod.meta.uid for action in decision.actions if isinstance(action, DeletePod)]


def releases(decision: Decision) -> Sequence[str]:
    return [action.pod.meta.uid for action in decision.actions if isinstance(action, ReleasePod)]


def creates(decision: Decision) -> int:
    return sum(isinstance(action, CreatePod) for action in decision.actions)


def written(of: Session, decision: Decision) -> Session:
    """The session with the status that was decided on."""
    return Session(of.meta, of.spec, decision.status)
