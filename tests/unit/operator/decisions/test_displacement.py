"""Decisions on sessions whose slot a quota wants back."""

from __future__ import annotations

from typing import Any

import pytest

from agentsession_operator.api.conditions import AdmittedReason, SuspendedReason
from agentsession_operator.api.objects import Session
from agentsession_operator.decisions.decision import Decision
from agentsession_operator.decisions.quotas.verdict import Displaced, TurnedAway, Wait
from session_runtime.wire import SessionReport
from support.control_plane.builders import EARLIER, JSON, READY, STAMP, admitted, condition, ended, pod, report, session
from support.control_plane.decided import creates, decided, deletes, reasons, told, written

KEPT: JSON = {"workspace": {"claimName": "kept", "size": "5Gi"}, "startTime": EARLIER, "podUID": "pod-of-demo"}
TALKS = [condition("PodReady", "True", "PodReady"), condition("Active", "True", "Idle")]
REPLACED = Displaced(SuspendedReason.REPLACED, "uid-of-next")
DRAINED = Displaced(SuspendedReason.QUOTA_HELD)
IDLE = report()
HELD = Wait(AdmittedReason.QUOTA_HELD, "Queued: SessionQuota nights is on hold.", 1)


def talking(status: JSON = KEPT, **fields: Any) -> Session:
    return admitted(extra=TALKS, status=status, **fields)


def leaving(of: Session, displaced: Displaced | None, said: SessionReport | None = IDLE) -> Decision:
    return decided(of, pod=pod(status=READY), said=said, displaced=displaced)


def at_rest(displaced: Displaced) -> Session:
    """A persistent session whose slot was taken, and whose pod is gone."""
    stopping = written(talking(), leaving(talking(), displaced))
    return written(stopping, decided(stopping))


def changed(of: Session) -> Session:
    """Somebody has changed its spec."""
    body = {"metadata": {"generation": 2}}
    return session(generation=body["metadata"]["generation"], status=of.status.to_wire())


@pytest.mark.parametrize("displaced", [REPLACED, DRAINED])
def test_an_idle_persistent_session_is_suspended(displaced: Displaced) -> None:
    decision = leaving(talking(), displaced)
    assert deletes(decision) == ["pod-of-demo"]
    assert reasons(decision)["Admitted"] == ("True", "Admitted"), "until its pod has ended"
    assert reasons(decision)["Suspended"] == ("False", "Suspending")
    assert decision.status.rest is not None
    assert (decision.status.rest.generation, decision.status.rest.successor) == (1, displaced.successor)


@pytest.mark.parametrize("displaced", [REPLACED, DRAINED])
def test_it_is_carried_through_though_the_quota_says_nothing_more(displaced: Displaced) -> None:
    """An operator that starts in between knows neither the report nor the pair."""
    stopping = written(talking(), leaving(talking(), displaced))
    decision = decided(stopping, pod=pod(status=ended("Failed", code=143), deleting=True))
    assert reasons(decision)["Suspended"] == ("True", displaced.reason.value)
    assert reasons(decision)["Admitted"] == ("False", "Released")
    assert decision.status.phase == "Suspended"
    assert decision.status.lost_pods is not None
    assert decision.status.lost_pods.count == 0, "it was no loss"


@pytest.mark.parametrize(
    "said",
    [None, report(activity="Processing"), report(activity="AwaitingApproval"), report(outcome="Completed")],
    ids=["nothing known", "works", "waits for an approval", "is over"],
)
def test_a_session_that_is_not_idle_stays(said: SessionReport | None) -> None:
    decision = leaving(talking(), REPLACED, said)
    assert decision.status.rest is None
    assert "Suspended" not in reasons(decision)


@pytest.mark.parametrize(("ago", "stays"), [(150, False), (151, True)])
def test_a_session_that_was_silent_for_long_is_not_taken_for_idle(ago: float, stays: bool) -> None:
    decision = decided(talking(), pod=pod(status=READY), said=IDLE, ago=ago, displaced=REPLACED)
    assert (decision.status.rest is None) is stays


def test_a_session_that_is_to_be_suspended_anyway_stays_with_that() -> None:
    decision = leaving(talking(suspend=True), REPLACED)
    assert decision.status.rest is None
    resting = decided(written(talking(suspend=True), decision))
    assert reasons(resting)["Suspended"] == ("True", "UserRequested")


def test_a_pod_that_is_not_ready_is_not_taken_for_idle() -> None:
    starting = admitted(extra=[condition("PodReady", "False", "NotReady")], status=KEPT)
    assert leaving(starting, REPLACED).status.rest is None


