"""A report desk whose cache knows one session with a pod."""

from __future__ import annotations

from agentsession_operator.cluster.cache import Cache
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.reports.desk import ReportDesk, ReportStore
from agentsession_operator.reports.verifier import TokenVerifier
from support.control_plane.builders import READY, admitted, pod
from support.control_plane.tokens import FIRST, Cluster


def desk(*, complete: bool = True) -> tuple[ReportDesk, Cache, ReportStore]:
    """The desk, its cache and its store."""
    wakeups = Wakeups(WorkQueue())
    cache, store = Cache(wakeups), ReportStore(wakeups)
    cache.sessions.put(admitted())
    cache.pods.put(pod(status=READY))
    if complete:
        cache.mark_complete()
    return ReportDesk(cache, store, TokenVerifier(Cluster(first=FIRST).kube)), cache, store
