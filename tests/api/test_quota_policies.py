"""What becomes of sessions that find no room, and of those in the way: on a real API server, with a real operator."""

from __future__ import annotations

from support.api import JSON, condition
from support.scene import PERSISTENT, Scene
from support.waiting import eventually, read, throughout, wait_for

FIVE: JSON = {"maxSessions": 5, "maxSessionsPerUser": 5}
LONG_AGO, LATER = "2026-01-01T08:00:00Z", "2026-01-01T09:00:00Z"


def test_reject_finishes_with_the_words_that_clients_know(scene: Scene) -> None:
    scene.quota(maxSessions=2, maxSessionsPerUser=1, whenFull="Reject")
    assert scene.asks("a1") == ["Admitted"]
    own = scene.ask("a2")
    assert scene.asks("b1", user="bob") == ["Admitted"]
    everybody = scene.ask("c1", "carol")
    for body, words in (
        (own, "You have reached the maximum of 1 concurrent sessions. Please close an existing session first."),
        (everybody, "Server is at capacity (2/2 sessions). Please try again later."),
    ):
        found = scene.becomes(body, "Rejected")
        assert scene.message(body) == words
        assert condition(found, "Finished")["status"] == "True"
        assert (condition(found, "Finished")["reason"], condition(found, "Finished")["message"]) == ("Rejected", words)
        assert found["status"]["phase"] == "Failed"
        assert not scene.pods(body)


def test_a_quota_that_rejects_comes_before_one_that_queues(scene: Scene) -> None:
    scene.quota("queues", maxSessions=1, maxSessionsPerUser=1)
    scene.quota("rejects", classNames=["default"], maxSessions=1, whenFull="Reject")
    assert scene.asks("a1", "a2") == ["Admitted", "Rejected"]
    assert scene.asks("b1", user="bob", className=scene.session_class("other")) == ["GlobalLimitReached"]


def test_a_hold_admits_nobody_and_lets_the_running_continue(scene: Scene) -> None:
    quota = scene.quota(**FIVE)
    running = scene.ask("running", mode="Interactive")
    pod = scene.starts(running)
    quota.write(**FIVE, stopPolicy="Hold")
    assert condition(quota.enforced(), "Admitting")["reason"] == "Hold"
    held = scene.ask("held", "bob")
    assert scene.told(held) == "QuotaHeld"
    assert "SessionQuota tested is on hold (stopPolicy Hold)" in scene.message(held)
    scene.idle(running, pod, LONG_AGO)
    assert scene.told(running) == "Admitted"
    quota.write(**FIVE)
    scene.becomes(held, "Admitted")


def test_a_drain_suspends_the_persistent_at_the_end_of_their_turn(scene: Scene) -> None:
    quota = scene.quota(**FIVE)
    persistent = scene.session_class("persistent", **PERSISTENT)
    kept, idle = (scene.ask(name, mode="Interactive", className=persistent) for name in ("kept", "idle"))
    fleeting = scene.ask("fleeting", "bob", mode="Interactive")
    pods = {body["metadata"]["name"]: scene.starts(body) for body in (kept, idle, fleeting)}
    scene.idle(fleeting, pods["fleeting"], LONG_AGO)
    scene.idle(idle, pods["idle"], LONG_AGO)
    scene.reports(kept, pods["kept"], activity="Processing")
    wait_for(scene.api, kept, "Active", "True", "Processing")
    quota.write(**FIVE, stopPolicy="HoldAndDrain")
    scene.stops(pods["idle"])

    def works() -> None:
        assert "deletionTimestamp" not in scene.pods(kept)[0]["metadata"]

    throughout(works, seconds=1.0)
    scene.reports(kept, pods["kept"], activity="Idle", last_activity_time=LATER)
    scene.stops(pods["kept"])
    wait_for(scene.api, idle, "Suspended", "True", "QuotaHeld", within=30)
    rests = wait_for(scene.api, kept, "Suspended", "True", "QuotaHeld", within=30)
    assert "resumes by itself" in condition(rests, "Suspended")["message"]
    assert rests["status"]["phase"] == "Suspended"
    assert condition(read(scene.api, fleeting), "Ready")["status"] == "True", "an ephemeral one runs to its end"

    quota.write(**FIVE)
    scene.becomes(kept, "Admitted")
    scene.starts(kept)
    wait_for(scene.api, kept, "Suspended", "False", "NotSuspended")


