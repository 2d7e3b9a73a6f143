"""The session's pod, as a function of the session: two restricted containers, and credentials in one of them only.

docs/session-pod.md shows two whole pods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from agentsession_operator.api.meta import POD_MAC_ANNOTATION, SESSION_FINALIZER, WORKSPACE_ANNOTATION
from agentsession_operator.api.names import bearer_token, pod_mac, pod_name, token_sha256
from agentsession_operator.api.objects import Session
from agentsession_operator.api.session_class import ContainerResources
from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.decisions.podstate import AGENT_CONTAINER, BUNDLE_CONTAINER, WORKSPACE_CONTAINER
from agentsession_operator.decisions.resolve import Resolved
from agentsession_operator.manifests.ownership import owned_meta
from session_runtime.wire import (
    CREDENTIAL_PREFIX,
    REPORT_AUDIENCE,
    REPORT_ROUTE,
    REPORT_TOKEN_PATH,
    RUNTIME_MODULE,
    RUNTIME_PORT,
    SESSION_END,
    STATE_DIR,
    WORKSPACE_BUNDLE_MODULE,
    WORKSPACE_DIR,
    WORKSPACE_MODULE,
    WORKSPACE_SOCKET,
    SessionConfig,
    config_to_environment,
)

JSON = dict[str, Any]

USER_ID: Final = 65532
REPORT_TOKEN_SECONDS: Final = 3600
GRACE_SECONDS: Final = 15
"""Seconds. The runtime saves and exits within 2 s of SIGTERM; the rest is margin for a busy node."""

# Without an explicit request, the limit becomes the request: each session would reserve 12 GiB of disk, and would never be
# scheduled on nodes that report no ephemeral storage.
DEFAULT_AGENT_RESOURCES: Final[JSON] = {
    "requests": {"cpu": "50m", "memory": "256Mi", "ephemeral-storage": "0"},
    "limits": {"memory": "1Gi", "ephemeral-storage": "2Gi"},
}
DEFAULT_WORKSPACE_RESOURCES: Final[JSON] = {
    "requests": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "0"},
    "limits": {"memory": "2Gi", "ephemeral-storage": "10Gi"},
}
BUNDLE: Final = "/run/agentsession-server/workspace.pyz"
"""Path of the workspace's server in an image that is not the runtime's."""

BUNDLE_RESOURCES: Final[JSON] = {
    "requests": {"cpu": "50m", "memory": "32Mi", "ephemeral-storage": "0"},
    "limits": {"memory": "128Mi", "ephemeral-storage": "16Mi"},
}

_FOLDERS: Final = ("state", "work")


@dataclass(frozen=True, slots=True)
class Installation:
    """What all session pods of this installation share."""

    runtime_image: str
    image_pull_policy: str
    report_url: str
    """Base URL under which session pods reach the operator."""
    token_key: bytes
    """Key of the bearer tokens and of the marks on pods (api.names)."""

    def __repr__(self) -> str:
        return f"Installation(runtime_image={self.runtime_image!r}, report_url={self.report_url!r})"


def session_pod(
    session: Session, resolved: Resolved, installation: Installation, workspace: WorkspaceStatus | None = None
) -> JSON:
    """The manifest of a session's pod. With `workspace`, conversation and files are on its claim; otherwise they are lost with
    the pod. Raises ValueError for a session whose texts were left out."""
    if not session.whole:
        raise ValueError(f"session {session.meta.namespace}/{session.meta.name} is not here whole")
    meta, offered = session.meta, resolved.session_class
    volumes, folders = _persistent_folders(workspace)
    spec: JSON = {
        "restartPolicy": "OnFailure",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            # By default the kubelet changes group and mode of every file at every start. That takes minutes on a large volume
            # and makes private files readable for the group.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            _agent(session, resolved, installation, folders["state"]),
            _workspace(resolved, installation, folders["work"], workspace),
        ],
        "volumes": [
            *volumes,
            {"name": "socket", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "session-end", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "agent-tmp", "emptyDir": {}},
            {"name": "workspace-tmp", "emptyDir": {}},
            _report_token(),
        ],
    }
    if offered.workspace.image is not None:
        spec["initContainers"] = [_bundle_writer(resolved, installation)]
        spec["volumes"].append({"name": "bundle", "emptyDir": {"sizeLimit": "1Mi"}})
    if offered.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in offered.image_pull_secrets]
    if offered.runtime_class_name:
        spec["runtimeClassName"] = offered.runtime_class_name
    if offered.node_selector:
        spec["nodeSelector"] = offered.node_selector
    if offered.tolerations:
        spec["tolerations"] = [toleration.to_wire() for toleration in offered.tolerations]
    metadata = owned_meta(session, pod_name(meta.name, meta.uid))
    metadata["annotations"] |= pod_annotations(session, installation.token_key, workspace)
    metadata["finalizers"] = [SESSION_FINALIZER]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def pod_annotations(session: Session, key: bytes, workspace: WorkspaceStatus | None) -> JSON:
    """The annotations that only a session's pod has: the operator's mark, and what an operator that starts must know of it."""
    meta = session.meta
    name = pod_name(meta.name, meta.uid)
    annotations = {
        "kubectl.kubernetes.io/default-container": AGENT_CONTAINER,
        POD_MAC_ANNOTATION: pod_mac(key, meta.namespace, name, meta.uid, session.spec.user),
    }
    if workspace is not None:
        annotations[WORKSPACE_ANNOTATION] = workspace.model_dump_json(by_alias=True, exclude_none=True)
    return annotations


def _persistent_folders(workspace: WorkspaceStatus | None) -> tuple[list[JSON], dict[str, JSON]]:
    """The volumes behind the session's database ("state") and its files ("work"), and how each of the two is mounted.

    On a claim both are folders of one volume, and each container gets its own and never sees the other's.
    """
    if workspace is None:
        return [{"name": name, "emptyDir": {}} for name in _FOLDERS], {name: {"name": name} for name in _FOLDERS}
    volume = {"name": "session", "persistentVolumeClaim": {"claimName": workspace.claim_name}}
    return [volume], {name: {"name": "session", "subPath": name} for name in _FOLDERS}


def _report_token() -> JSON:
    token = {
        "audience": REPORT_AUDIENCE,
        "expirationSeconds": REPORT_TOKEN_SECONDS,
        "path": REPORT_TOKEN_PATH.rsplit("/", 1)[-1],
    }
    return {"name": "report-token", "projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]}}


def session_config(session: Session, resolved: Resolved, installation: Installation) -> SessionConfig:
    """The session's configuration for the runtime."""
    meta = session.meta
    return SessionConfig(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        user=session.spec.user,
        mode=session.spec.mode,
        prompt=session.spec.prompt,
        agent=resolved.agent,
        token_sha256=token_sha256(bearer_token(installation.token_key, meta.uid)),
        report_url=installation.report_url + REPORT_ROUTE.format(namespace=meta.namespace, name=meta.name),
        archive_repository=resolved.session_class.archive.hugging_face_repository,
    )


