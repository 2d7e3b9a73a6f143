"""The ledger: who holds a slot and who asks for one, counted from sessions *and* pods.

A session holds a slot while it has a pod of ours that has not ended, while its status says Admitted=True (which keeps a
persistent session's slot between two pods), and while a creation of its pod has no answer. A pod holds its slot even when its
session is gone.

One more counts than must: a session whose pod has ended, until that end is written. Otherwise a status write that says
Admitted=True, sent while the pod ran, could land after its end had freed the slot for another session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from agentsession_operator.api.agent import AgentSpec
from agentsession_operator.api.conditions import ConditionType
from agentsession_operator.api.objects import Pod, Session, SessionClass, SessionUID
from agentsession_operator.decisions.admission import Ledger, Waiting
from agentsession_operator.decisions.persistent import is_recorded
from agentsession_operator.decisions.resolve import Resolved, resolve

KNOWN: Final = 20_000
"""Verdicts that are remembered."""


class Startable:
    """Which sessions their classes let start. Equal settings are resolved once: thousands of sessions have the same."""

    def __init__(self, classes: Mapping[str, SessionClass]) -> None:
        self.classes = classes
        self._known: dict[tuple[str | None, int], tuple[AgentSpec, bool]] = {}

    def __call__(self, session: Session) -> bool:
        """Whether the session can start as it is."""
        spec = session.spec
        key = (spec.class_name, id(spec.agent))
        # The settings are kept beside the verdict: as long as they are, nothing else has their id.
        if key not in self._known:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[key] = spec.agent, isinstance(resolve(spec, self.classes), Resolved)
        return self._known[key][1]


def build_ledger(
    sessions: Iterable[Session],
    pods: Iterable[Pod],
    can_start: Callable[[Session], bool],
    creating: Mapping[SessionUID, str],
    backs_off: Callable[[SessionUID], bool],
) -> Ledger:
    """Count. `pods` are ours. `can_start` says what the class lets start. `creating` has the sessions whose pod may have been
    created, with their user; `backs_off` says which sessions must not ask again yet."""
    # Two pods of one session are possible for a moment (a leftover and its successor): they share its slot.
    holders: dict[SessionUID, str] = dict(creating)
    ended: dict[SessionUID, list[Pod]] = {}
    leftovers: dict[SessionUID, str] = {}
    for pod in pods:
        if pod.ended:
            ended.setdefault(pod.session_uid, []).append(pod)
        else:
            holders[pod.session_uid] = pod.user
            leftovers[pod.session_uid] = f"{pod.meta.namespace}/{pod.meta.name}"
    waiting: list[Waiting] = []
    for session in sessions:
        uid = session.meta.uid
        leftovers.pop(uid, None)
        if session.admitted or uid in holders or not all(is_recorded(session, pod) for pod in ended.get(uid, ())):
            holders[uid] = session.spec.user
        elif asks(session) and uid not in ended and not backs_off(uid) and can_start(session):
            waiting.append(Waiting(uid, session.spec.user, (_asked(session), session.meta.namespace, session.meta.name)))
    return Ledger(list(holders.values()), waiting, sorted(leftovers.values()))


def asks(session: Session) -> bool:
    """Whether a session that holds no slot asks for one. An ephemeral one that had a pod never does again."""
    status = session.status
    if session.finished or session.meta.deleting or session.spec.suspend:
        return False
    return status.pod_uid is None or status.workspace is not None


def _asked(session: Session) -> str:
    """When a session began to ask for a slot. One that was suspended asks again, and not before those who wait already: until
    its time is in the status, after everybody's."""
    if session.condition(ConditionType.SUSPENDED) == ("Unknown", ""):
        return session.meta.created
    return session.status.queue.since if session.status.queue else "~"
