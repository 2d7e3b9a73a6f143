"""Who gets a slot under one quota for everybody, by value and by property."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.decisions.quotas.claims import Claim
from support.control_plane.claims import admission, capped, claim, decided, holder, wait

users = st.sampled_from(["ada", "bob", "cyn", "dan"])


@dataclass(frozen=True)
class Caps:
    sessions: int
    per_user: int


caps_ = st.builds(Caps, st.integers(0, 8), st.integers(0, 4))


@st.composite
def claims_(draw: st.DrawFn) -> list[Claim]:
    asking = [
        claim(f"s{number}", user, second)
        for number, (user, second) in enumerate(draw(st.lists(st.tuples(users, st.integers(0, 5)), max_size=15)))
    ]
    return [*asking, *(holder(f"h{number}", user) for number, user in enumerate(draw(st.lists(users, max_size=8))))]


def held(claims: list[Claim], grants: object = ()) -> Counter[str]:
    """Holders by user once the grants are carried out."""
    return Counter(each.user for each in claims if each.holds or each.uid in grants)  # type: ignore[operator]


# By property.


@given(claims_(), caps_)
def test_everybody_who_asks_gets_either_a_slot_or_a_reason_to_wait(claims: list[Claim], caps: Caps) -> None:
    made, plan = decided(claims, capped(caps.sessions, caps.per_user))
    assert len(set(plan.grants)) == len(plan.grants)
    waiting = [each.uid for each in claims if made.verdict(each.uid) is not None]
    assert sorted([*plan.grants, *waiting]) == sorted(each.uid for each in claims if not each.holds)
    assert sorted(plan.news) == sorted(waiting)
    assert list(made.ledger.miscounts()) == []


@given(claims_(), caps_)
def test_grants_never_exceed_a_cap(claims: list[Claim], caps: Caps) -> None:
    _, plan = decided(claims, capped(caps.sessions, caps.per_user))
    after, before = held(claims, plan.grants), held(claims)
    if plan.grants:
        assert after.total() <= caps.sessions
    assert all(count <= max(caps.per_user, before[user]) for user, count in after.items())


@given(claims_(), caps_)
def test_nobody_waits_while_a_slot_that_they_may_use_is_free(claims: list[Claim], caps: Caps) -> None:
    made, plan = decided(claims, capped(caps.sessions, caps.per_user))
    after = held(claims, plan.grants)
    for each in claims:
        if made.verdict(each.uid) is not None:
            full = after[each.user] >= caps.per_user
            assert full or after.total() >= caps.sessions
            assert wait(made, each.uid).reason == ("UserLimitReached" if full else "GlobalLimitReached")


@given(claims_(), caps_)
def test_positions_begin_at_one_for_each_reason_to_wait(claims: list[Claim], caps: Caps) -> None:
    made, _ = decided(claims, capped(caps.sessions, caps.per_user))
    places: dict[tuple[str, str], list[int | None]] = {}
    for each in claims:
        if made.verdict(each.uid) is not None:
            told = wait(made, each.uid)
            whose = each.user if told.reason == "UserLimitReached" else ""
            places.setdefault((told.reason, whose), []).append(told.position)
    for (reason, _), numbers in places.items():
        shown = sorted(number for number in numbers if number is not None)
        assert shown == list(range(1, len(shown) + 1))
        assert reason == "GlobalLimitReached" or len(shown) == len(numbers)


@given(claims_(), caps_, st.randoms())
def test_the_order_in_which_claims_are_learned_does_not_matter(claims: list[Claim], caps: Caps, random: Random) -> None:
    made, plan = decided(claims, capped(caps.sessions, caps.per_user))
    shuffled = list(claims)
    random.shuffle(shuffled)
    again, second = decided(shuffled, capped(caps.sessions, caps.per_user))
    assert second.grants == plan.grants
    assert [again.verdict(each.uid) for each in claims] == [made.verdict(each.uid) for each in claims]


@given(claims_(), caps_)
def test_each_slot_goes_to_the_user_with_the_fewest_holders(claims: list[Claim], caps: Caps) -> None:
    """Checked grant by grant against the rule itself, with no queue and no heap."""
    _, plan = decided(claims, capped(caps.sessions, caps.per_user))
    counts, open_ = held(claims), {each.uid: each for each in claims if not each.holds}
    for uid in plan.grants:
        may = [each for each in open_.values() if counts[each.user] < caps.per_user]
        assert open_[uid] == min(may, key=lambda each: (counts[each.user], each.arrival))
        counts[open_.pop(uid).user] += 1


@given(claims_(), caps_)
def test_a_users_own_sessions_are_served_in_the_order_of_arrival(claims: list[Claim], caps: Caps) -> None:
    _, plan = decided(claims, capped(caps.sessions, caps.per_user))
    places = {uid: place for place, uid in enumerate(plan.grants)}
    for user in {each.user for each in claims}:
        mine = sorted((each for each in claims if each.user == user and not each.holds), key=lambda each: each.arrival)
        served = [places.get(each.uid, len(plan.grants)) for each in mine]
        assert all(first <= second for first, second in pairwise(served))


@given(claims_(), caps_)
def test_deciding_again_grants_nothing_and_tells_nothing(claims: list[Claim], caps: Caps) -> None:
    made, _ = decided(claims, capped(caps.sessions, caps.per_user))
    again = made.decide(10_000)
    assert (list(again.grants), list(again.news), again.more) == ([], [], False)
    assert made.moved(50) == []


# By value.


def test_a_users_thousand_sessions_do_not_delay_anothers_first() -> None:
    crowd = [claim(f"ada-{number}", "ada", number) for number in range(1000)]
    _, plan = decided([holder("h"), *crowd, claim("bob-first", "bob", 3000)], capped(2, 10))
    assert plan.grants == ["bob-first"]


def test_slots_are_shared_among_users_who_come_together() -> None:
    waiting = [claim(f"{user}{number}", user, number) for user in ("ada", "bob") for number in range(3)]
    assert decided(waiting, capped(4, 10))[1].grants == ["ada0", "bob0", "ada1", "bob1"]


def test_who_holds_less_goes_first_though_they_came_later() -> None:
    claims = [holder("1"), holder("2"), holder("3", "bob"), claim("a", "ada", 0), claim("b", "bob", 50)]
    assert decided(claims, capped(4, 10))[1].grants == ["b"]


def test_a_user_at_their_own_cap_does_not_block_those_behind() -> None:
    made, plan = decided([holder("h"), claim("a", "ada", 0), claim("b", "bob", 1)], capped(10, 1))
    assert plan.grants == ["b"]
    assert wait(made, "a").position == 1


def test_a_message_names_position_limit_and_quota() -> None:
    made, _ = decided([holder("1"), holder("2"), holder("3", "cyn"), claim("a"), claim("b", "bob", 1)], capped(3, 2))
    assert (wait(made, "a").reason, wait(made, "a").message) == (
        "UserLimitReached",
        "Queued at position 1: the user has reached the maximum of 2 concurrent sessions (SessionQuota default). The session "
        "starts by itself when one of them ends or is suspended.",
    )
    assert (wait(made, "b").reason, wait(made, "b").message) == (
        "GlobalLimitReached",
        "Queued at position 1: all 3 slots are in use (SessionQuota default). The session starts by itself when one is free.",
    )


def test_a_cap_of_zero_admits_nobody() -> None:
    assert not decided([claim("a")], capped(0, 10))[1].grants
    assert not decided([claim("a")], capped(10, 0))[1].grants


def test_a_lowered_cap_takes_nothing_away() -> None:
    made, plan = decided([*(holder(f"h{number}", "cyn") for number in range(5)), claim("a")], capped(3, 10))
    assert not plan.grants
    assert wait(made, "a").message.startswith("Queued at position 1: all 3 slots are in use")


def test_sessions_of_the_same_second_are_ordered_by_namespace_and_name() -> None:
    claims = [claim("z", namespace="a"), claim("b", namespace="a"), claim("a", namespace="z")]
    assert decided(claims, capped(50, 10))[1].grants == ["b", "z", "a"]


def test_a_decision_grants_a_batch_and_tells_nobody_before_the_last() -> None:
    made = admission([claim(f"s{number}", f"user{number}", number) for number in range(5)], capped(4, 1))
    first = made.decide(3)
    assert (list(first.grants), list(first.news), first.more) == (["s0", "s1", "s2"], [], True)
    assert made.verdict("s4") is None
    second = made.decide(3)
    assert (list(second.grants), list(second.news), second.more) == (["s3"], ["s4"], False)


def test_a_session_that_comes_is_told_nothing_before_it_was_decided_on() -> None:
    made, _ = decided([holder("h"), claim("a", "bob")], capped(1, 1))
    made.put("b", claim("b", "bob", 5))
    assert made.verdict("b") is None
    made.decide(10)
    assert wait(made, "b").position == 2


def test_a_new_reason_is_told_to_all_who_wait_for_it() -> None:
    made, _ = decided([holder("h"), claim("a", "ada", 1), claim("b", "ada", 2)], capped(2, 1))
    assert wait(made, "a").reason == "UserLimitReached"
    made.put("h", None)
    made.put("x", holder("x", "bob"))
    made.put("y", holder("y", "cyn"))
    assert sorted(made.decide(10).news) == ["a", "b"]
    assert wait(made, "b").reason == "GlobalLimitReached"


def test_positions_are_counted_again_for_the_foremost_only() -> None:
    made, _ = decided([holder("h"), *(claim(f"s{number:03}", f"u{number}", number) for number in range(60))], capped(1, 1))
    assert (wait(made, "s049").position, wait(made, "s050").position) == (50, None)
    assert "Queued: the only slot" in wait(made, "s050").message
    made.put("s000", None)
    assert made.decide(10).news == []
    assert wait(made, "s049").position == 50, "until the next refresh"
    assert made.moved(10) == [f"s{number:03}" for number in range(1, 11)]
    assert (wait(made, "s010").position, wait(made, "s011").position) == (10, 12)
    assert len(made.moved(100)) == 40
    assert wait(made, "s050").position == 50


def test_a_position_is_taken_back_when_others_come_before() -> None:
    made, _ = decided([holder("h"), *(claim(f"s{number:03}", "bob", number) for number in range(60))], capped(1, 70))
    for number in range(5):
        made.put(f"early{number}", claim(f"early{number}", f"cyn{number}", 0, arrival=("2020", "team", f"e{number}")))
    made.decide(10)
    assert "s049" in made.moved(100)
    assert wait(made, "s049").position is None
