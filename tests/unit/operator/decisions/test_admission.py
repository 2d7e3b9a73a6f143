"""Who gets a slot, by value and by property."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.decisions.admission import Caps, Ledger, Plan, Waiting, caps_of, plan
from support.control_plane.builders import quota


def asks(uid: str, user: str, second: int) -> Waiting:
    return Waiting(uid, user, (f"2026-05-04T10:{second // 60:02}:{second % 60:02}Z", "team", uid))


users = st.sampled_from(["ada", "bob", "cyn", "dan"])
caps_ = st.builds(Caps, st.integers(0, 8), st.integers(0, 4))


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    waiting = [
        asks(f"s{number}", user, second)
        for number, (user, second) in enumerate(draw(st.lists(st.tuples(users, st.integers(0, 5)), max_size=15)))
    ]
    return Ledger(draw(st.lists(users, max_size=8)), waiting)


def after(ledger: Ledger, decision: Plan) -> Counter[str]:
    """Holders by user once the grants are carried out."""
    user_of = {session.uid: session.user for session in ledger.waiting}
    return Counter(ledger.holders) + Counter(user_of[uid] for uid in decision.grants)


# By property.


@given(ledgers(), caps_)
def test_everybody_who_asks_gets_either_a_slot_or_a_reason_to_wait(ledger: Ledger, caps: Caps) -> None:
    decision = plan(ledger, caps)
    assert len(set(decision.grants)) == len(decision.grants)
    assert sorted([*decision.grants, *decision.waits]) == sorted(session.uid for session in ledger.waiting)


@given(ledgers(), caps_)
def test_grants_never_exceed_a_cap(ledger: Ledger, caps: Caps) -> None:
    decision = plan(ledger, caps)
    held = after(ledger, decision)
    if decision.grants:
        assert held.total() <= caps.sessions
    before = Counter(ledger.holders)
    assert all(count <= max(caps.per_user, before[user]) for user, count in held.items())


@given(ledgers(), caps_)
def test_nobody_waits_while_a_slot_that_they_may_use_is_free(ledger: Ledger, caps: Caps) -> None:
    decision = plan(ledger, caps)
    held = after(ledger, decision)
    for session in ledger.waiting:
        if session.uid in decision.waits:
            assert held.total() >= caps.sessions or held[session.user] >= caps.per_user


@given(ledgers(), caps_)
def test_positions_are_dense_and_begin_at_one(ledger: Ledger, caps: Caps) -> None:
    waits = plan(ledger, caps).waits.values()
    assert sorted(wait.position for wait in waits) == list(range(1, len(waits) + 1))


@given(ledgers(), caps_)
def test_the_reason_is_the_users_own_cap_before_the_global_one(ledger: Ledger, caps: Caps) -> None:
    decision = plan(ledger, caps)
    held = after(ledger, decision)
    for session in ledger.waiting:
        if wait := decision.waits.get(session.uid):
            assert wait.reason == ("UserLimitReached" if held[session.user] >= caps.per_user else "GlobalLimitReached")


@given(ledgers(), caps_, st.randoms())
def test_the_order_in_which_the_ledger_is_written_does_not_matter(ledger: Ledger, caps: Caps, random: Random) -> None:
    holders, waiting = list(ledger.holders), list(ledger.waiting)
    random.shuffle(holders)
    random.shuffle(waiting)
    assert plan(Ledger(holders, waiting), caps) == plan(ledger, caps)


@given(ledgers(), caps_)
def test_each_slot_goes_to_the_user_with_the_fewest_holders(ledger: Ledger, caps: Caps) -> None:
    """Checked grant by grant against the rule itself, with no queue and no heap."""
    held, open_ = Counter(ledger.holders), {session.uid: session for session in ledger.waiting}
    for uid in plan(ledger, caps).grants:
        may = [session for session in open_.values() if held[session.user] < caps.per_user]
        assert open_[uid] == min(may, key=lambda session: (held[session.user], session.arrived))
        held[open_.pop(uid).user] += 1


@given(ledgers(), caps_)
def test_a_users_own_sessions_are_served_in_the_order_of_their_arrival(ledger: Ledger, caps: Caps) -> None:
    decision = plan(ledger, caps)
    places = {uid: place for place, uid in enumerate(decision.grants)}
    places |= {uid: len(decision.grants) + wait.position for uid, wait in decision.waits.items()}
    for user in {session.user for session in ledger.waiting}:
        mine = sorted((session for session in ledger.waiting if session.user == user), key=lambda session: session.arrived)
        assert all(places[first.uid] < places[second.uid] for first, second in pairwise(mine))


@given(ledgers(), caps_)
def test_planning_again_after_the_grants_grants_nothing(ledger: Ledger, caps: Caps) -> None:
    decision = plan(ledger, caps)
    rest = [session for session in ledger.waiting if session.uid in decision.waits]
    again = plan(Ledger(list(after(ledger, decision).elements()), rest), caps)
    assert not again.grants
    assert again.waits == decision.waits


# By value.


def test_a_users_thousand_sessions_do_not_delay_anothers_first() -> None:
    crowd = [asks(f"ada-{number}", "ada", number) for number in range(1000)]
    late = asks("bob-first", "bob", 3000)
    assert plan(Ledger(["ada"], [*crowd, late]), Caps(2, 10)).grants == ["bob-first"]


def test_slots_go_round_among_users_who_come_together() -> None:
    waiting = [asks(f"{user}{number}", user, number) for user in ("ada", "bob") for number in range(3)]
    assert plan(Ledger([], waiting), Caps(4, 10)).grants == ["ada0", "bob0", "ada1", "bob1"]


def test_whoever_holds_less_goes_first_though_they_came_later() -> None:
    waiting = [asks("a", "ada", 0), asks("b", "bob", 50)]
    assert plan(Ledger(["ada", "ada", "bob"], waiting), Caps(4, 10)).grants == ["b"]


def test_a_user_at_their_own_cap_does_not_block_those_behind() -> None:
    waiting = [asks("a", "ada", 0), asks("b", "bob", 1)]
    decision = plan(Ledger(["ada"], waiting), Caps(10, 1))
    assert decision.grants == ["b"]
    assert decision.waits["a"].position == 1


def test_a_message_at_a_limit_says_that_the_session_is_queued() -> None:
    waiting = [asks("a", "ada", 0), asks("b", "bob", 1)]
    decision = plan(Ledger(["ada", "ada", "cyn"], waiting), Caps(3, 2))
    assert (decision.waits["a"].reason, decision.waits["a"].message) == (
        "UserLimitReached",
        "Queued: the user has reached the maximum of 2 concurrent sessions. The session starts by itself when one of them ends "
        "or is suspended.",
    )
    assert (decision.waits["b"].reason, decision.waits["b"].message) == (
        "GlobalLimitReached",
        "Queued: all slots are in use (3/3 sessions). The session starts by itself when one is free.",
    )


def test_a_lowered_cap_takes_nothing_away_and_says_how_full_it_is() -> None:
    decision = plan(Ledger(["cyn"] * 5, [asks("a", "ada", 0)]), Caps(3, 10))
    assert not decision.grants
    assert decision.waits["a"].message.startswith("Queued: all slots are in use (5/3 sessions).")


def test_a_cap_of_zero_admits_nobody() -> None:
    assert not plan(Ledger([], [asks("a", "ada", 0)]), Caps(0, 10)).grants
    assert not plan(Ledger([], [asks("a", "ada", 0)]), Caps(10, 0)).grants


def test_an_empty_ledger_gives_an_empty_plan() -> None:
    assert plan(Ledger([], []), Caps(50, 10)) == Plan([], {})


def test_sessions_of_the_same_second_are_ordered_by_namespace_and_name() -> None:
    same = "2026-05-04T10:00:00Z"
    waiting = [
        Waiting("1", "ada", (same, "z", "a")),
        Waiting("2", "ada", (same, "a", "z")),
        Waiting("3", "ada", (same, "a", "b")),
    ]
    assert plan(Ledger([], waiting), Caps(50, 10)).grants == ["3", "2", "1"]


# The caps.


def test_fifty_and_ten_hold_without_a_quota() -> None:
    assert caps_of([]) == Caps(50, 10)


def test_an_empty_quota_means_the_same_as_none() -> None:
    assert caps_of([quota()]) == Caps(50, 10)


def test_a_session_needs_room_in_every_quota() -> None:
    assert caps_of([quota("a", maxSessions=100, maxSessionsPerUser=2), quota("b", maxSessions=7)]) == Caps(7, 2)


def test_one_quota_can_raise_the_caps_above_the_defaults() -> None:
    assert caps_of([quota(maxSessions=1000, maxSessionsPerUser=500)]) == Caps(1000, 500)


@pytest.mark.parametrize("spec", [{"maxSessions": "many"}, {"maxSessions": -1}, {"maxSessionsPerUser": 10**9}])
def test_a_quota_that_cannot_be_read_leaves_no_caps_at_all(spec: dict[str, Any]) -> None:
    assert caps_of([quota("good"), quota("bad", **spec)]) is None
