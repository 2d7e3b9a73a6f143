"""What a pod's status says about its session, in the terms of the PodReady condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import ValidationError

from agentsession_operator.api.objects import Pod
from session_runtime.wire import SessionReport

AGENT_CONTAINER: Final = "agent"
WORKSPACE_CONTAINER: Final = "workspace"
BUNDLE_CONTAINER: Final = "workspace-server"
STARTING: Final = "The pod is starting."
"""The same before and after the pod is there: another message would cost a write."""

_IMAGE_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_NO_PYTHON: Final = 'exec: "python3": executable file not found'
"""In the container runtime's words about a container that could not be started (runc, crun and gVisor take them from Go)."""
_NEVER: Final = "1970-01-01T00:00:00Z"
"""The kubelet's start time of a container that could not be started (reason StartError)."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """The PodReady condition: status, reason, and the cluster's own message."""

    status: Literal["True", "False"]
    reason: str
    message: str


def readiness(pod: Pod) -> Readiness:
    """Whether the session can be talked to, and if not, what stands in the way."""
    if pod.phase == "Failed" and pod.reason == "Evicted":
        return Readiness("False", "Evicted", pod.message)
    if pod.ended:
        return Readiness("False", "PodEnded", f"The pod has ended ({pod.phase}).")
    if pod.meta.deleting:
        return Readiness("False", "PodGone", "The pod is being deleted.")
    for condition in pod.conditions:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Readiness("False", "Unschedulable", condition.get("message", ""))
    for name, waiting in _waiting(pod):
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE_REASONS:
            return Readiness("False", "ImageError", f"{name}: {message or reason}")
    for name, message in _refused(pod):
        return Readiness("False", "ContainerError", f"{name}: {message}")
    if agent_ended_at(pod) is not None:
        return Readiness("False", "PodEnded", "The agent has ended, and the pod is about to.")
    if crash := _crash(pod):
        return Readiness("False", "Crashed", crash)
    if any(condition["type"] == "Ready" and condition["status"] == "True" for condition in pod.conditions):
        return Readiness("True", "PodReady", "The session can be talked to.")
    return Readiness("False", "Creating", STARTING)


def unschedulable_since(pod: Pod) -> datetime | None:
    """Since when the scheduler finds no node for the pod."""
    for condition in pod.conditions:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return datetime.fromisoformat(condition["lastTransitionTime"])
    return None


def loss(pod: Pod | None) -> Readiness:
    """What became of a pod that is gone (None), is being deleted, or has failed."""
    if pod is None:
        return Readiness("False", "PodGone", "The pod is gone (deleted, or lost with its node).")
    for condition in pod.conditions:
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":  # KEP-3329
            return Readiness("False", "Evicted", condition.get("message") or condition.get("reason", ""))
    if pod.phase == "Failed" and pod.reason == "Evicted":
        return Readiness("False", "Evicted", pod.message)
    if pod.phase == "Failed" and not pod.meta.deleting:
        return Readiness("False", "PodGone", f"The pod has failed: {pod.reason or 'Error'}: {pod.message or 'no message'}.")
    return Readiness("False", "PodGone", "The pod is being deleted.")


def unready_message(pod: Pod) -> str:
    """Why a pod that runs is not ready, in the kubelet's words (a probe that fails, a node that is lost)."""
    said = next((condition.get("message", "") for condition in pod.conditions if condition["type"] == "Ready"), "")
    return said or "The pod was ready and is not any more."


def _waiting(pod: Pod) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for container in pod.containers:
        if waiting := container.get("state", {}).get("waiting"):
            yield container["name"], waiting


def _refused(pod: Pod) -> Iterator[tuple[str, str]]:
    """Containers that could not be made or started, and why.

    The kubelet tells of one that cannot be started as waiting, and between its tries as ended (StartError): in the same words.
    """
    for container in pod.containers:
        state = container.get("state", {})
        waiting = state.get("waiting", {})
        ended = state.get("terminated") or container.get("lastState", {}).get("terminated") or {}
        if ended.get("reason") == "StartError" and "running" not in state:
            yield container["name"], _explained(ended.get("message", "StartError"))
        elif waiting.get("reason") in _CONFIG_REASONS:
            yield container["name"], _explained(waiting.get("message") or waiting["reason"])


def _explained(message: str) -> str:
    if _NO_PYTHON not in message:
        return message
    return (
        "The image has no python3; the workspace's server needs 3.9 or later. Name another in the class, spec.workspace.image."
    )


def _crash(pod: Pod) -> str | None:
    """The last crash of a container that does not run at the moment."""
    for container in pod.containers:
        state = container.get("state", {})
        crashed = state.get("terminated") or container.get("lastState", {}).get("terminated")
        if "running" in state or not crashed or crashed.get("exitCode", 0) == 0:
            continue
        # The termination message is the runtime's last report (JSON), or the tail of its log: a person wants the latter.
        last_words = crashed.get("message", "")
        tail = "" if _report_in(last_words) else last_words.strip()[-512:]
        return (
            f"{container['name']}: exit code {crashed['exitCode']} ({crashed.get('reason', 'Error')}), "
            f"{container.get('restartCount', 0)} restarts." + (f" {tail}" if tail else "")
        )
    return None


def started_at(pod: Pod) -> str | None:
    """When the agent's container first started, as far as the kubelet remembers (RFC 3339)."""
    for container in pod.containers:
        if container["name"] == AGENT_CONTAINER:
            states = (container.get("lastState", {}), container.get("state", {}))
            for state in states:
                for kind in ("terminated", "running"):
                    started = state.get(kind, {}).get("startedAt")
                    if started and started != _NEVER:
                        return str(started)
    return None


def agent_ended_at(pod: Pod) -> datetime | None:
    """When the agent's container ended for good: with exit code 0, after which the kubelet does not start it again."""
    for container in pod.containers:
        terminated = container.get("state", {}).get("terminated")
        if container["name"] == AGENT_CONTAINER and terminated and terminated.get("exitCode") == 0:
            return datetime.fromisoformat(terminated["finishedAt"])
    return None


def final_report(pod: Pod) -> SessionReport | None:
    """The report that the runtime left in its termination message.

    It is how a session's outcome survives an operator that was away when the session ended.
    """
    for container in pod.containers:
        if container["name"] == AGENT_CONTAINER:
            return _report_in(container.get("state", {}).get("terminated", {}).get("message", ""))
    return None


def _report_in(message: str) -> SessionReport | None:
    if not message.startswith("{"):
        return None
    try:
        return SessionReport.model_validate_json(message)
    except ValidationError:
        return None
