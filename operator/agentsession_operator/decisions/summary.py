"""What follows from a session's conditions: Ready and Stalled for programs, and the phase for people."""

from __future__ import annotations

from agentsession_operator.api.session import Phase
from agentsession_operator.decisions.condition_set import ConditionSet
from session_runtime.wire import Mode


def summarise(conditions: ConditionSet, mode: Mode) -> None:
    """Ready, and Stalled where the session cannot go on by itself: what kstatus and `kubectl wait` read."""
    kinds = ("Finished", "Admitted", "Suspended", "PodReady")
    finished, admitted, suspended, pod = (conditions.get(kind) for kind in kinds)
    stalled = None
    if finished and finished.status == "True":
        done = finished.reason == "Completed" and mode == "Task"
        conditions.set("Ready", "True" if done else "False", finished.reason, finished.message)
        stalled = finished if finished.reason != "Completed" else None
    elif admitted is None:
        return  # nothing is known yet, and a status that says so would cost a write
    elif suspended and suspended.status == "True":
        conditions.set("Ready", "False", "Suspended", suspended.message)
    elif admitted.status != "True":
        conditions.set("Ready", "False", admitted.reason, admitted.message)
        stalled = admitted if admitted.reason == "Misconfigured" else None
    elif pod is not None:
        conditions.set("Ready", pod.status, pod.reason, pod.message)
    if stalled:
        conditions.set("Stalled", "True", stalled.reason, stalled.message)
    else:
        conditions.remove("Stalled")


def phase(conditions: ConditionSet, *, started: bool, lasting: bool) -> Phase:
    """The state in one word. `started`: its agent has run before; `lasting`: a pod that is lost is replaced."""
    kinds = ("Finished", "Admitted", "Suspended", "PodReady", "Active")
    finished, admitted, suspended, pod, active = (conditions.get(kind) for kind in kinds)
    if finished and finished.status == "True":
        return "Completed" if finished.reason == "Completed" else "Failed"
    if suspended and suspended.status == "True":
        return "Suspended"
    if suspended and suspended.reason == "Suspending":
        return "Suspending"
    if admitted is None or admitted.reason == "Misconfigured":
        return "Pending"
    if admitted.status != "True":
        return "Queued"
    if pod is None or pod.status != "True":
        runs = pod is not None and (pod.reason == "NotReady" or (pod.reason == "PodGone" and not lasting))
        return "Running" if runs and started else "Starting"
    if active and active.reason == "AwaitingApproval":
        return "AwaitingApproval"
    return "Idle" if active and active.reason == "Idle" else "Running"
