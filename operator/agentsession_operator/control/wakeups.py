"""Which change wakes what. Every piece of news passes here on its way to the work queue and the admitter:

    news                                    reconcile               run an admission pass
    session appears or is deleted           that session            yes
    session changes                         that session            if its claim on a slot changed
    pod changes                             its session             if the pod ended or is gone
    class changes                           sessions without a pod  yes
    quota changes its spec                  all (a drain begins)    yes
    namespace changes its labels            no                      yes
    first lists are complete                sessions without a pod  yes
    report of a session pod                 that session            if the agent turned idle: it may make room

News of a session is also noted in `news`, from which the ledger is brought up to date before a pass (books.py).

The functions `*_change` are the table. `Wakeups` carries it out for the cache and the report store. Those belong to lower
layers, which know it only through the protocols CacheListener and ReportListener.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from agentsession_operator.api.conditions import ActiveReason, ConditionType
from agentsession_operator.api.objects import Namespace, Pod, Quota, Session, SessionClass, SessionUID
from agentsession_operator.cluster.cache import Cache, CacheListener
from agentsession_operator.control.transitions import transitions
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.reports.desk import ReportListener

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wakeup:
    """What a change wakes."""

    sessions: tuple[SessionUID, ...] = ()
    """Sessions to reconcile."""
    admission: bool = False
    """Whether a slot may have become free, or a session may need one."""
    settings: bool = False
    """Whether the decision on sessions without a pod may differ now: reconcile them, and run an admission pass."""
    everybody: bool = False
    """Whether the decision on all sessions may differ now."""


@dataclass(slots=True)
class News:
    """What the ledger has not taken in yet."""

    sessions: dict[SessionUID, None] = field(default_factory=dict)
    namespaces: dict[str, Namespace | None] = field(default_factory=dict)
    """By name; None for one that is gone."""
    quotas: bool = False
    """Whether any has another spec."""
    classes: bool = False
    """Whether any has changed."""


def session_change(before: Session | None, after: Session | None) -> Wakeup:
    """A session appeared, changed, or was deleted."""
    uids = _uids(before, after)
    if before is None or after is None:
        return Wakeup(uids, admission=True)
    return Wakeup(uids, admission=_claim_on_a_slot(before) != _claim_on_a_slot(after))


def pod_change(before: Pod | None, after: Pod | None) -> Wakeup:
    """A pod appeared, changed, or is gone. Its label may have changed too: then both sessions are concerned."""
    uids = dict.fromkeys(pod.session_uid for pod in (before, after) if pod is not None)
    return Wakeup(tuple(uids), admission=after is None or after.ended)


def class_change(_before: SessionClass | None, _after: SessionClass | None) -> Wakeup:
    """A class appeared, changed, or was deleted."""
    return Wakeup(settings=True)


def quota_change(before: Quota | None, after: Quota | None) -> Wakeup:
    """A quota appeared, changed, or was deleted. Its status is our own writing, and wakes nothing."""
    return Wakeup(everybody=before is None or after is None or (before.spec, before.scope) != (after.spec, after.scope))


def namespace_change(before: Namespace | None, after: Namespace | None) -> Wakeup:
    """A namespace appeared, changed, or was deleted."""
    return Wakeup(admission=before is None or after is None or before.labels != after.labels)


def _claim_on_a_slot(session: Session) -> tuple[bool, bool, bool, bool]:
    idle = session.condition(ConditionType.ACTIVE)[1] == ActiveReason.IDLE  # it may make room for another one
    return session.admitted, session.finished, session.spec.suspend, idle


def _uids(*versions: Session | None) -> tuple[SessionUID, ...]:
    return tuple(dict.fromkeys(session.meta.uid for session in versions if session is not None))


class Wakeups(CacheListener, ReportListener):
    """Carries the table out: puts sessions on the queue, makes an admission pass due, and logs what happened to a session."""

    def __init__(self, queue: WorkQueue[SessionUID]) -> None:
        self._queue = queue
        self.admission = asyncio.Event()
        """Set while an admission pass is due. The admitter waits for it and clears it."""
        self.news = News()

    def session_changed(self, cache: Cache, before: Session | None, after: Session | None) -> None:
        if (known := after or before) is not None:
            for line in transitions(before, after):
                log.info("session %s/%s: %s", known.meta.namespace, known.meta.name, line)
        self._apply(cache, session_change(before, after))

    def pod_changed(self, cache: Cache, before: Pod | None, after: Pod | None) -> None:
        self._apply(cache, pod_change(before, after))

    def class_changed(self, cache: Cache, before: SessionClass | None, after: SessionClass | None) -> None:
        self.news.classes = True
        self._apply(cache, class_change(before, after))

    def quota_changed(self, cache: Cache, before: Quota | None, after: Quota | None) -> None:
        wakeup = quota_change(before, after)
        self.news.quotas |= wakeup.everybody
        self._apply(cache, wakeup)

    def namespace_changed(self, cache: Cache, before: Namespace | None, after: Namespace | None) -> None:
        wakeup, known = namespace_change(before, after), after or before
        if wakeup.admission and known is not None:
            self.news.namespaces[known.meta.name] = after
        self._apply(cache, wakeup)

    def completed(self, cache: Cache) -> None:
        self._apply(cache, Wakeup(settings=True))

    def report_arrived(self, session: SessionUID, *, turned_idle: bool) -> None:
        self.news.sessions[session] = None
        self._queue.add(session)
        if turned_idle:  # its status may have said so before the operator started: then no change of it follows
            self.admission.set()

    def _apply(self, cache: Cache, wakeup: Wakeup) -> None:
        for uid in wakeup.sessions:
            self.news.sessions[uid] = None
            self._queue.add(uid)
        # Before the first lists are complete, `completed` is still to come and includes every change of settings.
        settings = (wakeup.settings or wakeup.everybody) and cache.complete
        if settings:
            for session in cache.sessions.all():
                if not session.finished and (wakeup.everybody or cache.pod_of(session.meta.uid) is None):
                    self._queue.add(session.meta.uid)
        if wakeup.admission or settings:
            self.admission.set()
