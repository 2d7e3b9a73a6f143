"""One function for each condition of a session: from where it stands to the words that people and programs read.

They run in this order, because later ones read earlier ones: Finished, Admitted, PodReady, Active, Suspended, then Ready and
Stalled, which only repeat. Each leaves its condition as it is written where the stage has nothing new to say.
"""

from __future__ import annotations

from agentsession_operator.api.conditions import (
    ActiveReason,
    AdmittedReason,
    ConditionType,
    FinishedReason,
    PodReadyReason,
    SuspendedReason,
)
from agentsession_operator.api.meta import Condition
from agentsession_operator.api.session import Phase
from agentsession_operator.decisions.condition_set import ConditionSet
from agentsession_operator.decisions.quotas.verdict import TurnedAway, Wait
from agentsession_operator.decisions.resolve import Misconfigured
from agentsession_operator.decisions.standing import Held, Released, Standing

RESTING = (SuspendedReason.USER_REQUESTED, SuspendedReason.REPLACED, SuspendedReason.QUOTA_HELD)
"""Why a session has no pod and asks for none, or for none before a hold is over."""

_NOT_PERSISTENT = (
    "The workspace is ephemeral: suspending would lose its work, so the session continues. Delete the session to free its "
    "slot, or set spec.suspend to false. Sessions of a class with workspace.type Persistent can be suspended."
)


def conditions_of(standing: Standing) -> ConditionSet:
    """All conditions of a session that stands so."""
    session = standing.facts.session
    conditions = ConditionSet(session.status.conditions, generation=session.meta.generation, now=standing.stamp)
    finished(standing, conditions)
    admitted(standing, conditions)
    pod_ready(standing, conditions)
    active(standing, conditions)
    suspended(standing, conditions)
    ready(standing, conditions)
    stalled(conditions)
    return conditions


def finished(standing: Standing, conditions: ConditionSet) -> None:
    """True with the outcome once the session is over, and then for good; False/Running from its first slot on."""
    if standing.end is not None:
        conditions.set(ConditionType.FINISHED, "True", FinishedReason(standing.end.outcome), standing.end.message)
    elif isinstance(standing.slot, Held) and conditions.get(ConditionType.FINISHED) is None:
        conditions.set(ConditionType.FINISHED, "False", FinishedReason.RUNNING)


def admitted(standing: Standing, conditions: ConditionSet) -> None:
    """True while the session holds a slot: from its pod's creation until that pod has ended and nothing is to follow it."""
    kind, slot, pod = ConditionType.ADMITTED, standing.slot, standing.facts.pod
    if isinstance(slot, Held) and standing.end is not None and (pod is None or pod.ended):
        slot = Released("The session has finished and its slot is free.")
    match slot:
        case Held():
            conditions.set(kind, "True", AdmittedReason.ADMITTED, "The session holds a slot.")
        case Released():
            conditions.set(kind, "False", AdmittedReason.RELEASED, slot.message)
        case Misconfigured():
            conditions.set(kind, "False", AdmittedReason.MISCONFIGURED, slot.message)
        case Wait() | TurnedAway():
            conditions.set(kind, "False", slot.reason, slot.message)
        case _:
            return  # nothing new


def pod_ready(standing: Standing, conditions: ConditionSet) -> None:
    """True while the session can be talked to; else what stands in the way, in the cluster's own words."""
    kind = ConditionType.POD_READY
    if standing.pod is not None:
        conditions.set(kind, standing.pod.status, standing.pod.reason, standing.pod.message)
    elif isinstance(standing.slot, Wait) and _reason(conditions.get(kind)) == PodReadyReason.CREATE_FAILED:
        conditions.remove(kind)  # the refusal is over, and there is no pod to speak of


def active(standing: Standing, conditions: ConditionSet) -> None:
    """What the agent does. Stopped once the session is over."""
    kind = ConditionType.ACTIVE
    if standing.end is not None:
        conditions.set(kind, "False", ActiveReason.STOPPED)
    elif standing.activity is not None:
        runs = standing.activity.reason not in (ActiveReason.NOT_STARTED, ActiveReason.STOPPED)
        conditions.set(kind, "True" if runs else "False", standing.activity.reason, standing.activity.message)
    elif isinstance(standing.slot, Held) and conditions.get(kind) is None:
        conditions.set(kind, "False", ActiveReason.NOT_STARTED)


