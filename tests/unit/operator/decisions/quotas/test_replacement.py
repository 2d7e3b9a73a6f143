"""What becomes of a session that finds no room: it waits, is turned away, or another one makes room."""

from __future__ import annotations

from typing import Any

import pytest

from agentsession_operator.api.conditions import SuspendedReason
from agentsession_operator.decisions.quotas.admission import Admission
from agentsession_operator.decisions.quotas.verdict import Displaced
from support.control_plane.builders import quota
from support.control_plane.claims import admission, capped, claim, decided, holder, turned_away, wait

REPLACE: dict[str, Any] = {"whenFull": "ReplaceOldestIdle"}


# The queue has an end.


def test_a_session_finds_the_queue_full() -> None:
    of, _ = decided(
        [holder("h"), *(claim(f"s{number}", f"u{number}", number) for number in range(3))], capped(1, 1, maxWaiting=2)
    )
    assert [of.verdict(f"s{number}").reason for number in range(3)] == [  # type: ignore[union-attr]
        "GlobalLimitReached",
        "GlobalLimitReached",
        "QueueFull",
    ]
    assert turned_away(of, "s2").message == (
        "The queue is full: 2 sessions wait already (SessionQuota default). Apply the session again under another name when "
        "fewer wait."
    )


def test_a_user_finds_their_part_of_the_queue_full() -> None:
    of, _ = decided(
        [holder("h"), claim("a", "bob", 1), claim("b", "bob", 2), claim("c", "cyn", 3)], capped(1, 1, maxWaitingPerUser=1)
    )
    assert turned_away(of, "b").message.startswith("The queue is full: 1 session of this user waits already")
    assert wait(of, "c").position == 2


def test_users_who_count_together_share_their_part_of_the_queue() -> None:
    rules = [{"match": "ci:*", "countAs": "Together"}]
    of, _ = decided(
        [holder("h"), claim("a", "ci:1", 1), claim("b", "ci:2", 2)], capped(1, 1, maxWaitingPerUser=1, userRules=rules)
    )
    assert "1 session of ci:* waits already" in turned_away(of, "b").message


def test_it_is_decided_once_whether_a_session_may_wait() -> None:
    of, _ = decided([holder("h"), claim("a", "bob", 1), claim("b", "cyn", 2)], capped(1, 1, maxWaiting=1))
    of.put("a", None)
    of.put("b", claim("b", "cyn", 2, priority=3))
    assert list(of.decide(10).grants) == []
    assert turned_away(of, "b").reason == "QueueFull"
    of.put("b", None)
    assert of.verdict("b") is None


def test_a_session_that_resumes_always_finds_a_place() -> None:
    of, _ = decided([holder("h"), claim("a", "bob", first=False, accepted=True)], capped(1, 1, maxWaiting=0))
    assert wait(of, "a").position == 1


def test_a_session_whose_creation_was_not_sent_keeps_its_place() -> None:
    of, plan = decided([claim("a")], capped(1, 1, maxWaiting=0))
    assert plan.grants == ["a"]
    of.put("h", holder("h", "bob"))
    of.put("a", claim("a"))
    of.decide(10)
    assert wait(of, "a").reason == "GlobalLimitReached"


# Reject.


def test_a_full_quota_that_rejects_says_so_in_the_original_words() -> None:
    of, _ = decided([holder("h"), claim("a", "bob")], capped(1, 1, whenFull="Reject"))
    refusal = turned_away(of, "a")
    assert (refusal.reason, refusal.message) == ("Rejected", "Server is at capacity (1/1 sessions). Please try again later.")
    assert of.ledger.waiting == 0


def test_a_users_own_limit_is_named_first() -> None:
    of, _ = decided([holder("h"), claim("a")], capped(1, 1, whenFull="Reject"))
    assert turned_away(of, "a").message == (
        "You have reached the maximum of 1 concurrent sessions. Please close an existing session first."
    )


def test_the_policy_of_the_quota_that_binds_applies() -> None:
    rejects, queues = quota("wide", maxSessions=9, whenFull="Reject"), quota("narrow", maxSessions=1)
    of, _ = decided([holder("h"), claim("a", "bob")], rejects, queues)
    assert wait(of, "a").reason == "GlobalLimitReached"


