"""Workers that bring one session at a time to what `decide` says. Here, and in the admitter, is all that writes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, cast

from agentsession_operator import metrics
from agentsession_operator.api.meta import SESSIONS, Condition
from agentsession_operator.api.names import pod_name
from agentsession_operator.api.objects import Pod, Session, UnreadableObject
from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi, core_path, path_of
from agentsession_operator.cluster.lease import NotLeader
from agentsession_operator.control.admitter import Admitter
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.decisions.decide import decide
from agentsession_operator.decisions.facts import CreateClaim, CreatePod, Decision, DeletePod, Facts
from agentsession_operator.decisions.patch import merge_patch, only_activity
from agentsession_operator.decisions.resolve import resolve
from agentsession_operator.manifests import event as trouble
from agentsession_operator.manifests.claim import session_claim
from agentsession_operator.manifests.ownership import is_owned
from agentsession_operator.manifests.pod import Installation, session_pod
from agentsession_operator.reports.desk import ReportStore

ACTIVITY_SECONDS: Final = 10.0
"""What only says that the agent goes on working is written so often at most."""

log = logging.getLogger(__name__)


class Reconciler:
    """Reconciles sessions by UID."""

    def __init__(
        self,
        api: KubeApi,
        cache: Cache,
        queue: WorkQueue,
        admitter: Admitter,
        reports: ReportStore,
        installation: Callable[[], Installation],
    ) -> None:
        self._api, self._cache, self._queue = api, cache, queue
        self._admitter, self._reports, self._installation = admitter, reports, installation
        self._written: dict[str, float] = {}
        self._create_errors: dict[str, str] = {}

    async def work(self) -> None:
        """One worker; any number may run. Ends only by cancellation or a defect, which ends the process."""
        while True:
            uid = await self._queue.get()
            failed = False
            try:
                await self.reconcile(uid)
                metrics.RECONCILES.labels("ok").inc()
            except (ApiError, NotLeader) as error:
                failed = True
                metrics.RECONCILES.labels("retry").inc()
                log.info("session %s: will be tried again: %s", uid, error)
            finally:
                self._queue.done(uid, failed=failed)

    async def reconcile(self, uid: str) -> None:
        """Raises ApiError or NotLeader where it must be tried again."""
        session = self._cache.sessions.get(uid)
        if session is None:
            await self._clean_up(uid)
            return
        if session.meta.deleting:
            # Held by somebody else's finalizer, or by a deletion in the foreground: its pod need not wait for that.
            pod = self._cache.pod_of(uid)
            if pod is not None and not pod.meta.deleting:
                await self._delete_pod(pod)
            return
        decision = decide(self._facts(session), datetime.now(UTC))
        if uid in self._admitter.creating and not any(isinstance(action, CreatePod) for action in decision.actions):
            await self._settle_creation(session)
            decision = decide(self._facts(session), datetime.now(UTC))
        try:
            await self._act(session, decision)
        finally:
            # What was made, or could not be made, is itself something to tell.
            if decision.actions:
                decision = decide(self._facts(session), datetime.now(UTC))
            await self._write(session, decision)
        if decision.look_again is not None:
            self._queue.add_after(uid, decision.look_again.total_seconds())

    def _facts(self, session: Session) -> Facts:
        uid = session.meta.uid
        return Facts(
            session,
            resolve(session.spec, self._cache.classes_by_name()),
            self._cache.pod_of(uid),
            self._reports.get(uid),
            self._admitter.verdict(uid),
            self._create_errors.get(uid),
        )

    async def _act(self, session: Session, decision: Decision) -> None:
        for action in decision.actions:
            match action:
                case CreateClaim():
                    await self._create_claim(session, action.workspace)
                case CreatePod():
                    await self._create_pod(session, action)
                case DeletePod():
                    await self._delete_pod(action.pod)

    async def _create_claim(self, session: Session, workspace: WorkspaceStatus) -> None:
        """Its name is a function of the session's UID, so AlreadyExists with our owner means done."""
        path = core_path("persistentvolumeclaims", session.meta.namespace)
        try:
            await self._api.create(path, session_claim(session, workspace))
        except ApiError as error:
            if error.outcome_unknown:
                raise
            message = error.message
            if error.already_exists:
                if is_owned(await self._api.get(f"{path}/{workspace.claim_name}"), session):
                    return
                message += ", and it belongs to somebody else"
            self._refused(session, "PersistentVolumeClaim", message)
            raise

    async def _create_pod(self, session: Session, action: CreatePod) -> None:
        meta = session.meta
        manifest = session_pod(session, action.resolved, self._installation(), action.workspace)
        # Counted as a holder from before the request until its outcome is known, whatever becomes of the session.
        self._admitter.creating[meta.uid] = session.spec.user
        try:
            body = await self._api.create(core_path("pods", meta.namespace), manifest)
        except NotLeader:
            self._admitter.creating.pop(meta.uid, None)
            raise
        except ApiError as error:
            if error.already_exists or error.outcome_unknown:
                body = await self._existing_pod(session, error)
            else:
                self._refused(session, "pod", error.message)
                raise
        self._cache.pods.put(Pod.of(body))
        self._create_errors.pop(meta.uid, None)
        self._admitter.creating.pop(meta.uid, None)

    async def _existing_pod(self, session: Session, error: ApiError) -> dict[str, Any]:
        """The pod of an earlier try. Its name is a function of the UID, so AlreadyExists with our UID means done."""
        meta = session.meta
        try:
            body = await self._api.get(core_path("pods", meta.namespace, pod_name(meta.name, meta.uid)))
        except ApiError as second:
            if second.gone:
                self._admitter.creating.pop(meta.uid, None)
                raise error from second
            raise
        with contextlib.suppress(UnreadableObject):
            if Pod.of(body).session_uid == meta.uid:
                return body
        self._refused(session, "pod", f"pod {body['metadata']['name']} belongs to somebody else")
        raise error

    async def _settle_creation(self, session: Session) -> None:
        """A creation was not answered, and is not tried again: the pod has been seen, or is not wanted any more."""
        meta = session.meta
        if self._cache.pod_of(meta.uid) is None:
            try:
                body = await self._api.get(core_path("pods", meta.namespace, pod_name(meta.name, meta.uid)))
                with contextlib.suppress(UnreadableObject):
                    self._cache.pods.put(Pod.of(body))
            except ApiError as error:
                if not error.gone:
                    raise
        self._admitter.creating.pop(meta.uid, None)

    def _refused(self, session: Session, what: str, message: str) -> None:
        uid = session.meta.uid
        self._create_errors[uid] = f"The {what} cannot be created: {message}"
        self._admitter.creating.pop(uid, None)

    async def _delete_pod(self, pod: Pod) -> None:
        path = core_path("pods", pod.meta.namespace, pod.meta.name)
        await self._api.delete(path, uid=pod.meta.uid)
        if pod.ended:
            # Such a pod is gone at once, and its session waits for its name. A watch that is just beginning would not tell.
            await self._forget_if_gone(pod, path)

    async def _forget_if_gone(self, pod: Pod, path: str) -> None:
        try:
            body = await self._api.get(path)
        except ApiError as error:
            if not error.gone:
                raise
            self._cache.pods.remove(pod.meta.uid)
        else:
            if body["metadata"]["uid"] != pod.meta.uid:
                self._cache.pods.remove(pod.meta.uid)

    async def _clean_up(self, uid: str) -> None:
        """The session is gone: so must be its pod, at once. The garbage collector (20 requests a second) is the safety net."""
        self._written.pop(uid, None)
        self._create_errors.pop(uid, None)
        self._reports.forget(uid)
        pods = self._cache.pods_of(uid)
        if not pods:
            self._admitter.creating.pop(uid, None)
        for pod in pods:
            if self._cache.complete and not pod.meta.deleting and not await self._session_exists(pod):
                await self._delete_pod(pod)

    async def _session_exists(self, pod: Pod) -> bool:
        """Whether the session is there after all: the watch of sessions may lag behind the watch of pods."""
        try:
            body = await self._api.get(path_of(SESSIONS, pod.meta.namespace, pod.session_name))
        except ApiError as error:
            if error.gone:
                return False
            raise
        return str(body["metadata"]["uid"]) == pod.session_uid

    async def _write(self, session: Session, decision: Decision) -> None:
        """One status write carries all that changed; nothing is written where nothing did."""
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
                return  # deleted; the watch will say so
            if error.conflict:
                # Somebody wrote since: the cache may not know yet. One read, instead of tries until the watch has caught up.
                current = await self._api.get(path)
                if current["metadata"]["uid"] == uid:
                    self._cache.sessions.put(Session.of(current))
            raise
        self._written[uid] = time.monotonic()
        self._cache.sessions.put(Session.of(answer))
        await self._tell(session, trouble.new_trouble(session.status, decision.status))

    async def _tell(self, session: Session, conditions: list[Condition]) -> None:
        """Events are a courtesy: one that cannot be written is left out, since the condition says the same."""
        for condition in conditions:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            try:
                await self._api.create(core_path("events", session.meta.namespace), trouble.event(session, condition, now))
            except ApiError as error:
                log.info("no event for %s/%s: %s", session.meta.namespace, session.meta.name, error)