def suspended(standing: Standing, conditions: ConditionSet) -> None:
    """There once somebody has asked for a suspension, until the session is over."""
    kind, session = ConditionType.SUSPENDED, standing.facts.session
    before = conditions.get(kind)
    if standing.end is not None or conditions.holds(ConditionType.FINISHED):
        conditions.remove(kind)
    elif standing.suspension is not None:
        rests = standing.suspension.reason in RESTING
        conditions.set(kind, "True" if rests else "False", standing.suspension.reason, standing.suspension.message)
    elif session.spec.suspend:
        if conditions.holds(ConditionType.ADMITTED) and standing.workspace is None:
            conditions.set(kind, "False", SuspendedReason.NOT_PERSISTENT, _NOT_PERSISTENT)
    elif before is not None and _awaits_the_end_of_a_hold(standing, before):
        return
    elif before is not None and standing.slot is not None and not isinstance(standing.slot, Released):
        never = before.reason in (SuspendedReason.NOT_PERSISTENT, SuspendedReason.NOT_SUSPENDED)
        back = never or conditions.holds(ConditionType.POD_READY)
        conditions.set(kind, "False", SuspendedReason.NOT_SUSPENDED if back else SuspendedReason.RESUMING)


def _awaits_the_end_of_a_hold(standing: Standing, before: Condition) -> bool:
    slot = standing.slot
    held = isinstance(slot, Wait) and slot.reason is AdmittedReason.QUOTA_HELD
    return held and before.status == "True" and before.reason == SuspendedReason.QUOTA_HELD


def ready(standing: Standing, conditions: ConditionSet) -> None:
    """True while the session can be talked to, and when a Task is completed; else the reason that blocks, repeated."""
    kind = ConditionType.READY
    over, slot, pod = (
        conditions.get(ConditionType.FINISHED),
        conditions.get(ConditionType.ADMITTED),
        conditions.get(ConditionType.POD_READY),
    )
    rest = conditions.get(ConditionType.SUSPENDED)
    if over is not None and over.status == "True":
        done = over.reason == FinishedReason.COMPLETED and standing.facts.session.spec.mode == "Task"
        conditions.set(kind, "True" if done else "False", over.reason, over.message)
    elif slot is None:
        return  # nothing is known yet, and a status that says so would cost a write
    elif rest is not None and rest.status == "True":
        conditions.set(kind, "False", PodReadyReason.SUSPENDED, rest.message)
    elif slot.status != "True" and _reason(pod) != PodReadyReason.CREATE_FAILED:
        conditions.set(kind, "False", slot.reason, slot.message)
    elif pod is not None:
        conditions.set(kind, pod.status, pod.reason, pod.message)


def stalled(conditions: ConditionSet) -> None:
    """There while the session cannot continue by itself: it is over without success, or misconfigured."""
    over, slot = conditions.get(ConditionType.FINISHED), conditions.get(ConditionType.ADMITTED)
    cause: Condition | None = None
    if over is not None and over.status == "True":
        cause = over if over.reason != FinishedReason.COMPLETED else None
    elif slot is not None and slot.reason == AdmittedReason.MISCONFIGURED:
        cause = slot
    if cause is not None:
        conditions.set(ConditionType.STALLED, "True", cause.reason, cause.message)
    else:
        conditions.remove(ConditionType.STALLED)


def phase(conditions: ConditionSet, *, started: bool, persistent: bool) -> Phase:
    """The state in one word. `started`: its agent has run before; `persistent`: a pod that is lost is replaced."""
    over, slot = conditions.get(ConditionType.FINISHED), conditions.get(ConditionType.ADMITTED)
    rest, pod = conditions.get(ConditionType.SUSPENDED), conditions.get(ConditionType.POD_READY)
    if over is not None and over.status == "True":
        return "Completed" if over.reason == FinishedReason.COMPLETED else "Failed"
    if rest is not None and rest.status == "True":
        return "Suspended"
    if _reason(rest) == SuspendedReason.SUSPENDING:
        return "Suspending"
    if slot is None or slot.reason == AdmittedReason.MISCONFIGURED:
        return "Pending"
    if slot.status != "True":
        return "Queued"
    if pod is None or pod.status != "True":
        going = _reason(pod) in (PodReadyReason.POD_GONE, PodReadyReason.EVICTED) and not persistent
        return "Running" if started and (_reason(pod) == PodReadyReason.NOT_READY or going) else "Starting"
    activity = _reason(conditions.get(ConditionType.ACTIVE))
    if activity == ActiveReason.AWAITING_APPROVAL:
        return "AwaitingApproval"
    return "Idle" if activity == ActiveReason.IDLE else "Running"


def _reason(condition: Condition | None) -> str:
    return condition.reason if condition is not None else ""