def test_reject_comes_before_queue_where_both_bind() -> None:
    of, _ = decided(
        [holder("h"), claim("a", "bob")], quota("first", maxSessions=1), quota("second", maxSessions=1, whenFull="Reject")
    )
    assert turned_away(of, "a").reason == "Rejected"


def test_nobody_is_rejected_while_a_quota_is_held() -> None:
    of, _ = decided([holder("h"), claim("a", "bob")], capped(1, 1, whenFull="Reject"), quota("held", stopPolicy="Hold"))
    assert wait(of, "a").reason == "QuotaHeld"


# ReplaceOldestIdle.


def full(*idle: str | None, waiting: str = "bob", **fields: Any) -> Admission:
    """A full quota that replaces, holders h0, h1 ... of one user each that have been idle since then, and one that waits."""
    holders = [holder(f"h{number}", f"user{number}", idle_since=since) for number, since in enumerate(idle)]
    of = admission([*holders, claim("a", waiting)], capped(len(idle), 1, **REPLACE, **fields))
    of.decide(10)
    return of


def test_the_session_that_has_been_idle_longest_makes_room() -> None:
    of = full("2026-05-04T09:30:00Z", "2026-05-04T09:00:00Z", None)
    assert [of.displaced(f"h{number}") for number in range(3)] == [None, Displaced(SuspendedReason.REPLACED, "a"), None]
    assert wait(of, "a").position == 1


def test_nobody_makes_room_where_all_work() -> None:
    of = full(None, None)
    assert [of.displaced(f"h{number}") for number in range(2)] == [None, None]


def test_a_session_that_becomes_idle_later_makes_room_then() -> None:
    of = full(None)
    of.put("h0", holder("h0", "user0", idle_since="2026-05-04T09:00:00Z"))
    assert of.decide(10).news == ["h0"]
    assert of.displaced("h0") is not None


def test_a_session_of_higher_priority_is_never_replaced() -> None:
    of = admission([holder("h", idle_since="2026", priority=1), claim("a", "bob")], capped(1, 1, **REPLACE))
    of.decide(10)
    assert of.displaced("h") is None
    of.put("b", claim("b", "cyn", 5, priority=1))
    of.decide(10)
    assert of.displaced("h") == Displaced(SuspendedReason.REPLACED, "b")


def test_a_user_at_their_own_limit_replaces_a_session_of_their_own() -> None:
    claims = [holder("other", "bob", idle_since="2020"), holder("own", "ada", idle_since="2026"), claim("a", "ada")]
    of = admission(claims, capped(5, 1, **REPLACE))
    of.decide(10)
    assert (of.displaced("other"), of.displaced("own")) == (None, Displaced(SuspendedReason.REPLACED, "a"))


def test_a_users_own_idle_session_is_found_behind_many_others() -> None:
    others = [holder(f"h{number}", f"user{number}", idle_since=f"2020-{number:03}") for number in range(100)]
    of = admission([*others, holder("own", "ada", idle_since="2026"), claim("a", "ada")], capped(200, 1, **REPLACE))
    of.decide(10)
    assert of.displaced("own") == Displaced(SuspendedReason.REPLACED, "a")


def test_one_makes_room_for_one() -> None:
    of = full("2026-05-04T09:00:00Z", "2026-05-04T09:30:00Z")
    assert of.decide(10).news == []
    assert of.displaced("h1") is None
    of.put("b", claim("b", "cyn", 9))
    assert of.decide(10).news == ["b", "h1"]
    assert of.displaced("h1") == Displaced(SuspendedReason.REPLACED, "b")


def test_the_slot_that_is_left_is_its_successors() -> None:
    of = full("2026-05-04T09:00:00Z")
    of.put("b", claim("b", "cyn", 9, priority=7))
    of.decide(10)
    assert of.displaced("h0") == Displaced(SuspendedReason.REPLACED, "a")
    of.put("h0", None)
    assert of.decide(10).grants == ["a"]


def test_the_slot_is_anybodys_when_its_successor_cannot_use_it() -> None:
    of = full("2026-05-04T09:00:00Z")
    of.put("a", None)
    assert of.displaced("h0") is None
    of.put("b", claim("b", "cyn", 9))
    of.decide(10)
    of.put("x", holder("x", "cyn"))
    of.put("h0", None)
    assert list(of.decide(10).grants) == [], "its successor's user is full now"


