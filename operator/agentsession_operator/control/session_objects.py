"""The pod and the claim of a session: create, adopt, settle, delete. No other module writes them.

`creating` names the session of each pod from before the request that creates it until the outcome is known. During that time
the session counts as a holder of a slot, even if it is deleted before the answer arrives.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from agentsession_operator.api.meta import SESSIONS
from agentsession_operator.api.names import pod_name
from agentsession_operator.api.objects import Pod, Session, SessionUID, UnreadableObject
from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi, core_path, path_of
from agentsession_operator.cluster.lease import NotLeader
from agentsession_operator.decisions.facts import Action, CreateClaim, CreatePod, DeletePod
from agentsession_operator.manifests.claim import session_claim
from agentsession_operator.manifests.ownership import is_owned
from agentsession_operator.manifests.pod import Installation, session_pod

log = logging.getLogger(__name__)


class SessionObjects:
    """Creates and deletes the pods and claims of sessions.

    Names are a function of the session's UID, so a second try finds the object of the first one, and adopts it.
    """

    def __init__(self, api: KubeApi, cache: Cache, installation: Installation) -> None:
        self._api, self._cache, self._installation = api, cache, installation
        self._creating: dict[SessionUID, str] = {}
        self._refusals: dict[SessionUID, str] = {}

    # What others read.

    def creating(self) -> Mapping[SessionUID, str]:
        """The sessions whose pod is being created, or may have been, with their user. The ledger counts them as holders."""
        return self._creating

    def refusal(self, uid: SessionUID) -> str | None:
        """The API server's words if it refused the session's pod or claim the last time."""
        return self._refusals.get(uid)

    # What the reconciler asks for. Each call raises ApiError or NotLeader if it must be tried again.

    async def apply(self, session: Session, actions: Sequence[Action]) -> None:
        """Carry out the actions of a decision, in order."""
        for action in actions:
            match action:
                case CreateClaim():
                    await self._create_claim(session, action.workspace)
                case CreatePod():
                    await self._create_pod(session, action)
                case DeletePod():
                    await self.delete_pod(action.pod)

    async def settle(self, session: Session) -> None:
        """Find out whether an unanswered creation succeeded, if the pod is no longer wanted and so not created again."""
        meta = session.meta
        if self._cache.pod_of(meta.uid) is None:
            try:
                body = await self._api.get(core_path("pods", meta.namespace, pod_name(meta.name, meta.uid)))
                with contextlib.suppress(UnreadableObject):
                    self._cache.pods.put(Pod.of(body))
            except ApiError as error:
                if not error.gone:
                    raise
        self._settled(meta.uid)

    async def delete_pod(self, pod: Pod) -> None:
        """Delete exactly this pod."""
        path = core_path("pods", pod.meta.namespace, pod.meta.name)
        if await self._api.delete(path, uid=pod.meta.uid):
            log.info("session %s/%s: deleted pod %s", pod.meta.namespace, pod.session_name, pod.meta.name)
        if pod.ended:
            # Such a pod is gone at once, and its session waits for its name. A watch that is just starting would not report it.
            await self._forget_if_gone(pod, path)

    async def delete_leftovers(self, uid: SessionUID) -> None:
        """The session is gone, so its pods must go at once. The garbage collector (20 requests a second) is the safety net."""
        self._refusals.pop(uid, None)
        pods = self._cache.pods_of(uid)
        if not pods:
            self._settled(uid)
        for pod in pods:
            if self._cache.complete and not pod.meta.deleting and not await self._session_exists(pod):
                await self.delete_pod(pod)

    # Creating.

    async def _create_claim(self, session: Session, workspace: WorkspaceStatus) -> None:
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
                message += ", and it belongs to another owner"
            self._refused(session, "PersistentVolumeClaim", message)
            raise

    async def _create_pod(self, session: Session, action: CreatePod) -> None:
        meta = session.meta
        manifest = session_pod(session, action.resolved, self._installation, action.workspace)
        self._creating[meta.uid] = session.spec.user
        adopted = False
        try:
            body = await self._api.create(core_path("pods", meta.namespace), manifest)
        except NotLeader:
            self._settled(meta.uid)  # nothing was sent
            raise
        except ApiError as error:
            if not error.already_exists and not error.outcome_unknown:
                self._refused(session, "pod", error.message)
                raise
            body, adopted = await self._existing_pod(session, error), True
        self._cache.pods.put(Pod.of(body))
        self._refusals.pop(meta.uid, None)
        self._settled(meta.uid)
        log.info(
            "session %s/%s: %s pod %s (%s)",
            meta.namespace,
            meta.name,
            "adopted" if adopted else "created",
            body["metadata"]["name"],
            _purpose(session),
        )

    async def _existing_pod(self, session: Session, error: ApiError) -> dict[str, Any]:
        """The pod of an earlier try. Raises `error` if there is none, or if it belongs to another owner."""
        meta = session.meta
        try:
            body = await self._api.get(core_path("pods", meta.namespace, pod_name(meta.name, meta.uid)))
        except ApiError as second:
            if second.gone:
                self._settled(meta.uid)
                raise error from second
            raise
        with contextlib.suppress(UnreadableObject):
            if Pod.of(body).session_uid == meta.uid:
                return body
        self._refused(session, "pod", f"pod {body['metadata']['name']} belongs to another owner")
        raise error

    def _refused(self, session: Session, what: str, message: str) -> None:
        self._refusals[session.meta.uid] = f"The {what} cannot be created: {message}"
        self._settled(session.meta.uid)

    def _settled(self, uid: SessionUID) -> None:
        """The outcome of the creation is known. From here on only a pod in the cache counts."""
        self._creating.pop(uid, None)

    # Deleting.

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
    if status.lost_pods is not None:
        return f"replaces a lost pod, {status.lost_pods.count} in a row"
    if session.condition("Suspended") == ("False", "Resuming"):
        return "resumes the session"
    return "first pod"
