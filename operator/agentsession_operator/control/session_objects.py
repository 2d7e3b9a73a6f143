"""The pod and the claim of a session: create, adopt, settle, protect, delete, release. No other module writes them.

The life of a creation:

1. `create` is called by the admitter (first pods, and those of resumed sessions) or the reconciler (replacements). From before
   the request until its outcome is known the session stands in `creating`, and counts as a holder.
2. The answer is the pod: it is in the cache before anything else runs. Or the API server refuses: the slot is free at once, and
   the session backs off by itself (refusals.py). Or there is no answer: the pod may exist, or be on its way
   (cluster/landing.py).
3. A creation without an answer is settled by reading: the pod is there, or LANDING_SECONDS after the request was sent it is
   not, and then it never will be: that counts as a refusal. Until then nothing is sent for this session a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final

from agentsession_operator import metrics
from agentsession_operator.api.conditions import ConditionType, SuspendedReason
from agentsession_operator.api.meta import SESSION_FINALIZER, SESSIONS
from agentsession_operator.api.names import pod_name
from agentsession_operator.api.objects import Pod, Session, SessionUID, UnreadableObject, is_ours
from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi, core_path, path_of
from agentsession_operator.cluster.landing import LANDING_SECONDS, WRITE_SECONDS
from agentsession_operator.cluster.lease import NotLeader
from agentsession_operator.control.creations import Creations, Pending
from agentsession_operator.control.paces import Paces, utc_now
from agentsession_operator.control.refusals import Refusals
from agentsession_operator.decisions.decision import Action, CreatePod, DeletePod, ReleasePod
from agentsession_operator.decisions.resolve import Resolved, resolve
from agentsession_operator.manifests.claim import session_claim
from agentsession_operator.manifests.ownership import is_owned, owned_meta
from agentsession_operator.manifests.pod import GRACE_SECONDS, Installation, pod_annotations, session_pod

SETTLE_SECONDS: Final = 1.0
"""Interval between two reads that settle a creation without an answer."""

log = logging.getLogger(__name__)


class Outcome(Enum):
    """What became of a creation."""

    CREATED = "created"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    NOT_SENT = "not sent"


class SessionObjects:
    """Creates and deletes the pods and claims of sessions.

    Names are a function of the session's UID, so a second try finds the object of the first one, and adopts it.
    """

    def __init__(
        self,
        api: KubeApi,
        cache: Cache,
        paces: Paces,
        installation: Installation,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`clock` gives seconds and only goes forward; `now` is the time of day, in UTC."""
        self._api, self._cache, self._paces, self._installation = api, cache, paces, installation
        self._clock, self._now = clock, now
        self._creating = Creations(clock)
        self._refusals = Refusals(clock)
        self._created: dict[SessionUID, datetime] = {}
        self._requests: set[asyncio.Task[Outcome]] = set()

    # What others read.

    def take_changed(self) -> list[SessionUID]:
        """The sessions whose creation began or ended, or that may ask again after a refusal, since the last call."""
        return [*self._creating.take_changed(), *self._refusals.take_due()]

    def is_creating(self, uid: SessionUID) -> bool:
        """Whether the session's pod is being created, or may have been."""
        return uid in self._creating

    def refusal(self, uid: SessionUID) -> str | None:
        """The API server's words if it refused the session's pod or claim the last time."""
        return self._refusals.message(uid)

    def backs_off(self, uid: SessionUID) -> bool:
        """Whether the session must not ask again yet, because its pod was refused a moment ago."""
        return self._refusals.backs_off(uid)

    def created_at(self, uid: SessionUID) -> datetime | None:
        """When this process created the session's pod, for the first seconds after it did."""
        return self._created.get(uid)

    def next_due(self) -> float:
        """Seconds until a refused session may ask again or a doubt is to be read; infinite where there is neither."""
        return min(self._refusals.next_due(), SETTLE_SECONDS if self._creating.doubts() else float("inf"))

    @property
    def in_doubt(self) -> int:
        """Creations whose outcome is not known."""
        return len(self._creating)

    # Creating.

    async def create(self, session: Session, resolved: Resolved, workspace: WorkspaceStatus | None) -> Outcome:
        """Create the claim, where there is to be one, and the pod. Cancelling the caller does not cancel the request."""
        uid = session.meta.uid
        if uid in self._creating:
            return Outcome.UNKNOWN
        self._creating.sent(uid)
        request = asyncio.create_task(self._create(session, resolved, workspace))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        return await asyncio.shield(request)

    async def drain(self) -> None:
        """Wait for the requests that are under way. Each ends within its deadline."""
        if self._requests:
            await asyncio.wait(self._requests, timeout=2 * WRITE_SECONDS)

    async def _create(self, session: Session, resolved: Resolved, workspace: WorkspaceStatus | None) -> Outcome:
        uid = session.meta.uid
        outcome = Outcome.UNKNOWN
        try:
            if workspace is not None:
                await self._create_claim(session, workspace)
            outcome = await self._create_pod(session, session_pod(session, resolved, self._installation, workspace))
        except NotLeader:
            outcome = Outcome.NOT_SENT
        except ApiError as error:
            outcome = self._refused(session, "PersistentVolumeClaim", error)
        finally:
            # What raises anything else leaves a doubt, and a doubt is settled.
            if outcome is Outcome.UNKNOWN:
                self._creating.unanswered(uid)
            else:
                self._creating.ended(uid)
            metrics.CREATIONS.labels(outcome.value).inc()
        return outcome

    async def _create_claim(self, session: Session, workspace: WorkspaceStatus) -> None:
        """Raises ApiError for a claim that is not there afterwards. Without an answer too: no pod was sent then."""
        path = core_path("persistentvolumeclaims", session.meta.namespace)
        self._paces.written(session.meta.uid)
        try:
            await self._api.create(path, session_claim(session, workspace))
        except ApiError as error:
            if not error.already_exists:
                raise
            if not is_owned(await self._api.get(f"{path}/{workspace.claim_name}"), session):
                raise ApiError(
                    error.code,
                    error.reason,
                    f"{error.message}, and it belongs to another owner. Delete it, or rename the session.",
                ) from error

    async def _create_pod(self, session: Session, manifest: dict[str, Any]) -> Outcome:
        meta = session.meta
        self._creating.sent(meta.uid)
        self._paces.written(meta.uid)
        try:
            body = await self._api.create(core_path("pods", meta.namespace), manifest)
        except ApiError as error:
            if error.already_exists:
                return await self._adopt(session, error)
            if error.outcome_unknown:
                log.warning("session %s/%s: no answer to its pod's creation: %s", meta.namespace, meta.name, error)
                return Outcome.UNKNOWN
            return self._refused(session, "pod", error)
        self._created[meta.uid] = self._now()
        self._forget_later(meta.uid)
        self._take(session, body, "created")
        return Outcome.CREATED

    async def _adopt(self, session: Session, error: ApiError) -> Outcome:
        """A pod of this name exists: ours, of an earlier try; or a predecessor that is about to go; or another owner's."""
        meta = session.meta
        try:
            body = await self._api.get(core_path("pods", meta.namespace, pod_name(meta.name, meta.uid)))
            pod = Pod.of(body)
        except ApiError as second:
            if second.gone:
                return self._refused(session, "pod", error)
            return Outcome.UNKNOWN
        except UnreadableObject:
            pod = None
        if pod is None or pod.session_uid != meta.uid or not is_ours(pod, self._installation.token_key):
            other = ApiError(409, "AlreadyExists", f"{error.message}, and another owner created it. Delete that pod.")
            return self._refused(session, "pod", other)
        self._take(session, body, "adopted")
        return Outcome.CREATED

    def _take(self, session: Session, body: dict[str, Any], what: str) -> None:
        meta = session.meta
        pod = Pod.of(body)
        self._refusals.forget(meta.uid)
        self._cache.pods.put(pod)
        log.info("session %s/%s: %s pod %s (%s)", meta.namespace, meta.name, what, pod.meta.name, _purpose(session))

    def _refused(self, session: Session, what: str, error: ApiError) -> Outcome:
        """The slot is free at once; this session alone waits before it asks again."""
        meta = session.meta
        said = "did not answer the creation of the" if error.outcome_unknown else "refused the"
        message = f"The API server {said} {what}: {error.message} Retrying, with waits of up to 5 minutes."
        tries = self._refusals.add(meta.uid, message, error.retry_after)
        log.info("session %s/%s: %s not created, try %d: %s", meta.namespace, meta.name, what, tries, error)
        return Outcome.REFUSED

    def _forget_later(self, uid: SessionUID) -> None:
        asyncio.get_running_loop().call_later(5.0, self._created.pop, uid, None)

    # Settling.

    async def settle(self) -> None:
        """Read what became of the creations that were not answered. Those that cannot be read stay in doubt."""
        for uid, pending in self._creating.doubts():
            with contextlib.suppress(ApiError):
                await self._settle(uid, pending)

    async def _settle(self, uid: SessionUID, pending: Pending) -> None:
        session = self._cache.sessions.get(uid)
        landed = self._clock() - pending.sent > LANDING_SECONDS
        if session is not None:
            meta = session.meta
            try:
                body = await self._api.get(core_path("pods", meta.namespace, pod_name(meta.name, uid)))
            except ApiError as error:
                if not error.gone:
                    raise
            else:
                with contextlib.suppress(UnreadableObject):
                    pod = Pod.of(body)
                    if pod.session_uid == uid and is_ours(pod, self._installation.token_key):
                        self._take(session, body, "found")
                        landed = True
        # Without its session there is nothing to read by: a pod that lands is seen by the watch before the time is over.
        if landed:
            self._creating.ended(uid)
            if session is not None and self._cache.pod_of(uid) is None:
                # Or one session whose creations are never answered would keep the slot from all others.
                self._refused(session, "pod", ApiError(0, "Unreachable", "it is not there."))

    # What the reconciler asks for. Everything raises ApiError or NotLeader when it must be tried again.

    async def apply(self, session: Session, actions: Sequence[Action]) -> None:
        """Carry out the actions of a decision, in order."""
        for action in actions:
            match action:
                case CreatePod():
                    await self._replace(session, action)
                case DeletePod():
                    await self.delete_pod(action.pod)
                case ReleasePod():
                    await self.release_pod(action.pod)

    async def _replace(self, session: Session, action: CreatePod) -> None:
        """The session holds its slot. It is read first: nothing is created for one that is gone."""
        if self.backs_off(session.meta.uid) or self.is_creating(session.meta.uid):
            return
        current = await self.read_session(session)
        if current is None:
            return
        resolved = resolve(current.spec, self._cache.classes_by_name())
        if isinstance(resolved, Resolved):  # else its class went a moment ago, and the next decision says so
            await self.create(current, resolved, action.workspace)

    async def read_session(self, session: Session) -> Session | None:
        """The session as the API server has it now, whole, which the cache learns too; None where it is gone.

        Raises ApiError, and UnreadableObject.
        """
        meta = session.meta
        try:
            body = await self._api.get(path_of(SESSIONS, meta.namespace, meta.name))
        except ApiError as error:
            if not error.gone:
                raise
            self._cache.sessions.remove(meta.uid)
            return None
        if body["metadata"]["uid"] != meta.uid:
            self._cache.sessions.remove(meta.uid)
            return None
        current = Session.of(body)
        self._cache.sessions.put(current)
        return current

    async def delete_pod(self, pod: Pod) -> None:
        """Delete exactly this pod, with the operator's grace period, regardless of its spec."""
        path = core_path("pods", pod.meta.namespace, pod.meta.name)
        self._paces.written(pod.session_uid)
        answer = await self._api.delete(path, uid=pod.meta.uid, grace_seconds=GRACE_SECONDS)
        if answer is None:
            return
        log.info("session %s/%s: deleted pod %s", pod.meta.namespace, pod.session_name, pod.meta.name)
        if answer.get("metadata", {}).get("uid") == pod.meta.uid and "deletionTimestamp" in answer["metadata"]:
            self._cache.follow(pod, answer)  # the watch may be late, and a second request would say nothing new

    async def release_pod(self, pod: Pod) -> None:
        """Remove our finalizer: the pod's end is recorded, or its session is gone."""
        path = core_path("pods", pod.meta.namespace, pod.meta.name)
        await self._patched(pod, self._api.remove_finalizer(path, SESSION_FINALIZER, uid=pod.meta.uid))
        log.info("session %s/%s: released pod %s", pod.meta.namespace, pod.session_name, pod.meta.name)

    async def protect_pod(self, session: Session, pod: Pod) -> None:
        """Put back what makes the pod ours and keeps it from vanishing unseen, where somebody took it off."""
        marks = owned_meta(session, pod.meta.name)
        annotations = marks["annotations"] | pod_annotations(session, self._installation.token_key, session.status.workspace)
        metadata = {"labels": marks["labels"], "annotations": annotations}
        if not pod.meta.deleting:
            metadata["finalizers"] = [SESSION_FINALIZER]
        path = core_path("pods", pod.meta.namespace, pod.meta.name)
        await self._patched(pod, self._api.patch_pod_metadata(path, pod.meta.uid, metadata))
        log.warning("session %s/%s: put our marks back on pod %s", pod.meta.namespace, pod.session_name, pod.meta.name)

    async def _patched(self, pod: Pod, write: Awaitable[dict[str, Any]]) -> None:
        self._paces.written(pod.session_uid)
        try:
            after = await write
        except ApiError as error:
            if not error.gone and not error.conflict:
                raise
            await self.check_pod(pod)
            return
        meta = after["metadata"]
        if "deletionTimestamp" in meta and not meta.get("finalizers") and meta.get("deletionGracePeriodSeconds") == 0:
            self._cache.pods.remove(pod.meta.uid)  # our finalizer was the last thing that kept it
        else:
            self._cache.follow(pod, after)

    async def check_pod(self, pod: Pod) -> None:
        """Read a pod that a watch reported as gone although nobody released it: its label was removed, or it was forced
        away with its finalizer. Raises ApiError."""
        try:
            body = await self._api.get(core_path("pods", pod.meta.namespace, pod.meta.name))
        except ApiError as error:
            if not error.gone:
                raise
            self._cache.pods.remove(pod.meta.uid)
            return
        if body["metadata"]["uid"] != pod.meta.uid:
            self._cache.pods.remove(pod.meta.uid)
        else:
            self._cache.follow(pod, body)

    async def clean_up(self, uid: SessionUID) -> None:
        """The session is gone, so its pods must go at once, and nothing of them is recorded any more.

        The garbage collector (20 requests a second for the whole cluster) is the safety net.
        """
        self._refusals.forget(uid)
        for pod in self._cache.pods_of(uid):
            if pod.ended:
                if pod.protected and not await self._session_exists(pod):
                    await self.release_pod(pod)
            elif not pod.meta.deleting and not await self._session_exists(pod):
                await self.delete_pod(pod)

    async def _session_exists(self, pod: Pod) -> bool:
        """Whether the session exists after all: the watch of sessions may lag behind the watch of pods."""
        try:
            body = await self._api.get(path_of(SESSIONS, pod.meta.namespace, pod.session_name))
        except ApiError as error:
            if error.gone:
                return False
            raise
        return str(body["metadata"]["uid"]) == pod.session_uid


def _purpose(session: Session) -> str:
    status = session.status
    if status.lost_pods is not None and status.lost_pods.count > 0:
        return f"replaces a lost pod, {status.lost_pods.count} in a row"
    rested, reason = session.condition(ConditionType.SUSPENDED)
    if rested == "True" or reason == SuspendedReason.RESUMING:
        return "resumes the session"
    return "first pod"
