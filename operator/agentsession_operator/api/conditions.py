"""The conditions of an AgentSession and all their reasons: the words that people and programs read a session's state by.

`make manifests` writes the tables of README.md and docs/conditions.md from `REASONS`. Reasons are part of the API: programs
rely on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class ConditionType(StrEnum):
    """What a condition is about."""

    ADMITTED = "Admitted"
    """The session holds a slot of the quotas that count it."""
    POD_READY = "PodReady"
    """The session's pod answers."""
    ACTIVE = "Active"
    """What the agent does."""
    SUSPENDED = "Suspended"
    """The session rests without a pod. Only there once somebody or a quota asked for it."""
    FINISHED = "Finished"
    """The session is over."""
    READY = "Ready"
    """All that was asked for holds (kstatus): the session can be talked to, or the Task is completed."""
    ADMITTING = "Admitting"
    """Of a SessionQuota: it admits sessions. False while it is full or held."""
    STALLED = "Stalled"
    """The session cannot continue by itself (kstatus). Only there while it holds."""


class AdmittedReason(StrEnum):
    ADMITTED = "Admitted"
    USER_LIMIT_REACHED = "UserLimitReached"
    GLOBAL_LIMIT_REACHED = "GlobalLimitReached"
    QUEUED = "Queued"
    QUOTA_HELD = "QuotaHeld"
    QUEUE_FULL = "QueueFull"
    REJECTED = "Rejected"
    MISCONFIGURED = "Misconfigured"
    RELEASED = "Released"


class PodReadyReason(StrEnum):
    POD_READY = "PodReady"
    CREATING = "Creating"
    RESUMING = "Resuming"
    CREATE_FAILED = "CreateFailed"
    UNSCHEDULABLE = "Unschedulable"
    GATED = "SchedulingGated"
    IMAGE_ERROR = "ImageError"
    CONTAINER_ERROR = "ContainerError"
    CRASHED = "Crashed"
    NOT_READY = "NotReady"
    EVICTED = "Evicted"
    POD_GONE = "PodGone"
    POD_REJECTED = "PodRejected"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    MISCONFIGURED = "Misconfigured"
    POD_ENDED = "PodEnded"


class ActiveReason(StrEnum):
    PROCESSING = "Processing"
    AWAITING_APPROVAL = "AwaitingApproval"
    IDLE = "Idle"
    NOT_STARTED = "NotStarted"
    STOPPED = "Stopped"


class SuspendedReason(StrEnum):
    USER_REQUESTED = "UserRequested"
    REPLACED = "Replaced"
    QUOTA_HELD = "QuotaHeld"
    SUSPENDING = "Suspending"
    RESUMING = "Resuming"
    NOT_SUSPENDED = "NotSuspended"
    NOT_PERSISTENT = "NotPersistent"


class FinishedReason(StrEnum):
    COMPLETED = "Completed"
    FAILED = "Failed"
    BUDGET_EXCEEDED = "BudgetExceeded"
    REJECTED = "Rejected"
    REPLACED = "Replaced"
    RUNNING = "Running"


Reason = AdmittedReason | PodReadyReason | ActiveReason | SuspendedReason | FinishedReason


@dataclass(frozen=True, slots=True)
class Documented:
    """What one reason of one condition means."""

    condition: ConditionType
    status: str
    """The condition's status with this reason."""
    reason: Reason
    meaning: str
    """What it means and what to do, for a person who reads `kubectl describe`. Markdown, without vertical bars."""
    trouble: bool = False
    """Whether a session that comes to it is worth a Warning Event."""


