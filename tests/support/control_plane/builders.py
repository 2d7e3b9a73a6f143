"""Objects of the cluster as the API server sends them, and the operator's values of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agentsession_operator.api.meta import (
    API_VERSION,
    DEFAULT_CLASS_ANNOTATION,
    POD_MAC_ANNOTATION,
    SESSION_FINALIZER,
    SESSION_NAME_ANNOTATION,
    SESSION_UID_LABEL,
    USER_ANNOTATION,
    WORKSPACE_ANNOTATION,
)
from agentsession_operator.api.names import pod_mac, pod_name
from agentsession_operator.api.objects import Namespace, Pod, Quota, Session, SessionClass
from agentsession_operator.decisions.resolve import Misconfigured, Resolved, resolve
from agentsession_operator.manifests.pod import Installation
from session_runtime.wire import SessionReport

JSON = dict[str, Any]

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
STAMP = "2026-05-04T12:00:00Z"
EARLIER = "2026-05-04T11:00:00Z"
CREATED = "2026-05-04T10:00:00Z"

INSTALLATION = Installation("registry.example/runtime:1", "IfNotPresent", "http://operator.example:8080", b"k" * 32)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def session_body(
    name: str = "demo",
    *,
    namespace: str = "team",
    uid: str | None = None,
    user: str = "ada",
    version: int = 1,
    created: str = CREATED,
    deleting: bool = False,
    generation: int = 1,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> JSON:
    """`spec` in camelCase, as in YAML."""
    meta: JSON = {
        "namespace": namespace,
        "name": name,
        "uid": uid or f"uid-of-{name}",
        "resourceVersion": str(version),
        "generation": generation,
        "creationTimestamp": created,
    }
    if deleting:
        meta["deletionTimestamp"] = created
    body: JSON = {"apiVersion": API_VERSION, "kind": "AgentSession", "metadata": meta, "spec": {"user": user, **spec}}
    if status is not None:
        body["status"] = dict(status)
    return body


def session(name: str = "demo", **fields: Any) -> Session:
    return Session.of(session_body(name, **fields))


def condition(kind: str, status: str, reason: str, message: str = "", since: str = EARLIER) -> JSON:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
        "observedGeneration": 1,
    }


ADMITTED = condition("Admitted", "True", "Admitted", "The session holds a slot.")
RELEASED = condition("Admitted", "False", "Released", "The session has finished and its slot is free.")
RUNNING = condition("Finished", "False", "Running")
COMPLETED = condition("Finished", "True", "Completed")


def admitted(name: str = "demo", *, extra: list[JSON] | None = None, status: JSON | None = None, **fields: Any) -> Session:
    """A session that holds a slot; `extra` conditions, further `status` fields."""
    conditions = [ADMITTED, RUNNING, *(extra or [])]
    return session(name, status={"conditions": conditions, **(status or {})}, **fields)


def finished(name: str = "demo", *, released: bool = True, **fields: Any) -> Session:
    return session(name, status={"conditions": [RELEASED if released else ADMITTED, COMPLETED]}, **fields)


def pod_body(
    of: str = "demo",
    *,
    namespace: str = "team",
    session_uid: str | None = None,
    user: str = "ada",
    uid: str | None = None,
    version: int = 100,
    deleting: bool = False,
    grace: int = 15,
    protected: bool = True,
    workspace: JSON | None = None,
    status: Mapping[str, Any] | None = None,
) -> JSON:
    """A pod as the operator creates it with INSTALLATION's key."""
    session_uid = session_uid or f"uid-of-{of}"
    mac = pod_mac(INSTALLATION.token_key, namespace, pod_name(of, session_uid), session_uid, user)
    meta: JSON = {
        "namespace": namespace,
        "name": pod_name(of, session_uid),
        "uid": uid or f"pod-of-{of}",
        "resourceVersion": str(version),
        "creationTimestamp": CREATED,
        "labels": {SESSION_UID_LABEL: session_uid},
        "annotations": {SESSION_NAME_ANNOTATION: of, USER_ANNOTATION: user, POD_MAC_ANNOTATION: mac},
        "ownerReferences": [
            {"apiVersion": API_VERSION, "kind": "AgentSession", "name": of, "uid": session_uid, "controller": True}
        ],
    }
    if deleting:
        meta |= {"deletionTimestamp": CREATED, "deletionGracePeriodSeconds": grace}
    if protected:
        meta["finalizers"] = [SESSION_FINALIZER]
    if workspace is not None:
        meta["annotations"][WORKSPACE_ANNOTATION] = json.dumps(workspace)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": dict(status or {"phase": "Pending"})}


def pod(of: str = "demo", **fields: Any) -> Pod:
    return Pod.of(pod_body(of, **fields))