def _agent(session: Session, resolved: Resolved, installation: Installation, state: JSON) -> JSON:
    config = session_config(session, resolved, installation)
    container = _container(AGENT_CONTAINER, RUNTIME_MODULE, resolved, installation)
    container["env"] = [
        *({"name": name, "value": value} for name, value in config_to_environment(config).items()),
        *({"name": name, "valueFrom": {"secretKeyRef": value.to_wire()}} for name, value in resolved.server_secrets.items()),
    ]
    if session.spec.credentials is not None:
        secret = {"name": session.spec.credentials.secret_name}
        container["envFrom"] = [{"prefix": CREDENTIAL_PREFIX, "secretRef": secret}]
    container["ports"] = [{"name": "http", "containerPort": RUNTIME_PORT}]
    container["readinessProbe"] = {
        "httpGet": {"path": "/readyz", "port": "http"},
        "periodSeconds": 1,
        "timeoutSeconds": 2,
        "failureThreshold": 5,
    }
    container["livenessProbe"] = {
        "httpGet": {"path": "/healthz", "port": "http"},
        "initialDelaySeconds": 10,
        "periodSeconds": 20,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }
    container["resources"] = _resources(resolved.session_class.resources.agent, DEFAULT_AGENT_RESOURCES)
    container["volumeMounts"] = [
        {**state, "mountPath": STATE_DIR},
        {"name": "socket", "mountPath": WORKSPACE_SOCKET.rsplit("/", 1)[0]},
        {"name": "session-end", "mountPath": SESSION_END.rsplit("/", 1)[0]},
        {"name": "report-token", "mountPath": REPORT_TOKEN_PATH.rsplit("/", 1)[0], "readOnly": True},
        {"name": "agent-tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own, an emptyDir
    ]
    return container


def _workspace(resolved: Resolved, installation: Installation, work: JSON, claim: WorkspaceStatus | None) -> JSON:
    container = _container(WORKSPACE_CONTAINER, WORKSPACE_MODULE, resolved, installation)
    container["resources"] = _resources(resolved.session_class.resources.workspace, DEFAULT_WORKSPACE_RESOURCES)
    paths = ["--socket", WORKSPACE_SOCKET, "--end", SESSION_END, "--root", WORKSPACE_DIR]
    container["args"] = [*paths, *_disk_limits(container["resources"], claim)]
    container["workingDir"] = WORKSPACE_DIR
    container["volumeMounts"] = [
        {**work, "mountPath": WORKSPACE_DIR},
        {"name": "socket", "mountPath": WORKSPACE_SOCKET.rsplit("/", 1)[0]},
        {"name": "session-end", "mountPath": SESSION_END.rsplit("/", 1)[0], "readOnly": True},
        {"name": "workspace-tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own, an emptyDir
    ]
    if resolved.session_class.workspace.image is not None:
        container["image"] = resolved.session_class.workspace.image
        # -I: neither the environment nor the session's folder has a say in what the server imports.
        container["command"] = ["python3", "-I", BUNDLE]
        container["volumeMounts"].append({"name": "bundle", "mountPath": BUNDLE.rsplit("/", 1)[0], "readOnly": True})
        for name in ("passwd", "group"):  # the image need not know the user, without whom whoami and ssh fail
            container["volumeMounts"].append({"name": "bundle", "mountPath": f"/etc/{name}", "subPath": name, "readOnly": True})
    return container


def _bundle_writer(resolved: Resolved, installation: Installation) -> JSON:
    """Copies the workspace's server into an image without it. Only there, because it costs a container's start."""
    container = _container(BUNDLE_CONTAINER, WORKSPACE_BUNDLE_MODULE, resolved, installation)
    container["args"] = ["--home", WORKSPACE_DIR, BUNDLE]
    container["resources"] = BUNDLE_RESOURCES
    container["volumeMounts"] = [{"name": "bundle", "mountPath": BUNDLE.rsplit("/", 1)[0]}]
    return container


def _disk_limits(resources: JSON, claim: WorkspaceStatus | None) -> list[str]:
    """The disk limits that the workspace's server enforces on its commands: a pod that exceeds its limit is evicted, and a full
    claim leaves no room for the session's database."""
    disk = resources.get("limits", {}).get("ephemeral-storage", DEFAULT_WORKSPACE_RESOURCES["limits"]["ephemeral-storage"])
    return ["--disk", disk, *(["--volume", claim.size] if claim else [])]


def _container(name: str, module: str, resolved: Resolved, installation: Installation) -> JSON:
    offered = resolved.session_class
    return {
        "name": name,
        "image": offered.image or installation.runtime_image,
        "imagePullPolicy": offered.image_pull_policy or installation.image_pull_policy,
        # -P: a json.py in the session's folder must not shadow the standard library.
        "command": ["python3", "-P", "-m", module],
        "terminationMessagePolicy": "FallbackToLogsOnError",  # the end of the log, for the Crashed condition
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _resources(wanted: ContainerResources | None, default: JSON) -> JSON:
    return default if wanted is None else wanted.to_wire()