def _rows() -> Iterator[Documented]:
    kind, why = ConditionType.ADMITTED, AdmittedReason
    yield Documented(kind, "True", why.ADMITTED, "the session holds a slot")
    yield Documented(
        kind, "False", why.USER_LIMIT_REACHED, "the user is at their limit: delete or suspend one of their sessions, or wait"
    )
    yield Documented(
        kind, "False", why.GLOBAL_LIMIT_REACHED, "the quota is full: wait, or ask the platform team to raise `maxSessions`"
    )
    yield Documented(
        kind,
        "False",
        why.QUEUED,
        "others are first, or the API server refused the pod: the message says which; the session starts by itself",
    )
    yield Documented(
        kind,
        "False",
        why.QUOTA_HELD,
        "the quota in the message admits nobody: its `stopPolicy` says so, or it cannot be read; the session starts by itself "
        "when that is over",
    )
    yield Documented(
        kind,
        "False",
        why.QUEUE_FULL,
        "as many sessions wait as the quota's `maxWaiting` or `maxWaitingPerUser` allows: apply the session again later",
    )
    yield Documented(
        kind,
        "False",
        why.REJECTED,
        "a limit is reached, and its quota says `whenFull: Reject`: close a session, or apply this one again later",
    )
    yield Documented(
        kind,
        "False",
        why.MISCONFIGURED,
        "the message names the field; if a class is missing, create it and the session continues",
        trouble=True,
    )
    yield Documented(kind, "False", why.RELEASED, "finished or suspended; the slot is free")

    kind_, pod = ConditionType.POD_READY, PodReadyReason
    yield Documented(kind_, "True", pod.POD_READY, "the session can be talked to")
    yield Documented(kind_, "False", pod.CREATING, "starting; if it stays so, run `kubectl describe pod`")
    yield Documented(kind_, "False", pod.RESUMING, "starting again after a suspension")
    yield Documented(
        kind_,
        "False",
        pod.CREATE_FAILED,
        "the API server refuses the pod or its volume claim, in its own words (a ResourceQuota, a policy); retried with "
        "growing waits, and the slot is free for others meanwhile",
        trouble=True,
    )
    yield Documented(
        kind_,
        "False",
        pod.UNSCHEDULABLE,
        "no node has room, or the volume is not there; the scheduler's message says what is missing",
        trouble=True,
    )
    yield Documented(
        kind_,
        "False",
        pod.GATED,
        "scheduling gates hold the pod back; the message names them and their owner must remove them",
    )
    yield Documented(
        kind_,
        "False",
        pod.IMAGE_ERROR,
        "the image cannot be pulled: check its name, the class's `imagePullSecrets`, and the node's access to the registry",
        trouble=True,
    )
    yield Documented(
        kind_,
        "False",
        pod.CONTAINER_ERROR,
        "the container cannot be created, usually because `credentials.secretName` or an MCP server's header or OAuth client "
        "names no Secret, or the workspace's image has no python3; the message says which",
        trouble=True,
    )
    yield Documented(
        kind_,
        "False",
        pod.CRASHED,
        "the exit code and last words are in the message; the kubelet restarts it, and it continues where it was",
        trouble=True,
    )
    yield Documented(kind_, "False", pod.NOT_READY, "it ran and does not answer at the moment; the kubelet's message says why")
    yield Documented(
        kind_,
        "False",
        pod.EVICTED,
        "the cluster took the pod away (node pressure, drain, preemption, shutdown); the message says why. A persistent "
        "session continues in a new pod; if the workspace is ephemeral, apply the session again under another name",
        trouble=True,
    )
    yield Documented(
        kind_,
        "False",
        pod.POD_GONE,
        "the pod was deleted or lost with its node. A persistent session continues in a new pod; if the workspace is "
        "ephemeral, apply the session again under another name",
        trouble=True,
    )
    yield Documented(
        kind_,
        "False",
        pod.POD_REJECTED,
        "the node refused the pod before anything ran, in the kubelet's words; it is created again, up to seven times in a row",
        trouble=True,
    )
    yield Documented(kind_, "False", pod.SUSPENDING, "`spec.suspend` is true: the pod saves the session and exits")
    yield Documented(kind_, "False", pod.SUSPENDED, "the session is suspended and has no pod")
    yield Documented(
        kind_,
        "False",
        pod.MISCONFIGURED,
        "the class vanished before the pod was created again; put it back, or delete the session",
        trouble=True,
    )
    yield Documented(kind_, "False", pod.POD_ENDED, "the session is over")

    active, doing = ConditionType.ACTIVE, ActiveReason
    yield Documented(active, "True", doing.PROCESSING, "the agent is at work; the message reports a budget that is used up")
    yield Documented(active, "True", doing.AWAITING_APPROVAL, "a tool call waits for a person's decision or answer")
    yield Documented(active, "True", doing.IDLE, "the agent has finished its turn and waits for input")
    yield Documented(active, "False", doing.NOT_STARTED, "the agent has not started yet")
    yield Documented(active, "False", doing.STOPPED, "the agent does not run at the moment, or no longer")

    rest, asked = ConditionType.SUSPENDED, SuspendedReason
    yield Documented(rest, "True", asked.USER_REQUESTED, "suspended; `spec.suspend: false` brings it back")
    yield Documented(
        rest,
        "True",
        asked.REPLACED,
        "it was idle, and its slot went to another session (`whenFull: ReplaceOldestIdle`): set `spec.suspend` to true and "
        "back to false to resume",
        trouble=True,
    )
    yield Documented(
        rest,
        "True",
        asked.QUOTA_HELD,
        "its quota is being drained (`stopPolicy: HoldAndDrain`); it resumes by itself after the hold",
    )
    yield Documented(rest, "False", asked.SUSPENDING, "the pod saves the session and exits")
    yield Documented(rest, "False", asked.RESUMING, "on its way back, perhaps queued")
    yield Documented(rest, "False", asked.NOT_SUSPENDED, "back")
    yield Documented(
        rest,
        "False",
        asked.NOT_PERSISTENT,
        "the workspace is ephemeral and would be lost, so the session continues: delete it, or set `spec.suspend: false`",
        trouble=True,
    )

    over, end = ConditionType.FINISHED, FinishedReason
    yield Documented(
        over, "True", end.COMPLETED, "the answer is in `status.lastMessage`, the whole conversation in `kubectl logs`"
    )
    yield Documented(over, "True", end.FAILED, "the message says why and what to change", trouble=True)
    yield Documented(
        over,
        "True",
        end.BUDGET_EXCEEDED,
        "a Task has used up `spec.budget`, or its class's: start a new session with a larger budget",
        trouble=True,
    )
    yield Documented(
        over,
        "True",
        end.REJECTED,
        "it found neither a slot nor a place in the queue; Admitted says which limit was reached",
        trouble=True,
    )
    yield Documented(
        over,
        "True",
        end.REPLACED,
        "it was idle and ephemeral, and its slot went to another session (`whenFull: ReplaceOldestIdle`): apply it again under "
        "another name",
        trouble=True,
    )
    yield Documented(over, "False", end.RUNNING, "the session is not over")