def test_the_persistent_session_that_was_idle_longest_makes_room(scene: Scene) -> None:
    kept = scene.session_class("persistent", **PERSISTENT)
    scene.quota(maxSessions=3, maxSessionsPerUser=3, whenFull="ReplaceOldestIdle")
    bodies = [scene.ask(name, user, mode="Interactive", className=kept) for name, user in (("a", "a"), ("b", "b"), ("c", "c"))]
    pods = [scene.starts(body) for body in bodies]
    works, oldest, younger = bodies
    scene.reports(works, pods[0], activity="AwaitingApproval", last_activity_time="2025-01-01T00:00:00Z")
    wait_for(scene.api, works, "Active", "True", "AwaitingApproval")
    scene.idle(younger, pods[2], LATER)
    scene.idle(oldest, pods[1], LONG_AGO)
    new = scene.ask("new", "dave")
    assert scene.told(new) == "GlobalLimitReached", "until the pod of the other one has ended"
    scene.stops(pods[1])
    scene.becomes(new, "Admitted")
    rests = wait_for(scene.api, oldest, "Suspended", "True", "Replaced")
    assert condition(rests, "Admitted")["reason"] == "Released"
    assert [scene.told(body) for body in (works, younger)] == ["Admitted", "Admitted"]

    scene.suspend(oldest, True)
    wait_for(scene.api, oldest, "Suspended", "True", "UserRequested")
    scene.suspend(oldest, False)
    scene.becomes(oldest, "GlobalLimitReached")
    assert "deletionTimestamp" not in scene.pods(younger)[0]["metadata"], "one that resumes replaces nobody"


def test_an_ephemeral_session_that_makes_room_is_over(scene: Scene) -> None:
    scene.quota(maxSessions=5, maxSessionsPerUser=1, whenFull="ReplaceOldestIdle")
    stranger, mine = scene.ask("stranger", "bob", mode="Interactive"), scene.ask("mine", "alice", mode="Interactive")
    pods = [scene.starts(body) for body in (stranger, mine)]
    scene.idle(stranger, pods[0], LONG_AGO)
    scene.idle(mine, pods[1], LATER)
    new = scene.ask("new", "alice")
    found = wait_for(scene.api, mine, "Finished", "True", "Replaced", within=30)
    assert "whenFull: ReplaceOldestIdle" in condition(found, "Finished")["message"]
    scene.stops(pods[1])
    scene.becomes(new, "Admitted")
    assert scene.told(stranger) == "Admitted", "the user's own limit binds, so the user's own session goes"


def test_priority_goes_first_and_is_never_replaced_by_less(scene: Scene) -> None:
    high = scene.session_class("high", priority=10)
    scene.quota(maxSessions=1, maxSessionsPerUser=1, whenFull="ReplaceOldestIdle")
    runs = scene.ask("runs", "alice", mode="Interactive", className=high)
    pod = scene.starts(runs)
    scene.idle(runs, pod, LONG_AGO)
    low = scene.ask("low", "bob")
    assert scene.told(low) == "GlobalLimitReached"

    def stays() -> None:
        assert "deletionTimestamp" not in scene.pods(runs)[0]["metadata"]

    throughout(stays, seconds=1.0)
    scene.reports(runs, pod, activity="Processing")
    wait_for(scene.api, runs, "Active", "True", "Processing", within=30)
    urgent = scene.ask("urgent", "carol", className=high)
    assert scene.told(urgent) == "GlobalLimitReached"
    assert scene.told(low) == "GlobalLimitReached"
    scene.finishes(runs)
    scene.becomes(urgent, "Admitted")
    assert scene.told(low) == "GlobalLimitReached"
    eventually(lambda: "the only slot is in use" in scene.message(low), what="the reason")
