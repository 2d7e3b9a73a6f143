"""What one session claims of the quotas: a slot that it holds, or one that it asks for.

A session holds a slot while it has a pod of ours that has not ended, while its status says Admitted=True (which keeps a
persistent session's slot between two pods), and while a creation of its pod has no answer. A pod holds its slot even when its
session is gone.

One more counts than must: a session whose pod has ended, until that end is written. Otherwise a status write that says
Admitted=True, sent while the pod ran, could land after its end had freed the slot for another session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agentsession_operator.api.agent import AgentSpec
from agentsession_operator.api.conditions import ConditionType
from agentsession_operator.api.objects import Pod, Session, SessionClass, choose_class
from agentsession_operator.decisions.displacement import stays_away
from agentsession_operator.decisions.persistent import is_recorded
from agentsession_operator.decisions.quotas.lanes import Arrival
from agentsession_operator.decisions.resolve import Resolved, resolve

KNOWN: Final = 20_000
"""Verdicts that are remembered."""


NOT_TOLD: Final = "~"
"""The time of asking of a session that resumes and whose status does not have it yet: after everybody's."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A session's claim."""

    uid: str
    user: str
    namespace: str
    class_name: str | None
    """The class that it names, or else the default one; None where that is not known: it may be any."""
    arrival: Arrival
    priority: int = 0
    holds: bool = False
    """Whether it holds a slot; else it asks for one."""
    first: bool = True
    """Whether it asks for its first slot: one that resumes is never turned away and replaces nobody."""
    accepted: bool = False
    """Whether it has been told to wait, and keeps its place in the queue."""
    persistent: bool = False
    idle_since: str | None = None
    """Since when its agent waits for input, RFC 3339; None where it works, waits for an approval, or nothing is known."""
    successor: str | None = None
    """The UID of the session that is to have its slot."""
    leftover: str | None = None
    """Its pod, as NAMESPACE/NAME, where the session itself is gone."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a session's class says of it."""

    class_name: str | None
    priority: int
    starts: bool
    """Whether the session can start as it is."""


class Offers:
    """What the classes say of sessions. Equal settings are resolved once: thousands of sessions have the same."""

    def __init__(self, classes: Mapping[str, SessionClass]) -> None:
        self._classes = classes
        self._known: dict[tuple[str | None, int], tuple[AgentSpec, Offer]] = {}

    def __call__(self, session: Session) -> Offer:
        """What its class says of a session."""
        spec = session.spec
        key = (spec.class_name, id(spec.agent))
        # The settings are kept beside the answer: as long as they are, nothing else has their id.
        if key not in self._known:
            if len(self._known) >= KNOWN:
                self._known.clear()
            found = choose_class(self._classes, spec.class_name)
            priority = found.spec.priority if found is not None and found.spec is not None else 0
            # A class that is named and not there is one all the same: a quota that names it counts the session.
            name = found.meta.name if found is not None else spec.class_name or ""
            starts = isinstance(resolve(spec, self._classes), Resolved)
            self._known[key] = spec.agent, Offer(name, priority, starts)
        return self._known[key][1]


def claim_of(
    session: Session, pods: Sequence[Pod], offer: Offer, *, creating: bool, backs_off: bool, idle_since: str | None
) -> Claim | None:
    """What a session claims; None for nothing. `pods` are those of ours that carry its UID. `creating` says that its pod may
    have been created, `backs_off` that it must not ask again yet."""
    uid, status = session.meta.uid, session.status
    holds = (
        session.admitted
        or creating
        or any(not pod.ended for pod in pods)
        or not all(is_recorded(session, pod) for pod in pods if pod.ended)
    )
    # One whose pod has ended waits until that pod is gone: the name of the next one is the same.
    if not holds and (pods or backs_off or not offer.starts or not asks(session)):
        return None
    first = session.condition(ConditionType.SUSPENDED) == ("Unknown", "") and status.workspace is None
    return Claim(
        uid=uid,
        user=session.spec.user,
        namespace=session.meta.namespace,
        class_name=offer.class_name,
        arrival=(_asked(session), session.meta.namespace, session.meta.name),
        priority=offer.priority,
        holds=holds,
        first=first,
        accepted=status.queue is not None or not first,
        persistent=status.workspace is not None,
        idle_since=idle_since if holds and not session.spec.suspend and not session.finished else None,
        successor=status.rest.successor if holds and status.rest is not None else None,
    )


def claim_of_leftovers(pods: Sequence[Pod], before: Claim | None, *, creating: bool) -> Claim | None:
    """What is left of a session that is gone: a pod that has not ended, or a creation that may land. `before` is what the
    session claimed when it was there."""
    pod = next((pod for pod in pods if not pod.ended), None)
    if pod is None:
        return replace(before, holds=True, idle_since=None) if creating and before is not None else None
    meta = pod.meta
    return Claim(
        uid=pod.session_uid,
        user=pod.user,
        namespace=meta.namespace,
        class_name=before.class_name if before is not None else None,
        arrival=(meta.created, meta.namespace, meta.name),
        priority=before.priority if before is not None else 0,
        holds=True,
        successor=before.successor if before is not None else None,
        leftover=f"{meta.namespace}/{meta.name}",
    )


def asks(session: Session) -> bool:
    """Whether a session that holds no slot asks for one. An ephemeral one that had a pod never does again."""
    status = session.status
    if session.finished or session.meta.deleting or session.spec.suspend or stays_away(session):
        return False
    return status.pod_uid is None or status.workspace is not None


def _asked(session: Session) -> str:
    """When a session began to ask for a slot. One that was suspended asks again, and not before those who wait already: until
    its time is in the status, after everybody's."""
    if session.condition(ConditionType.SUSPENDED) == ("Unknown", ""):
        return session.meta.created
    return session.status.queue.since if session.status.queue else NOT_TOLD