def test_an_ephemeral_session_finishes_when_it_is_replaced() -> None:
    ephemeral = talking({"startTime": EARLIER, "podUID": "pod-of-demo"})
    decision = leaving(ephemeral, REPLACED)
    assert reasons(decision)["Finished"] == ("True", "Replaced")
    assert reasons(decision)["Admitted"] == ("True", "Admitted"), "its pod has not ended"
    assert "apply the session again" in told(decision, "Finished").message.lower()
    assert decision.status.finish_time == STAMP
    over = written(ephemeral, decision)
    assert deletes(decided(over, pod=pod(status=READY))) == ["pod-of-demo"]
    assert reasons(decided(over))["Admitted"] == ("False", "Released")


def test_an_ephemeral_session_is_never_drained() -> None:
    decision = leaving(talking({"startTime": EARLIER, "podUID": "pod-of-demo"}), DRAINED)
    assert (decision.status.rest, list(decision.actions)) == (None, [])


# And back.


def test_a_replaced_session_stays_away_until_somebody_asks_for_it() -> None:
    resting = at_rest(REPLACED)
    still = decided(resting)
    assert reasons(still)["Suspended"] == ("True", "Replaced")
    assert "spec.suspend to true and back to false" in told(still, "Suspended").message
    back = decided(changed(resting), verdict=Wait(AdmittedReason.GLOBAL_LIMIT_REACHED, "Queued", 3))
    assert reasons(back)["Suspended"] == ("False", "Resuming")
    assert (back.status.rest, back.status.phase) == (None, "Queued")


def test_a_replaced_session_that_is_suspended_by_its_user_rests_for_them() -> None:
    resting = at_rest(REPLACED)
    asked = session(generation=2, suspend=True, status=resting.status.to_wire())
    decision = decided(asked)
    assert reasons(decision)["Suspended"] == ("True", "UserRequested")
    assert decision.status.rest is None


def test_a_change_while_its_pod_stops_takes_the_replacement_back() -> None:
    stopping = written(talking(), leaving(talking(), REPLACED))
    back = session(generation=2, status=stopping.status.to_wire())
    decision = decided(back, pod=pod(status=READY, deleting=True))
    assert decision.status.rest is None
    gone = decided(written(back, decision))
    assert reasons(gone)["Admitted"] == ("True", "Admitted"), "it keeps its slot"
    assert gone.status.lost_pods is not None
    assert gone.status.lost_pods.count == 0
    assert creates(decided(written(back, gone))) == 1


def test_a_drained_session_waits_for_the_end_of_the_hold() -> None:
    resting = at_rest(DRAINED)
    assert resting.status.rest is None, "it asks for a slot like others"
    waiting = decided(resting, verdict=HELD)
    assert reasons(waiting)["Suspended"] == ("True", "QuotaHeld")
    assert reasons(waiting)["Admitted"] == ("False", "QuotaHeld")
    assert reasons(waiting)["Ready"] == ("False", "Suspended")
    assert waiting.status.phase == "Suspended"
    after = decided(written(resting, waiting), verdict=Wait(AdmittedReason.GLOBAL_LIMIT_REACHED, "Queued", 1))
    assert reasons(after)["Suspended"] == ("False", "Resuming")
    assert after.status.phase == "Queued"


def test_a_session_that_comes_back_says_so_until_it_answers() -> None:
    resting = at_rest(DRAINED)
    resumed = session(status={**resting.status.to_wire(), "podUID": "pod-of-demo"})
    decision = decided(resumed, pod=pod(status={"phase": "Pending"}))
    assert reasons(decision)["PodReady"] == ("False", "Resuming")
    assert reasons(decision)["Admitted"] == ("True", "Admitted")


# Turned away.


@pytest.mark.parametrize("reason", [AdmittedReason.REJECTED, AdmittedReason.QUEUE_FULL])
def test_a_session_that_is_turned_away_is_over_at_once(reason: AdmittedReason) -> None:
    decision = decided(session(), verdict=TurnedAway(reason, "Server is at capacity (1/1 sessions)."))
    assert reasons(decision) == {
        "Finished": ("True", "Rejected"),
        "Admitted": ("False", reason.value),
        "Active": ("False", "Stopped"),
        "Ready": ("False", "Rejected"),
        "Stalled": ("True", "Rejected"),
    }
    assert told(decision, "Ready").message == "Server is at capacity (1/1 sessions)."
    assert (decision.status.phase, decision.status.queue, decision.status.finish_time) == ("Failed", None, STAMP)
    over = decided(written(session(), decision))
    assert reasons(over)["Admitted"] == ("False", reason.value), "the reason stays"
