"""Sessions that outlive a pod: replacement of a pod that is lost, and suspension.

A loss is counted, and the count written, before anything is done about it: an operator that dies in between counts on. The name
of a session's pod is a function of its UID, so a successor waits until its predecessor is gone from the API.

An ephemeral session comes here for one reason only: its pod was rejected before anything ran in it (`podstate.never_ran`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from agentsession_operator.api.conditions import ActiveReason, ConditionType, PodReadyReason, SuspendedReason
from agentsession_operator.api.names import claim_name
from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.api.times import parse_time, rfc3339
from agentsession_operator.api.workspace import LostPods, WorkspaceStatus
from agentsession_operator.decisions import displacement, podstate
from agentsession_operator.decisions.decision import CreatePod, DeletePod, ReleasePod
from agentsession_operator.decisions.podstate import Readiness
from agentsession_operator.decisions.report_status import take_report
from agentsession_operator.decisions.resolve import Misconfigured, Resolved
from agentsession_operator.decisions.standing import Activity, End, Held, Released, Standing, Suspension

TOLERATED: Final = 7
"""Pods in a row that are replaced: with the waits between them, five minutes of trying. The next loss fails the session."""

IN_A_ROW: Final = timedelta(minutes=10)
"""Losses that are further apart have nothing to do with each other, and the count starts again. Longer than the longest wait,
and as long as a container must run before the kubelet forgets its crashes."""

FIRST_WAIT: Final = timedelta(seconds=5)
"""Before the second replacement; doubled with each further one. The first comes at once: a drained node is nobody's fault."""


def workspace_of(session: Session, resolved: Resolved) -> WorkspaceStatus | None:
    """The persistent workspace of a session, None where it is ephemeral. Which one it has is settled with its first pod."""
    if session.status.pod_uid is not None or session.status.workspace is not None:
        return session.status.workspace
    offered = resolved.session_class.workspace
    if offered.type != "Persistent" or offered.size is None:
        return None
    return WorkspaceStatus(
        claim_name=claim_name(session.meta.name, session.meta.uid),
        size=offered.size,
        storage_class_name=offered.storage_class_name,
    )


def one_more(before: LostPods | None, pod_uid: str | None, now: datetime) -> LostPods:
    """The count after a loss."""
    last = parse_time(before.last_time) if before else None
    follows = last is not None and now - last < IN_A_ROW
    return LostPods(count=before.count + 1 if before and follows else 1, last_time=rfc3339(now), pod_uid=pod_uid)


def wait_for_next(lost: LostPods, now: datetime) -> timedelta:
    """How long to wait before the pod that was lost last is replaced; not positive when it is time."""
    last = parse_time(lost.last_time)
    if last is None:
        return timedelta(0)
    wait = FIRST_WAIT * 2 ** (min(lost.count, TOLERATED) - 2) if lost.count > 1 else timedelta(0)
    return last + wait - now


def is_recorded(session: Session, pod: Pod) -> bool:
    """Whether the end of a pod stands in the session's status: then the pod may go, and its slot with it."""
    last = session.status.lost_pods
    return session.finished or (last is not None and last.pod_uid == pod.meta.uid)


def let_go(standing: Standing, pod: Pod | None) -> None:
    """Let a pod go whose end is written: delete it, and take our finalizer off it."""
    if pod is None or not is_recorded(standing.facts.session, pod):
        return
    if not pod.meta.deleting:
        standing.actions.append(DeletePod(pod))
    if pod.ended and pod.protected:
        standing.actions.append(ReleasePod(pod))


# Replacement.


def replace(standing: Standing, pod: Pod | None) -> None:
    """Create another pod for one that is lost or rejected, when its name is free and it is time."""
    standing.slot = Held()
    if pod is not None and is_recorded(standing.facts.session, pod):
        let_go(standing, pod)
    elif pod is not None and not pod.ended:
        # Counted when it has ended: until then it may still report.
        if not _was_told_to_stop(standing):
            standing.pod = podstate.loss(pod)
        standing.activity = Activity(ActiveReason.STOPPED)
        take_report(standing, standing.facts.report.report if standing.facts.report else None)
    elif pod is not None or standing.pod_uid is not None:
        _count(standing, pod)
    else:
        _create(standing, standing.lost_pods)


