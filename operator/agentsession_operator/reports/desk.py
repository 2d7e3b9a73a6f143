"""Reports of session pods: which pod may report on which session, and the newest report of each session."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from agentsession_operator.api.objects import PodUID, SessionUID
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError
from agentsession_operator.decisions.facts import ReceivedReport
from agentsession_operator.reports.verifier import Refused, TokenVerifier
from session_runtime.wire import SessionReport


class ReportListener(Protocol):
    """Receives the session of each report that is newer than the stored one.

    Implemented by control/wakeups.py, which this layer must not import.
    """

    def report_arrived(self, session: SessionUID, *, turned_idle: bool) -> None:
        """`turned_idle`: the agent waits for input, and nothing before said so."""


class ReportStore:
    """The newest report of each session."""

    def __init__(self, listener: ReportListener) -> None:
        self._reports: dict[SessionUID, ReceivedReport] = {}
        self._listener = listener

    def put(self, report: SessionReport) -> bool:
        """Store a report; False if it is not newer than the stored one."""
        uid = SessionUID(report.session_uid)
        known = self._reports.get(uid)
        if known is not None and known.report.sequence >= report.sequence:
            return False
        self._reports[uid] = ReceivedReport(report, datetime.now(UTC))
        was_idle = known is not None and known.report.activity == "Idle"
        self._listener.report_arrived(uid, turned_idle=report.activity == "Idle" and not was_idle)
        return True

    def get(self, uid: SessionUID) -> ReceivedReport | None:
        return self._reports.get(uid)

    def forget(self, uid: SessionUID) -> None:
        self._reports.pop(uid, None)


class ReportDesk:
    """Accepts reports: the sender must be the pod of the session that it reports on."""

    def __init__(self, cache: Cache, store: ReportStore, verifier: TokenVerifier) -> None:
        self._cache, self._store, self._verifier = cache, store, verifier

    async def sender(self, authorization: str) -> PodUID:
        """UID of the pod that sends, from its Authorization header. Raises Refused."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused(401, "send the pod's service-account token as a bearer token")
        if not self._cache.complete:
            raise Refused(503, "the operator is starting; send the report again")
        try:
            return await self._verifier.pod_uid(token)
        except ApiError as error:
            raise Refused(503, f"the cluster's keys cannot be read: {error}") from error

    def take(self, namespace: str, name: str, pod_uid: PodUID, report: SessionReport) -> bool:
        """False if the report is not newer than the stored one. Raises Refused."""
        uid = SessionUID(report.session_uid)
        session = self._cache.sessions.get(uid)
        if session is None or (session.meta.namespace, session.meta.name) != (namespace, name):
            raise Refused(404, f"no session {namespace}/{name} has this UID")
        pod = self._cache.pod_of(uid)
        if pod is None or pod.meta.uid != pod_uid:
            raise Refused(403, "the token is not bound to this session's pod")
        return self._store.put(report)