# What a kubelet writes.


def running(started: str = EARLIER) -> JSON:
    return {"running": {"startedAt": started}}


def waiting(reason: str, message: str = "") -> JSON:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def terminated(code: int, *, reason: str = "Error", message: str = "", started: str = EARLIER, ended: str = STAMP) -> JSON:
    state: JSON = {
        "exitCode": code,
        "reason": reason,
        "startedAt": started,
        "finishedAt": ended,
        "containerID": "containerd://1",
    }
    return {"terminated": {**state, **({"message": message} if message else {})}}


def container(name: str, state: JSON, *, last: JSON | None = None, restarts: int = 0, ready: bool = False) -> JSON:
    return {
        "name": name,
        "image": "registry.example/runtime:1",
        "imageID": "",
        "ready": ready,
        "started": "running" in state,
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }


def pod_status(
    phase: str,
    *containers: JSON,
    ready: bool = False,
    scheduled: bool = True,
    reason: str = "",
    message: str = "",
    unschedulable: str = "",
) -> JSON:
    """A pod's status with the conditions that the kubelet and the scheduler keep."""
    placed: JSON = {"type": "PodScheduled", "status": "True" if scheduled and not unschedulable else "False"}
    if unschedulable:
        placed |= {"reason": "Unschedulable", "message": unschedulable, "lastTransitionTime": EARLIER}
    conditions = [placed]
    if scheduled and not unschedulable:
        why = {} if ready else {"reason": "ContainersNotReady", "message": "containers with unready status: [agent]"}
        conditions += [
            {"type": "Initialized", "status": "True"},
            {"type": "Ready", "status": "True" if ready else "False", **why},
        ]
    status: JSON = {"phase": phase, "conditions": conditions}
    if containers:
        status["containerStatuses"] = list(containers)
    if reason:
        status["reason"] = reason
    if message:
        status["message"] = message
    return status


READY = pod_status(
    "Running", container("agent", running(), ready=True), container("workspace", running(), ready=True), ready=True
)
STARTING = pod_status(
    "Pending", container("agent", waiting("ContainerCreating")), container("workspace", waiting("ContainerCreating"))
)


def ended(phase: str = "Succeeded", message: str = "", *, code: int = 0, started: str = EARLIER) -> JSON:
    """The status of a pod whose containers have all stopped; `message` is the agent's termination message."""
    return pod_status(
        phase,
        container("agent", terminated(code, reason="Completed" if code == 0 else "Error", message=message, started=started)),
        container("workspace", terminated(0, reason="Completed")),
    )


# Classes, quotas, reports.


def session_class(
    name: str = "standard", *, default: bool = True, created: str = CREATED, version: int = 1, **spec: Any
) -> SessionClass:
    return SessionClass.of(class_body(name, default=default, created=created, version=version, **spec))


def class_body(name: str = "standard", *, default: bool = True, created: str = CREATED, version: int = 1, **spec: Any) -> JSON:
    meta: JSON = {"name": name, "uid": f"uid-of-class-{name}", "resourceVersion": str(version), "creationTimestamp": created}
    if default:
        meta["annotations"] = {DEFAULT_CLASS_ANNOTATION: "true"}
    return {"metadata": meta, "spec": {"agent": {"model": "openai/small"}, **spec}}


def classes(*items: SessionClass) -> dict[str, SessionClass]:
    return {item.meta.name: item for item in items or (session_class(),)}


def resolved(of: Session | None = None, **class_spec: Any) -> Resolved:
    found = resolve((of or session()).spec, classes(session_class(**class_spec)))
    assert isinstance(found, Resolved)
    return found


NO_CLASS = Misconfigured("spec.className: there is no such class")


def quota(name: str = "default", *, version: int = 1, status: JSON | None = None, **spec: Any) -> Quota:
    meta = {"name": name, "uid": f"uid-of-quota-{name}", "resourceVersion": str(version), "generation": 1}
    return Quota.of({"metadata": meta, "spec": spec, "status": status or {}})


def namespace(name: str, *, version: int = 1, **labels: str) -> Namespace:
    meta = {"name": name, "uid": f"uid-of-{name}", "resourceVersion": str(version), "labels": labels}
    return Namespace.of({"metadata": meta})


def report(of: str = "demo", sequence: int = 1, activity: str = "Idle", **fields: Any) -> SessionReport:
    return SessionReport.model_validate({"session_uid": f"uid-of-{of}", "sequence": sequence, "activity": activity, **fields})


CRASHED = pod_status(
    "Running",
    container("agent", waiting("CrashLoopBackOff"), last=terminated(1), restarts=2),
    container("workspace", running(), ready=True),
)
"""The status of a pod whose agent crashes again and again."""
