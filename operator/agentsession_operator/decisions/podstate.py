"""What a pod's status says about its session, in the terms of the PodReady condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import ValidationError

from agentsession_operator.api.conditions import PodReadyReason
from agentsession_operator.api.objects import Pod
from agentsession_operator.api.times import parse_time, rfc3339
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
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Readiness:
    """The PodReady condition: status, reason, and the cluster's own message."""

    status: Literal["True", "False"]
    reason: PodReadyReason
    message: str


def readiness(pod: Pod) -> Readiness:
    """Whether the session can be talked to, and if not, what stands in the way."""
    if pod.ended:
        return _ended(pod)
    if pod.meta.deleting:
        return loss(pod)
    return (
        _not_placed(pod)
        or _not_running(pod)
        or (_ready(pod) if _is_ready(pod) else Readiness("False", PodReadyReason.CREATING, STARTING))
    )


def _ended(pod: Pod) -> Readiness:
    if pod.phase == "Failed" and never_ran(pod):
        return rejection(pod)
    if pod.phase == "Succeeded" or final_report(pod) is not None:
        return Readiness("False", PodReadyReason.POD_ENDED, f"The pod has ended ({pod.phase}).")
    return loss(pod)


def _ready(pod: Pod) -> Readiness:
    return Readiness("True", PodReadyReason.POD_READY, "The session can be talked to.")


def _is_ready(pod: Pod) -> bool:
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in pod.conditions)


def _not_placed(pod: Pod) -> Readiness | None:
    """What keeps the pod from a node."""
    if pod.gates:
        names = ", ".join(pod.gates)
        return Readiness(
            "False", PodReadyReason.GATED, f"The pod waits for scheduling gates: {names}. Their owner must remove them."
        )
    for condition in pod.conditions:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Readiness("False", PodReadyReason.UNSCHEDULABLE, str(condition.get("message", "")))
    return None


def _not_running(pod: Pod) -> Readiness | None:
    """What keeps its containers from running, or has ended them."""
    for name, waiting in _waiting(pod):
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE_REASONS:
            return Readiness("False", PodReadyReason.IMAGE_ERROR, f"{name}: {message or reason}")
    for name, message in _refused(pod):
        return Readiness("False", PodReadyReason.CONTAINER_ERROR, f"{name}: {message}")
    if agent_ended_at(pod) is not None:
        return Readiness("False", PodReadyReason.POD_ENDED, "The agent has ended, and the pod is about to.")
    if crash := _crash(pod):
        return Readiness("False", PodReadyReason.CRASHED, crash)
    return None


def unschedulable_since(pod: Pod) -> datetime | None:
    """Since when the scheduler finds no node for the pod; None where it does, or does not say."""
    times = (
        parse_time(condition.get("lastTransitionTime"))
        for condition in pod.conditions
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable"
    )
    return next(times, None)


def loss(pod: Pod | None) -> Readiness:
    """What became of a pod that is gone (None), is being deleted, or has failed without an outcome."""
    if pod is None:
        return Readiness("False", PodReadyReason.POD_GONE, "The pod is gone (deleted, or lost with its node).")
    for condition in pod.conditions:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":  # KEP-3329
            # Eviction, taint manager, preemption, node shutdown, and the kubelet's own node pressure.
            said = str(condition.get("message") or condition.get("reason", ""))
            return Readiness("False", PodReadyReason.EVICTED, _sentence(said))
    if pod.phase == "Failed" and pod.reason in ("Evicted", "Terminated", "NodeShutdown", "Shutdown", "Preempting"):
        return Readiness("False", PodReadyReason.EVICTED, _sentence(pod.message or pod.reason))
    if pod.phase == "Failed" and not pod.meta.deleting:
        said = pod.message or _crash(pod) or "no message"
        return Readiness("False", PodReadyReason.POD_GONE, f"The pod has failed: {pod.reason or 'Error'}: {said}")
    if pod.ended:
        return Readiness("False", PodReadyReason.POD_GONE, "The pod was deleted.")
    return Readiness("False", PodReadyReason.POD_GONE, "The pod is being deleted.")


def _sentence(said: str) -> str:
    """Words of another component, fit to be followed by ours."""
    return said if said.endswith((".", "!", "?")) else f"{said}."


def never_ran(pod: Pod) -> bool:
    """Whether none of the pod's containers ever started, by its own record: then no prompt was worked on.

    A kubelet rejects pods that it cannot run (OutOfcpu, OutOfmemory, OutOfpods, NodeAffinity, UnexpectedAdmissionError) without
    any container status; one that was deleted before its containers started has only waiting ones.
    """
    return all(_never_started(container) for container in pod.containers)


