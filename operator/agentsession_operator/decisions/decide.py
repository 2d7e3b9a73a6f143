"""The reconciler's decision: from what is known of one session to its status and what must be done. A pure function.

The stages of a session's life, in the order in which `decide` asks for them:

    over          its outcome is written; its pod is let go
    leaving       it is being deleted, and somebody else's finalizer holds it
    holding       it has a pod of ours, or the slot of one (Admitted=True)
        displace      a quota wants its slot back, and it is idle (displacement.py)
        suspend       spec.suspend or a quota says so, and it is persistent (persistent.py)
        replace       its pod is lost, or was rejected before anything ran (persistent.py)
        ending        its pod has ended
        living        its pod is there
    waiting       it has neither

A stage says where the session stands (`Standing`); `session_conditions` puts that into conditions.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from agentsession_operator.api.conditions import (
    ActiveReason,
    AdmittedReason,
    ConditionType,
    FinishedReason,
    PodReadyReason,
    SuspendedReason,
)
from agentsession_operator.api.objects import Pod
from agentsession_operator.api.session import QueuePlace
from agentsession_operator.api.times import rfc3339
from agentsession_operator.decisions import displacement, persistent, podstate
from agentsession_operator.decisions.decision import Decision, DeletePod, ReleasePod
from agentsession_operator.decisions.facts import Facts
from agentsession_operator.decisions.podstate import Readiness
from agentsession_operator.decisions.quotas.verdict import TurnedAway, Wait
from agentsession_operator.decisions.report_status import take_report
from agentsession_operator.decisions.resolve import Misconfigured
from agentsession_operator.decisions.session_conditions import RESTING, conditions_of, phase
from agentsession_operator.decisions.standing import Activity, End, Held, Released, Standing
from session_runtime.wire import SessionReport

OUTCOME_GRACE: Final = timedelta(seconds=60)
"""How long a pod may linger after its session is over. Then it is deleted, so that no slot leaks."""

VOLUME_GRACE: Final = timedelta(seconds=10)
"""How long a volume may take before its pod is reported as unschedulable."""

QUIET_START: Final = timedelta(seconds=1)
"""A pod that is Ready within this time of its creation costs one status write, not two: nothing is said of it before."""

_GONE_ADVICE: Final = (
    "The workspace was ephemeral, so the session's work is lost with it. Apply the session again under another name; sessions "
    "of a class with workspace.type Persistent survive this."
)


def decide(facts: Facts, now: datetime) -> Decision:
    """Decide on one session; `now` is UTC."""
    standing = Standing.of(facts, now, rfc3339(now))
    if facts.session.finished:
        _over(standing)
    elif facts.session.meta.deleting:
        _leaving(standing)
    elif facts.creating and facts.pod is None:
        standing.quiet = True  # the answer says how to continue
    elif _holds(standing):
        _holding(standing)
    else:
        _waiting(standing)
    if standing.quiet:
        return Decision(facts.session.status, (), standing.look_again)
    conditions = conditions_of(standing)
    if standing.end is not None:
        standing.finish_time = standing.stamp
        standing.pending_approvals = []
        standing.tool_problems = []
    status = standing.status(conditions.as_list())
    word = phase(conditions, started=standing.start_time is not None, persistent=standing.workspace is not None)
    return Decision(status.model_copy(update={"phase": word}), standing.actions, standing.look_again)


# Over, or leaving.


def _over(standing: Standing) -> None:
    pod, told = standing.facts.pod, standing.written(ConditionType.ADMITTED)
    if (pod is None or pod.ended) and (told is None or told.status == "True"):
        standing.slot = Released("The session has finished and its slot is free.")
    if pod is not None and not pod.ended and not pod.meta.deleting:
        standing.actions.append(DeletePod(pod))
    if pod is not None and pod.ended and pod.protected:
        standing.actions.append(ReleasePod(pod))


def _leaving(standing: Standing) -> None:
    """Held by somebody else's finalizer, or by a deletion in the foreground: its pod and its slot need not wait for that."""
    pod = standing.facts.pod
    if pod is None or pod.ended:
        if standing.facts.session.admitted:
            standing.slot = Released("The session is being deleted and its slot is free.")
        if pod is not None and pod.protected:
            standing.actions.append(ReleasePod(pod))
    elif not pod.meta.deleting:
        standing.actions.append(DeletePod(pod))


# Waiting for a slot.


def _holds(standing: Standing) -> bool:
    """Whether the session holds a slot, or had one: by its status, by a pod whose end is not written, or (an ephemeral session
    whose status was edited) by a pod that is gone."""
    session, pod = standing.facts.session, standing.facts.pod
    if session.admitted or (pod is not None and not (pod.ended and persistent.is_recorded(session, pod))):
        return True
    return session.status.pod_uid is not None and session.status.workspace is None


