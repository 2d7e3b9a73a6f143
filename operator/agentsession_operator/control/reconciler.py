"""Workers that bring one session at a time to what `decide` says:

    key from the queue -> facts -> decide -> session_objects.apply -> one status write

The pods and claims are written by session_objects.py, the reservation by admitter.py, and everything else of a session here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, cast

from agentsession_operator import metrics
from agentsession_operator.api.conditions import ConditionType
from agentsession_operator.api.meta import SESSIONS, Condition
from agentsession_operator.api.objects import Session, SessionUID
from agentsession_operator.api.times import rfc3339
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi, core_path, path_of
from agentsession_operator.cluster.lease import NotLeader
from agentsession_operator.control.books import Books
from agentsession_operator.control.paces import Paces, utc_now
from agentsession_operator.control.repeats import Repeats
from agentsession_operator.control.session_objects import SessionObjects
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.decisions.decide import decide
from agentsession_operator.decisions.decision import Decision
from agentsession_operator.decisions.facts import Facts
from agentsession_operator.decisions.patch import merge_patch, only_activity
from agentsession_operator.decisions.resolve import resolve
from agentsession_operator.manifests.event import event, new_trouble
from agentsession_operator.reports.desk import ReportStore

ACTIVITY_SECONDS: Final = 10.0
"""Minimum interval between two status writes of a session that report progress only."""

log = logging.getLogger(__name__)


class Reconciler:
    """Reconciles sessions, one UID at a time for each worker."""

    def __init__(
        self,
        api: KubeApi,
        cache: Cache,
        queue: WorkQueue[SessionUID],
        books: Books,
        objects: SessionObjects,
        reports: ReportStore,
        paces: Paces,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`now` is the time of day, in UTC."""
        self._api, self._cache, self._queue, self._books = api, cache, queue, books
        self._objects, self._reports, self._paces, self._now = objects, reports, paces, now
        self._written: dict[SessionUID, float] = {}
        """When the status was last written, by `time.monotonic`."""
        self._errors: Repeats[SessionUID] = Repeats()

    async def work(self) -> None:
        """Work until cancelled. Several workers may run at the same time."""
        while True:
            uid = await self._queue.get()
            failed = True
            try:
                await self.reconcile(uid)
                failed = False
                self._errors.forget(uid)
                metrics.RECONCILES.labels("ok").inc()
            except (ApiError, NotLeader) as error:
                metrics.RECONCILES.labels("retry").inc()
                # A conflict is normal: another client wrote too.
                conflict = isinstance(error, ApiError) and error.conflict
                level = logging.INFO if not conflict and self._errors.is_news(uid, error) else logging.DEBUG
                log.log(level, "session %s: trying again: %s", self._name(uid), error)
            except Exception as error:
                # An error in reading or deciding concerns this session alone.
                metrics.RECONCILES.labels("error").inc()
                level = logging.ERROR if self._errors.is_news(uid, error) else logging.DEBUG
                log.log(level, "session %s: cannot be reconciled, trying again: %r", self._name(uid), error, exc_info=True)
            finally:
                self._queue.done(uid, failed=failed)

    async def reconcile(self, uid: SessionUID) -> None:
        """Raises ApiError or NotLeader when it must be tried again."""
        if (wait := self._paces.wait(uid)) > 0:
            self._queue.add_after(uid, wait)
            return
        for pod in self._cache.doubtful(uid):
            await self._objects.check_pod(pod)
        session = self._cache.sessions.get(uid)
        if session is None:
            self._written.pop(uid, None)
            self._reports.forget(uid)
            if self._cache.complete:
                await self._objects.clean_up(uid)
            return
        decision = self._decide(session)
        if decision.status.rest is not None and decision.status.rest != session.status.rest:
            # Written before the pod is told to stop: a pod that stops for no reason that is written is one that was lost.
            await self._write_status(session, decision)
            session = self._cache.sessions.get(uid)
            if session is None:
                return
        failure: ApiError | NotLeader | None = None
        try:
            await self._protect(session)
            await self._objects.apply(session, decision.actions)
        except (ApiError, NotLeader) as error:
            failure = error
        if decision.actions:
            # What was created, or could not be created, belongs in the status too.
            session = self._cache.sessions.get(uid)
            if session is None:
                return
            decision = self._decide(session)
        if failure is None or isinstance(failure, ApiError):
            await self._write_status(session, decision)
        if failure is not None:
            raise failure
        if decision.look_again is not None:
            self._queue.add_after(uid, decision.look_again.total_seconds())

    async def _protect(self, session: Session) -> None:
        """A later operator, or this one after somebody's edit, puts back what keeps a running pod from vanishing unseen."""
        pod = self._cache.pod_of(session.meta.uid)
        if pod is not None and not pod.ended and not (pod.marked and (pod.protected or pod.meta.deleting)):
            await self._objects.protect_pod(session, pod)

    def _decide(self, session: Session) -> Decision:
        """Decide on what is known now. It does not await, so all facts are of one moment."""
        uid = session.meta.uid
        if session.admitted:
            self._books.recount((uid,))  # a report may have said since the last pass that it is idle
        facts = Facts(
            session=session,
            resolved=resolve(session.spec, self._cache.classes_by_name()),
            pod=self._cache.pod_of(uid),
            report=self._reports.get(uid),
            verdict=self._books.admission.verdict(uid),
            displaced=self._books.admission.displaced(uid),
            refusal=self._objects.refusal(uid),
            creating=self._objects.is_creating(uid),
            created=self._objects.created_at(uid),
        )
        return decide(facts, self._now())

    async def _write_status(self, session: Session, decision: Decision) -> None:
        """One write carries all that changed. Nothing is written if nothing changed."""
        uid = session.meta.uid
        patch = cast(dict[str, object], merge_patch(session.status.to_wire(), decision.status.to_wire()))
        if not patch or not any(condition.type == ConditionType.ADMITTED for condition in decision.status.conditions):
            return
        waited = time.monotonic() - self._written.get(uid, float("-inf"))
        if only_activity(patch) and waited < ACTIVITY_SECONDS:
            self._queue.add_after(uid, ACTIVITY_SECONDS - waited)
            return
        path = path_of(SESSIONS, session.meta.namespace, session.meta.name)
        self._paces.written(uid)
        try:
            answer = await self._api.patch_status(path, uid, session.meta.version, patch)
        except ApiError as error:
            if error.gone:
                self._cache.sessions.remove(uid)  # regardless of the watch
                return
            if error.conflict and await self._objects.read_session(session) is None:
                return
            # Somebody wrote since, and the cache did not know yet. It has been read, instead of retries until the watch catches
            # up.
            raise
        self._written[uid] = time.monotonic()
        self._cache.sessions.put(Session.of(answer))
        await self._post_events(session, new_trouble(session.status, decision.status))

    async def _post_events(self, session: Session, conditions: list[Condition]) -> None:
        """An Event is a convenience: one that cannot be written is left out, since the condition says the same."""
        for condition in conditions:
            now = rfc3339(self._now())
            try:
                await self._api.create(core_path("events", session.meta.namespace), event(session, condition, now))
            except ApiError as error:
                log.info("session %s: its Event was not written: %s", self._name(session.meta.uid), error)

    def _name(self, uid: SessionUID) -> str:
        session = self._cache.sessions.get(uid)
        return f"{session.meta.namespace}/{session.meta.name}" if session is not None else f"(deleted, UID {uid})"
