"""What a kubelet would write to a pod's status, for clusters that have none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from agentsession_operator.api.times import rfc3339
from support.api import JSON, Api, pods_path
from support.waiting import eventually

_NOW = "2026-01-01T00:00:00Z"


class Kubelet:
    """Plays the kubelet for one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace

    def pod_of(self, session: JSON, *, within: float = 20, after: JSON | None = None) -> JSON:
        """The session's pod, once it is there; the one that comes `after` another one."""
        label = f"agentsession.dev/session-uid={session['metadata']['uid']}"

        def look() -> JSON | None:
            items = self._api.get(pods_path(self._namespace), labelSelector=label)["items"]
            assert len(items) <= 1, f"{len(items)} pods for one session"
            return next((item for item in items if after is None or item["metadata"]["uid"] != after["metadata"]["uid"]), None)

        return eventually(look, within=within, what="the session's pod")

    def scheduled(self, pod: JSON) -> None:
        """Wait until the scheduler has given the pod its node: from then on a deletion waits for the kubelet."""
        path = pods_path(self._namespace, pod["metadata"]["name"])
        eventually(lambda: self._api.get(path)["spec"].get("nodeName"), what="the pod's node")

    def ready(self, pod: JSON) -> None:
        """Both containers run and the readiness probe succeeds."""
        self._status(
            pod,
            phase="Running",
            conditions=[_condition("PodScheduled", "True"), _condition("Ready", "True")],
            containers=[_running("agent"), _running("workspace")],
        )

    def waiting(self, pod: JSON, reason: str, message: str) -> None:
        """The agent container cannot start."""
        state = {"waiting": {"reason": reason, "message": message}}
        self._status(
            pod,
            phase="Pending",
            conditions=[_condition("PodScheduled", "True")],
            containers=[{**_running("agent"), "state": state, "ready": False, "started": False}],
        )

    def crashed(self, pod: JSON, exit_code: int, message: str) -> None:
        """The agent container has ended badly and will be started again."""
        ended = {"exitCode": exit_code, "reason": "Error", "message": message, "startedAt": _NOW, "finishedAt": _NOW}
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
        self._status(
            pod,
            phase="Running",
            conditions=[_condition("PodScheduled", "True"), _condition("Ready", "False")],
            containers=[
                {**_running("agent"), "state": state, "lastState": {"terminated": ended}, "restartCount": 3, "ready": False},
                _running("workspace"),
            ],
        )

    def unschedulable(self, pod: JSON, message: str) -> None:
        """The scheduler finds no node."""
        self._status(pod, phase="Pending", conditions=[_condition("PodScheduled", "False", "Unschedulable", message)])

    def ended(self, pod: JSON, *, report: str = "", phase: str = "Succeeded") -> None:
        """All containers have ended for good."""
        terminated = {"exitCode": 0, "reason": "Completed", "message": report, "startedAt": _NOW, "finishedAt": _NOW}
        kept = [item for item in pod.get("status", {}).get("conditions", ()) if item["type"] == "DisruptionTarget"]
        self._status(
            pod,
            phase=phase,
            conditions=[_condition("PodScheduled", "True"), _condition("Ready", "False"), *kept],
            containers=[{**_running("agent"), "state": {"terminated": terminated}, "ready": False}],
        )

    def disrupted(self, pod: JSON, reason: str, message: str) -> None:
        """The eviction API, the scheduler or a taint is about to delete the pod (KEP-3329)."""
        # The disruption controller takes a condition back that is two minutes old.
        target = {**_condition("DisruptionTarget", "True", reason, message), "lastTransitionTime": rfc3339(datetime.now(UTC))}
        conditions = [target, _condition("Ready", "True")]
        self._status(pod, phase="Running", conditions=conditions, containers=[_running("agent"), _running("workspace")])

    def unstarted(self, pod: JSON) -> None:
        """The pod has ended before any container was started."""
        waiting = {"waiting": {"reason": "ContainerCreating", "message": ""}}
        containers = [{**_running(name), "state": waiting, "ready": False, "started": False} for name in ("agent", "workspace")]
        self._status(pod, phase="Failed", conditions=[_condition("Ready", "False")], containers=containers)

    def evicted(self, pod: JSON, message: str) -> None:
        """The node needs what the pod uses."""
        self._status(pod, phase="Failed", conditions=[_condition("Ready", "False")], reason="Evicted", message=message)

    def rejected(self, pod: JSON) -> None:
        """The kubelet refuses the pod at its admission: no container is ever made."""
        message = "Pod was rejected: Node didn't have enough resource: cpu"
        self._status(pod, phase="Failed", conditions=[_condition("PodScheduled", "True")], reason="OutOfcpu", message=message)

    def gone(self, pod: JSON) -> None:
        """The kubelet confirms that the pod is gone (or somebody forces it)."""
        self._api.delete(pods_path(self._namespace, pod["metadata"]["name"]), grace=0)

    def _status(
        self, pod: JSON, *, phase: str, conditions: list[JSON], containers: list[JSON] | None = None, **rest: str
    ) -> None:
        status: dict[str, Any] = {"phase": phase, "conditions": conditions, **rest}
        if containers is not None:
            status["containerStatuses"] = containers
        self._api.patch(f"{pods_path(self._namespace, pod['metadata']['name'])}/status", {"status": status})


def _condition(kind: str, status: str, reason: str = "", message: str = "") -> JSON:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": _NOW}


def _running(name: str) -> JSON:
    return {
        "name": name,
        "image": "test",
        "imageID": "",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": _NOW}},
    }