def test_a_session_that_works_again_stays() -> None:
    of = full("2026-05-04T09:00:00Z")
    of.put("h0", holder("h0", "user0"))
    assert of.displaced("h0") is None
    of.put("h0", holder("h0", "user0", idle_since="2026-05-04T11:00:00Z"))
    assert of.decide(10).news == ["h0"]


def test_a_session_that_gets_another_slot_needs_no_room() -> None:
    of = full("2026-05-04T09:00:00Z", None)
    of.put("h1", None)
    assert of.decide(10).grants == ["a"]
    assert of.displaced("h0") is None


def test_a_pair_is_known_from_the_status_after_a_restart() -> None:
    of = admission([holder("h", successor="a"), claim("a", "bob"), claim("b", "cyn", priority=9)], capped(1, 1, **REPLACE))
    of.decide(10)
    assert of.displaced("h") == Displaced(SuspendedReason.REPLACED, "a")
    of.put("h", None)
    assert of.decide(10).grants == ["a"]


@pytest.mark.parametrize("how", [{"first": False, "accepted": True}, {}])
def test_only_a_first_ask_replaces_where_all_that_binds_says_so(how: dict[str, bool]) -> None:
    queues = [] if how else [quota("queues", maxSessions=1)]
    of = admission([holder("h", idle_since="2026"), claim("a", "bob", **how)], capped(1, 1, **REPLACE), *queues)
    of.decide(10)
    assert of.displaced("h") is None


def test_a_session_must_leave_room_in_all_that_is_full() -> None:
    gpu = quota("gpu", classNames=["gpu"], maxSessions=1, **REPLACE)
    claims = [
        holder("common", "ada", idle_since="2020"),
        holder("scarce", "bob", class_name="gpu", idle_since="2026"),
        claim("a", "cyn", class_name="gpu"),
    ]
    of = admission(claims, quota("all", maxSessions=2, **REPLACE), gpu)
    of.decide(10)
    assert (of.displaced("common"), of.displaced("scarce")) == (None, Displaced(SuspendedReason.REPLACED, "a"))


def test_idle_sessions_are_kept_in_order_through_changes() -> None:
    of = full("2026-05-04T09:30:00Z", "2026-05-04T09:00:00Z", waiting="user0")
    of.put("h0", holder("h0", "user0", idle_since="2026-05-04T09:45:00Z"))
    of.put("h1", holder("h1", "user1"))
    of.put("b", claim("b", "cyn", 9))
    of.decide(10)
    assert of.displaced("h0") is not None
    assert of.displaced("h1") is None


def test_nobody_is_replaced_while_a_quota_is_held() -> None:
    of = admission([holder("h", idle_since="2026"), claim("a", "bob")], capped(1, 1, stopPolicy="Hold", **REPLACE))
    of.decide(10)
    assert of.displaced("h") is None


def test_a_changed_quota_forgets_who_was_idle_under_the_old_one() -> None:
    of = full("2026-05-04T09:00:00Z")
    of.set_quotas([capped(1, 1)])
    of.put("b", claim("b", "cyn", 9))
    of.decide(10)
    assert of.displaced("h0") == Displaced(SuspendedReason.REPLACED, "a"), "that was begun"
    of.put("h0", None)
    assert of.decide(10).grants == ["a"]


# HoldAndDrain.


def test_a_drain_takes_the_slot_of_persistent_sessions_that_are_idle() -> None:
    draining = quota(stopPolicy="HoldAndDrain")
    claims = [
        holder("idle", persistent=True, idle_since="2026"),
        holder("working", "bob", persistent=True),
        holder("ephemeral", "cyn", idle_since="2026"),
    ]
    of = admission(claims)
    of.set_quotas([draining])
    assert of.decide(10).news == ["idle"], "it is told at once, not with its next report"
    assert of.decide(10).news == []
    assert of.displaced("idle") == Displaced(SuspendedReason.QUOTA_HELD)
    assert (of.displaced("working"), of.displaced("ephemeral"), of.displaced("nobody")) == (None, None, None)
    of.set_quotas([quota(stopPolicy="Hold")])
    assert of.displaced("idle") is None