def _waiting(standing: Standing) -> None:
    facts = standing.facts
    persistent.let_go(standing, facts.pod)
    if facts.session.spec.suspend:
        persistent.rest(standing)
    elif displacement.stays_away(facts.session):
        displacement.rest(standing)
    elif isinstance(facts.resolved, Misconfigured):
        standing.slot = facts.resolved
        standing.queue = None
    elif isinstance(facts.verdict, TurnedAway):
        standing.slot = facts.verdict
        standing.end = End(FinishedReason.REJECTED, facts.verdict.message)
        standing.queue = None
    elif (verdict := facts.verdict or _refused(facts)) is not None:
        standing.slot = verdict
        standing.rest = None
        since = standing.queue.since if standing.queue else standing.stamp
        standing.queue = QueuePlace(position=verdict.position, since=since)
    if facts.refusal and isinstance(standing.slot, Wait):
        standing.pod = Readiness("False", PodReadyReason.CREATE_FAILED, facts.refusal)


def _refused(facts: Facts) -> Wait | None:
    """A session whose pod was refused asks for nothing until its wait is over, and has no position."""
    return Wait(AdmittedReason.QUEUED, facts.refusal) if facts.refusal else None


# Holding a slot.


def _holding(standing: Standing) -> None:
    facts, pod = standing.facts, standing.facts.pod
    standing.queue = None
    if pod is not None:
        standing.workspace = standing.workspace or pod.workspace
    displacement.begin(standing)
    if standing.workspace is None and standing.rest is not None:
        displacement.finish(standing)
        return
    if standing.workspace is not None and not _is_over(standing):
        if facts.session.spec.suspend or standing.rest is not None:
            persistent.suspend(standing, pod)
            return
        if pod is None or pod.ended or pod.meta.deleting:
            persistent.replace(standing, pod)
            return
    if pod is None:
        _without_pod(standing)
    elif pod.ended:
        _ending(standing, pod)
    else:
        _living(standing, pod)


def _is_over(standing: Standing) -> bool:
    """Whether the session has come to its end, or its agent says so."""
    received, pod = standing.facts.report, standing.facts.pod
    last = received.report if received else None
    if pod is not None and not (last and last.outcome):
        last = podstate.final_report(pod)
    return bool(last and last.outcome) or (pod is not None and pod.phase == "Succeeded")


def _without_pod(standing: Standing) -> None:
    """No pod, and the workspace is ephemeral or the session is over. A pod that started is never created a second time."""
    if standing.pod_uid is None and standing.lost_pods is not None:
        persistent.replace(standing, None)  # the last one was rejected before anything ran, and that is counted
        return
    standing.slot = Held()
    take_report(standing, _received(standing))
    said = _received(standing)
    written = standing.written(ConditionType.POD_READY)
    known = written is not None and written.reason in (PodReadyReason.EVICTED, PodReadyReason.POD_GONE)
    what = podstate.loss(None)
    if written is not None and known:
        what = Readiness("False", PodReadyReason(written.reason), written.message)
    standing.pod = what
    if said is not None and said.outcome:
        standing.end = End(said.outcome, said.outcome_message or "")
    else:
        standing.end = End("Failed", f"{what.message} {_GONE_ADVICE}")


def _ending(standing: Standing, pod: Pod) -> None:
    if standing.workspace is None and podstate.never_ran(pod) and not standing.has_started:
        persistent.replace(standing, pod)
        return
    standing.slot = Held()
    standing.pod_uid = pod.meta.uid
    standing.pod = podstate.readiness(pod)
    _finish_as_told(standing, pod)


# A pod that is there.


def _living(standing: Standing, pod: Pod) -> None:
    ready, received = podstate.readiness(pod), standing.facts.report
    over = received is not None and received.report.outcome is not None
    if not over and (wait := _quiet_for(standing, pod, ready)) > timedelta(0):
        standing.quiet = True
        standing.look_again_in(wait)
        return
    standing.slot = Held()
    if standing.lost_pods is not None and standing.lost_pods.count == 0:
        standing.lost_pods = None  # the pod that was told to end is gone: its name is this one's
    standing.pod_name, standing.pod_uid = pod.meta.name, pod.meta.uid
    if standing.model is None and not isinstance(standing.facts.resolved, Misconfigured):
        standing.model = standing.facts.resolved.agent.model
    if ready.reason is PodReadyReason.POD_ENDED or (over and ready.reason is PodReadyReason.CREATING):
        # One of the containers has ended and the other is about to, within a second: told with the end, in one write.
        _end_what_lingers(standing, pod)
        return
    standing.pod = _explained(standing, pod, ready)
    if ready.status == "True":
        standing.start_time = standing.start_time or podstate.started_at(pod) or standing.stamp
        if received is not None and not over:
            standing.activity = Activity(ActiveReason(received.report.activity), _limit_reached(received.report))
    elif ready.reason in (PodReadyReason.CRASHED, PodReadyReason.POD_GONE, PodReadyReason.EVICTED):
        standing.note_start(pod)
    if ready.reason is PodReadyReason.CRASHED:
        standing.activity = Activity(ActiveReason.STOPPED, "The container has crashed; the kubelet restarts it.")
    if standing.start_time is not None:
        take_report(standing, _received(standing))  # an earlier one is not worth a write of its own
    _end_what_lingers(standing, pod)


