"""Workers that bring one session at a time to what `decide` says:

    key from the queue -> facts -> decide -> session_objects.apply -> one status write

The pods and claims are written by session_objects.py, the reservation by admitter.py, and everything else of a session here.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Final, cast

from agentsession_operator import metrics
from agentsession_operator.api.meta import SESSIONS, Condition
from agentsession_operator.api.objects import Session, SessionUID
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi, core_path, path_of
from agentsession_operator.cluster.lease import NotLeader
from agentsession_operator.control.admitter import Admitter
from agentsession_operator.control.repeats import Repeats
from agentsession_operator.control.session_objects import SessionObjects
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.decisions.decide import decide
from agentsession_operator.decisions.facts import CreatePod, Decision, Facts
from agentsession_operator.decisions.patch import merge_patch, only_activity
from agentsession_operator.decisions.resolve import resolve
from agentsession_operator.manifests.event import event, new_trouble
from agentsession_operator.reports.desk import ReportStore

ACTIVITY_SECONDS: Final = 10.0
"""Minimum interval between two status writes of a session that report progress only."""

log = logging.getLogger(__name__)


class Reconciler:
    """Reconciles sessions by UID."""

    def __init__(
        self,
        api: KubeApi,
        cache: Cache,
        queue: WorkQueue[SessionUID],
        admitter: Admitter,
        objects: SessionObjects,
        reports: ReportStore,
    ) -> None:
        self._api, self._cache, self._queue = api, cache, queue
        self._admitter, self._objects, self._reports = admitter, objects, reports
        self._written: dict[SessionUID, float] = {}
        self._errors: Repeats[SessionUID] = Repeats()

    async def work(self) -> None:
        """One worker; any number may run. It ends by cancellation, or by a defect, which ends the process."""
        while True:
            uid = await self._queue.get()
            failed = False
            try:
                await self.reconcile(uid)
                self._errors.forget(uid)
                metrics.RECONCILES.labels("ok").inc()
            except (ApiError, NotLeader) as error:
                failed = True
                metrics.RECONCILES.labels("retry").inc()
                # A conflict is normal: another client wrote too.
                conflict = isinstance(error, ApiError) and error.conflict
                level = logging.INFO if not conflict and self._errors.is_news(uid, error) else logging.DEBUG
                log.log(level, "session %s: trying again: %s", self._name(uid), error)
            finally:
                self._queue.done(uid, failed=failed)

    async def reconcile(self, uid: SessionUID) -> None:
        """Raises ApiError or NotLeader when it must be tried again."""
        session = self._cache.sessions.get(uid)
        if session is None:
            self._written.pop(uid, None)
            self._reports.forget(uid)
            await self._objects.delete_leftovers(uid)
            return
        if session.meta.deleting:
            # Held by another finalizer, or by a deletion in the foreground: its pod need not wait for that.
            pod = self._cache.pod_of(uid)
            if pod is not None and not pod.meta.deleting:
                await self._objects.delete_pod(pod)
            return
        decision = self._decide(session)
        if uid in self._objects.creating() and not any(isinstance(action, CreatePod) for action in decision.actions):
            await self._objects.settle(session)
            decision = self._decide(session)
        try:
            await self._objects.apply(session, decision.actions)
        finally:
            # What was created, or could not be created, belongs in the status too.
            if decision.actions:
                decision = self._decide(session)
            await self._write_status(session, decision)
        if decision.look_again is not None:
            self._queue.add_after(uid, decision.look_again.total_seconds())

    def _decide(self, session: Session) -> Decision:
        """Decide on what is known now. It does not await, so all facts are of one moment."""
        uid = session.meta.uid
        facts = Facts(
            session,
            resolve(session.spec, self._cache.classes_by_name()),
            self._cache.pod_of(uid),
            self._reports.get(uid),
            self._admitter.verdict(uid),
            self._objects.refusal(uid),
        )
        return decide(facts, datetime.now(UTC))

    async def _write_status(self, session: Session, decision: Decision) -> None:
        """One write carries all that changed. Nothing is written if nothing changed."""
        uid = session.meta.uid
        patch = cast(dict[str, object], merge_patch(session.status.to_wire(), decision.status.to_wire()))
        if not patch or not any(condition.type == "Admitted" for condition in decision.status.conditions):
            return
        waited = time.monotonic() - self._written.get(uid, float("-inf"))
        if only_activity(patch) and waited < ACTIVITY_SECONDS:
            self._queue.add_after(uid, ACTIVITY_SECONDS - waited)
            return
        path = path_of(SESSIONS, session.meta.namespace, session.meta.name)
        try:
            answer = await self._api.patch_status(path, session.meta.version, patch)
        except ApiError as error:
            if error.gone:
                return  # deleted; the watch will report it
            if error.conflict:
                # The cache may not know yet what another client wrote. One read, instead of retries until the watch catches up.
                current = await self._api.get(path)
                if current["metadata"]["uid"] == uid:
                    self._cache.sessions.put(Session.of(current))
            raise
        self._written[uid] = time.monotonic()
        self._cache.sessions.put(Session.of(answer))
        await self._post_events(session, new_trouble(session.status, decision.status))

    async def _post_events(self, session: Session, conditions: list[Condition]) -> None:
        """An Event is a convenience: one that cannot be written is left out, since the condition says the same."""
        for condition in conditions:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            try:
                await self._api.create(core_path("events", session.meta.namespace), event(session, condition, now))
            except ApiError as error:
                log.info("session %s: its Event was not written: %s", self._name(session.meta.uid), error)

    def _name(self, uid: SessionUID) -> str:
        session = self._cache.sessions.get(uid)
        return f"{session.meta.namespace}/{session.meta.name}" if session is not None else f"(deleted, UID {uid})"
