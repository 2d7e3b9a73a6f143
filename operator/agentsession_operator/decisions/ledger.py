"""The ledger: who holds a slot and who asks for one, counted from sessions *and* pods.

A session holds a slot from the write of Admitted=True until it is suspended, has finished or is deleted, and its pod is
confirmed gone or ended. A pod that has not ended holds its slot even when its session is already gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agentsession_operator.api.objects import Pod, Session, SessionClass
from agentsession_operator.decisions.admission import Ledger, Waiting
from agentsession_operator.decisions.resolve import Resolved, resolve


def build_ledger(
    sessions: Iterable[Session],
    pods: Iterable[Pod],
    classes: Mapping[str, SessionClass],
    in_flight: Mapping[str, str],
) -> Ledger:
    """Count. `in_flight` maps session UIDs to users for writes whose outcome is not known yet: they count as done."""
    sessions = list(sessions)
    home = {session.meta.uid: session.meta.namespace for session in sessions}
    # Two pods of one session are possible for a moment (a leftover and its successor): they share its slot. A pod that names
    # a session of another namespace is none of ours, and must not keep that session from its slot: anybody can write a label.
    running: dict[str, str] = {
        pod.session_uid: pod.user
        for pod in pods
        if not pod.ended and home.get(pod.session_uid, pod.meta.namespace) == pod.meta.namespace
    }
    holders = {**running, **in_flight}
    waiting: list[Waiting] = []
    for session in sessions:
        uid = session.meta.uid
        if session.admitted or uid in holders:
            holders[uid] = session.spec.user
        elif not (session.finished or session.meta.deleting or session.spec.suspend) and _can_start(session, classes):
            waiting.append(Waiting(uid, session.spec.user, (_asked(session), session.meta.namespace, session.meta.name)))
    return Ledger(list(holders.values()), waiting)


def _asked(session: Session) -> str:
    """When a session began to ask for a slot. One that was suspended asks anew, and not before those who wait already: until
    its time is in the status, after everybody's."""
    if session.condition("Suspended") == ("Unknown", ""):
        return session.meta.created
    return session.status.queue.since if session.status.queue else "~"


def _can_start(session: Session, classes: Mapping[str, SessionClass]) -> bool:
    return isinstance(resolve(session.spec, classes), Resolved)