def _quiet_for(standing: Standing, pod: Pod, ready: Readiness) -> timedelta:
    """How long nothing is to be said of a new pod that is not Ready yet; not positive when it is time."""
    told = ready.status == "True" or ready.reason is PodReadyReason.CRASHED
    if told or standing.facts.created is None or not _is_news(standing, pod):
        return timedelta(0)
    return standing.facts.created + QUIET_START - standing.now


def _is_news(standing: Standing, pod: Pod) -> bool:
    """Whether nothing is written yet about the pod that is there."""
    return standing.facts.session.status.pod_uid != pod.meta.uid or not standing.facts.session.admitted


def _explained(standing: Standing, pod: Pod, ready: Readiness) -> Readiness:
    """PodReady of a pod that is there, in the light of what was before it."""
    if ready.reason is PodReadyReason.CREATING:
        before = standing.written(ConditionType.POD_READY)
        known = before is not None and not _is_news(standing, pod)
        if standing.start_time is not None and known and before is not None and before.reason != PodReadyReason.RESUMING:
            started = podstate.started_at(pod) is not None
            if started or before.status == "True" or before.reason == PodReadyReason.NOT_READY:
                return Readiness("False", PodReadyReason.NOT_READY, podstate.unready_message(pod))
        resumed = standing.written(ConditionType.SUSPENDED)
        comes_back = (*RESTING, SuspendedReason.SUSPENDING, SuspendedReason.RESUMING)
        if resumed is not None and resumed.reason in comes_back and not standing.facts.session.spec.suspend:
            return Readiness("False", PodReadyReason.RESUMING, podstate.STARTING)
    elif ready.reason is PodReadyReason.UNSCHEDULABLE and _awaits_volume(standing, pod):
        return Readiness("False", PodReadyReason.CREATING, podstate.STARTING)
    return ready


def _awaits_volume(standing: Standing, pod: Pod) -> bool:
    """The scheduler refuses a pod until its claim is bound: that is the usual way, and worth no writes for some seconds."""
    since = podstate.unschedulable_since(pod)
    if standing.workspace is None or since is None:
        return False
    before = standing.written(ConditionType.POD_READY)
    if before is not None and before.reason == PodReadyReason.UNSCHEDULABLE:
        return False
    left = since + VOLUME_GRACE - standing.now
    if left <= timedelta(0):
        return False
    standing.look_again_in(left)
    return True


# The end.


def _end_what_lingers(standing: Standing, pod: Pod) -> None:
    """A pod whose session is over gets some time to end by itself.

    The end is written first, and then the pod is deleted (`_over`): an operator that restarts in between knows no report any
    more, and would take a pod that is gone for one that was lost.
    """
    received = standing.facts.report
    over = received.received if received and received.report.outcome else podstate.agent_ended_at(pod)
    if over is None or pod.meta.deleting:
        return
    waited = standing.now - over
    if waited < OUTCOME_GRACE:
        standing.look_again_in(OUTCOME_GRACE - max(waited, timedelta(0)))
    else:
        standing.pod = Readiness("False", PodReadyReason.POD_ENDED, "The session is over; its pod lingers and is deleted.")
        _finish_as_told(standing, pod)


def _finish_as_told(standing: Standing, pod: Pod) -> None:
    """Finish with the outcome of a report: of the one that was received, or else of the pod's last words."""
    standing.note_start(pod)
    received, last = _received(standing), podstate.final_report(pod)
    take_report(standing, received)
    if received is not None and received.outcome:
        standing.end = End(received.outcome, received.outcome_message or "")
    elif last is not None and last.outcome:
        take_report(standing, last)
        standing.end = End(last.outcome, last.outcome_message or "")
    elif pod.phase == "Succeeded" or (pod.phase != "Failed" and not pod.meta.deleting):
        standing.end = End("Failed", "The agent exited without reporting an outcome. Check its log.")
    else:
        standing.end = End("Failed", f"{podstate.loss(pod).message} {_GONE_ADVICE}")


def _received(standing: Standing) -> SessionReport | None:
    return standing.facts.report.report if standing.facts.report else None


def _limit_reached(report: SessionReport) -> str:
    return "" if report.budget_used_up is None else f"No further model calls: {report.budget_used_up}."