def _never_started(container: Mapping[str, Any]) -> bool:
    state, last = container.get("state") or {}, container.get("lastState") or {}
    if "running" in state or last.get("terminated") or container.get("restartCount"):
        return False
    terminated = state.get("terminated")
    # "ContainerStatusUnknown" is what the kubelet writes for a container that it lost track of: it may have run.
    return not terminated or (terminated.get("startedAt") in (None, _NEVER) and terminated.get("reason") == "StartError")


def rejection(pod: Pod) -> Readiness:
    """The state of a pod that never ran anything."""
    said = loss(pod)
    if said.reason is PodReadyReason.EVICTED:
        return said
    why = f"{pod.reason}: {pod.message}".strip(": ") or said.message
    return Readiness("False", PodReadyReason.POD_REJECTED, f"The pod ended before anything ran in it. {why}")


def unready_message(pod: Pod) -> str:
    """Why a pod that runs is not ready, in the kubelet's words (a probe that fails, a node that is lost)."""
    said = next((condition.get("message", "") for condition in pod.conditions if condition.get("type") == "Ready"), "")
    return said or "The pod was ready and is not any more."


def _waiting(pod: Pod) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for container in pod.containers:
        if waiting := (container.get("state") or {}).get("waiting"):
            yield container.get("name", ""), waiting


def _refused(pod: Pod) -> Iterator[tuple[str, str]]:
    """Containers that could not be made or started, and why.

    The kubelet reports one that cannot be started as waiting, and between its tries as ended (StartError): in the same words.
    """
    for container in pod.containers:
        state = container.get("state") or {}
        waiting = state.get("waiting") or {}
        ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
        if ended.get("reason") == "StartError" and "running" not in state:
            yield container.get("name", ""), _explained(ended.get("message", "StartError"))
        elif waiting.get("reason") in _CONFIG_REASONS:
            yield container.get("name", ""), _explained(waiting.get("message") or waiting.get("reason", ""))


def _explained(message: str) -> str:
    if _NO_PYTHON not in message:
        return message
    return (
        "The image has no python3; the workspace's server needs 3.9 or later. Name another in the class, spec.workspace.image."
    )


def _crash(pod: Pod) -> str | None:
    """The last crash of a container that does not run at the moment."""
    for container in pod.containers:
        state = container.get("state") or {}
        crashed = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
        if "running" in state or not crashed or crashed.get("exitCode", 0) == 0:
            continue
        # The termination message is the runtime's last report (JSON), or the tail of its log: a person wants the latter.
        last_words = str(crashed.get("message") or "")
        tail = "" if _report_in(last_words) else last_words.strip()[-512:]
        return (
            f"{container.get('name', '')}: exit code {crashed.get('exitCode')} ({crashed.get('reason', 'Error')}), "
            f"{container.get('restartCount', 0)} restarts." + (f" {tail}" if tail else "")
        )
    return None


def started_at(pod: Pod) -> str | None:
    """When the agent's container first started, as far as the kubelet remembers (RFC 3339)."""
    for container in _agent_containers(pod):
        for state in (container.get("lastState") or {}, container.get("state") or {}):
            for kind in ("terminated", "running"):
                started = parse_time((state.get(kind) or {}).get("startedAt"))
                if started is not None and started > _EPOCH:
                    return rfc3339(started)
    return None


def agent_ended_at(pod: Pod) -> datetime | None:
    """When the agent's container ended for good: with exit code 0, after which the kubelet does not restart it.

    Where its record has no time that can be read, the pod's creation stands in: it has ended all the same.
    """
    for container in _agent_containers(pod):
        terminated = (container.get("state") or {}).get("terminated")
        if terminated and terminated.get("exitCode") == 0:
            return parse_time(terminated.get("finishedAt")) or parse_time(pod.meta.created) or _EPOCH
    return None


def final_report(pod: Pod) -> SessionReport | None:
    """The report that the runtime left in its termination message.

    It is how a session's outcome survives an operator that was away when the session ended.
    """
    for container in _agent_containers(pod):
        terminated = (container.get("state") or {}).get("terminated") or {}
        return _report_in(str(terminated.get("message") or ""))
    return None


def _agent_containers(pod: Pod) -> Iterator[Mapping[str, Any]]:
    return (container for container in pod.containers if container.get("name") == AGENT_CONTAINER)


def _report_in(message: str) -> SessionReport | None:
    """The report in a termination message: its second line, or where that was cut its first, with what must be known."""
    if not message.startswith("{"):
        return None
    for line in reversed(message.split("\n", 1)):
        try:
            return SessionReport.model_validate_json(line)
        except ValidationError:
            continue
    return None