REASONS: tuple[Documented, ...] = tuple(_rows())
"""Every reason of every condition, in the order in which people should read them. Ready and Stalled repeat the others'
reasons."""

TROUBLE: frozenset[tuple[str, str]] = frozenset((row.condition.value, row.reason.value) for row in REASONS if row.trouble)
"""(type, reason) pairs that are worth a Warning Event."""


def reason_table(rows: Iterable[Documented] = REASONS) -> str:
    """A Markdown table of reasons."""
    lines = ["| condition | reason | meaning, and what to do |", "|---|---|---|"]
    last = ""
    for row in rows:
        name = f"{row.condition}={row.status}"
        lines.append(f"| {name if name != last else ''} | `{row.reason}` | {row.meaning} |")
        last = name
    return "\n".join(lines) + "\n"


def worth_a_look() -> list[Documented]:
    """The reasons for which a person looks a session up: it waits, is in trouble, or is over."""
    kinds = (ConditionType.ADMITTED, ConditionType.FINISHED)
    return [row for row in REASONS if row.trouble or (row.condition in kinds and row.reason not in _AS_IT_SHOULD_BE)]


_AS_IT_SHOULD_BE = (AdmittedReason.ADMITTED, AdmittedReason.RELEASED, FinishedReason.RUNNING)