def _count(standing: Standing, pod: Pod | None) -> None:
    """Count a loss that is not counted yet. What happened to the pod is the reason of PodReady."""
    uid = pod.meta.uid if pod is not None else standing.pod_uid
    what = podstate.rejection(pod) if pod is not None and podstate.never_ran(pod) else podstate.loss(pod)
    standing.pod_uid = None
    if pod is not None:
        standing.note_start(pod)
    take_report(standing, standing.facts.report.report if standing.facts.report else None)
    if _was_told_to_stop(standing):
        # It was to be suspended, and that was taken back: a pod that stops because it was told to is no loss.
        count = standing.lost_pods.count if standing.lost_pods else 0
        standing.lost_pods = LostPods(count=count, last_time=standing.stamp, pod_uid=uid)
        standing.pod = Readiness("False", PodReadyReason.RESUMING, podstate.STARTING)
        standing.look_again_in(timedelta(0))
        return
    standing.lost_pods = lost = one_more(standing.lost_pods, uid, standing.now)
    if lost.count > TOLERATED:
        _give_up(standing, lost, what)
        return
    next_one = "Another pod continues the session." if standing.has_started else "The pod is created again."
    standing.pod = Readiness("False", what.reason, f"{what.message} {next_one}")
    standing.activity = Activity(ActiveReason.STOPPED if standing.has_started else ActiveReason.NOT_STARTED)
    standing.look_again_in(timedelta(0))


def _was_told_to_stop(standing: Standing) -> bool:
    """Whether the pod stops because of a suspension, which was taken back since."""
    before = standing.written(ConditionType.POD_READY)
    return before is not None and before.reason == PodReadyReason.SUSPENDING


def _create(standing: Standing, lost: LostPods | None) -> None:
    wait = wait_for_next(lost, standing.now) if lost else timedelta(0)
    resolved = standing.facts.resolved
    if wait > timedelta(0):
        standing.look_again_in(wait)
    elif isinstance(resolved, Misconfigured):
        standing.pod = Readiness("False", PodReadyReason.MISCONFIGURED, resolved.message)
    else:
        standing.model = resolved.agent.model
        if standing.facts.refusal:
            standing.pod = Readiness("False", PodReadyReason.CREATE_FAILED, standing.facts.refusal)
        standing.actions.append(CreatePod(standing.workspace))


def _give_up(standing: Standing, lost: LostPods, what: Readiness) -> None:
    standing.pod = what
    if standing.workspace is None:
        message = (
            f"The pod was rejected {lost.count} times in a row before anything ran in it. The last time: {what.message} "
            "Apply the session again under another name when the nodes have room."
        )
    else:
        message = (
            f"The session lost {lost.count} pods in a row. The last time: {what.message} Its files and conversation stay on "
            f"the PersistentVolumeClaim {standing.workspace.claim_name} until the session is deleted."
        )
    standing.end = End("Failed", message)


# Suspension.


def suspend(standing: Standing, pod: Pod | None) -> None:
    """Give the slot back once the pod is gone or has ended. The runtime saves the session when it is told to stop."""
    standing.slot = Held()
    standing.activity = Activity(ActiveReason.STOPPED)
    take_report(standing, standing.facts.report.report if standing.facts.report else None)
    if pod is None or pod.ended:
        last = pod.meta.uid if pod is not None else standing.pod_uid
        if pod is not None:
            standing.note_start(pod)
        standing.pod = Readiness("False", PodReadyReason.SUSPENDED, "The session is suspended and has no pod.")
        standing.pod_uid = None
        if standing.facts.session.spec.suspend:
            rest(standing)
        else:
            displacement.rest(standing)
        if last is not None:
            standing.lost_pods = LostPods(count=0, last_time=standing.stamp, pod_uid=last)
        return
    if not pod.meta.deleting:
        standing.actions.append(DeletePod(pod))
    saving = "The pod saves the session and exits."
    standing.pod = Readiness("False", PodReadyReason.SUSPENDING, saving)
    standing.suspension = Suspension(SuspendedReason.SUSPENDING, saving)


def rest(standing: Standing) -> None:
    """The session is suspended: it neither holds a slot nor asks for one."""
    standing.rest = None
    standing.suspension = Suspension(SuspendedReason.USER_REQUESTED, "spec.suspend is true. Set it to false to resume.")
    standing.slot = Released("The session is suspended. It neither holds a slot nor waits for one.")
    standing.queue = None
