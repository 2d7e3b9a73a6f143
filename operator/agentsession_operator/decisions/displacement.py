"""Sessions that a quota takes the slot of: replaced by another session (whenFull: ReplaceOldestIdle), or drained (stopPolicy:
HoldAndDrain).

What is begun is in the status (`rest`) before the pod is told to stop, so that an operator that starts in between continues it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from agentsession_operator.api.conditions import ConditionType, FinishedReason, SuspendedReason
from agentsession_operator.api.objects import Session
from agentsession_operator.api.session import Rest
from agentsession_operator.decisions.facts import ReceivedReport
from agentsession_operator.decisions.standing import End, Held, Released, Standing, Suspension

FRESH: Final = timedelta(seconds=150)
"""A session reports every 60 s. The report of one that has been silent for longer than this says nothing of it any more: its
agent may be at work, behind a network that carries no reports."""

_REPLACED = (
    "The session was idle, and its slot went to another one. To resume it, set spec.suspend to true and back to false. It then "
    "waits for a slot."
)
_DRAINED = "The session's quota is being drained. The session resumes by itself when the hold is over."
_FINISHED = (
    "The session was idle, and its slot went to another one (whenFull: ReplaceOldestIdle). Its workspace was ephemeral, so it "
    "cannot continue. Apply the session again under another name."
)


def stays_away(session: Session) -> bool:
    """Whether the session was suspended in favor of another one, and nobody has asked for it since."""
    rest = session.status.rest
    return rest is not None and rest.reason == "Replaced" and session.meta.generation <= rest.generation


def begin(standing: Standing) -> None:
    """A quota wants the slot back: that is begun while the agent waits for input, and then carried through. Somebody's change
    of the spec takes a replacement back."""
    session, displaced, rest = standing.facts.session, standing.facts.displaced, standing.rest
    if rest is not None:
        if rest.reason == "Replaced" and not stays_away(session):
            standing.rest = None
        return
    if displaced is None or session.spec.suspend or not _is_idle(standing):
        return
    if displaced.reason is SuspendedReason.REPLACED:
        standing.rest = Rest(reason="Replaced", generation=session.meta.generation, successor=displaced.successor)
    elif standing.workspace is not None:
        standing.rest = Rest(reason="QuotaHeld", generation=session.meta.generation)


def says_idle(received: ReceivedReport, now: datetime) -> bool:
    """Whether a session's newest report says that its agent waits for input, and still says anything at all."""
    report = received.report
    return report.activity == "Idle" and report.outcome is None and now - received.received <= FRESH


def _is_idle(standing: Standing) -> bool:
    """By the newest report, and by what is written of its pod."""
    pod, received = standing.facts.pod, standing.facts.report
    runs = pod is not None and not pod.ended and not pod.meta.deleting
    ready = standing.written(ConditionType.POD_READY)
    told = received is not None and says_idle(received, standing.now)
    return runs and told and ready is not None and ready.status == "True"


def finish(standing: Standing) -> None:
    """An ephemeral session is over. Its pod is deleted when that is written."""
    standing.slot = Held()
    standing.end = End(FinishedReason.REPLACED, _FINISHED)


def rest(standing: Standing) -> None:
    """The session has no pod any more."""
    if standing.rest is not None and standing.rest.reason == "QuotaHeld":
        standing.suspension = Suspension(SuspendedReason.QUOTA_HELD, _DRAINED)
        standing.rest = None  # from here on it asks for a slot, and waits for the end of the hold like others
    else:
        standing.suspension = Suspension(SuspendedReason.REPLACED, _REPLACED)
    standing.slot = Released("The session is suspended and holds no slot.")
    standing.queue = None
