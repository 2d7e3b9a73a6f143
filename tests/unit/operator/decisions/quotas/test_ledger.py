"""What is counted under several quotas, and that the counts follow every change."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.decisions.quotas.admission import Admission
from agentsession_operator.decisions.quotas.ledger import Ledger
from support.control_plane.builders import quota
from support.control_plane.claims import admission, capped, claim, decided, holder, wait

TEAM_A: dict[str, Any] = {"namespaceSelector": {"matchLabels": {"team": "a"}}}


def counts(of: Admission) -> dict[str, tuple[int, int]]:
    """Held and waiting, by quota."""
    limits = (*of.ledger.limits.values(), of.ledger.built_in)
    return {limit.name: (limit.held, limit.waiting) for limit in limits}


def test_a_session_counts_in_every_quota_that_selects_it() -> None:
    of = admission([holder("a"), holder("b", namespace="a")], quota("all"), quota("a", **TEAM_A))
    of.set_namespace("a", {"team": "a"})
    assert counts(of) == {"all": (2, 0), "a": (1, 0), "": (0, 0)}


def test_the_built_in_limits_count_those_whom_no_quota_counts() -> None:
    of, plan = decided([claim(f"s{number}", second=number) for number in range(11)], quota("gpu", classNames=["gpu"]))
    assert len(plan.grants) == 10
    assert counts(of) == {"gpu": (0, 0), "": (10, 1)}
    assert wait(of, "s10").message == (
        "Queued at position 1: the user has reached the maximum of 10 concurrent sessions (the built-in limit: no SessionQuota "
        "counts the session). The session starts by itself when one of them ends or is suspended."
    )


def test_fifty_and_ten_hold_without_any_quota() -> None:
    claims = [claim(f"{user}-{number}", str(user), number) for user in range(6) for number in range(11)]
    of, plan = decided(claims)
    assert len(plan.grants) == 50
    assert max(group.held for group in of.ledger.built_in.groups()) <= 10


def test_a_full_quota_never_holds_up_those_it_does_not_count() -> None:
    gpu = quota("gpu", classNames=["gpu"], maxSessions=0)
    of, plan = decided([claim("a", class_name="gpu"), claim("b", second=5)], gpu, quota("all"))
    assert plan.grants == ["b"]
    assert "SessionQuota gpu" in wait(of, "a").message


def test_a_position_is_among_those_who_wait_for_the_named_limit() -> None:
    gpu = {"class_name": "gpu"}
    claims = [holder("h", "x", **gpu), claim("a", "u1", 1), claim("b", "u2", 2), claim("c", "u3", 3, **gpu)]
    of, _ = decided(claims, quota("gpu", classNames=["gpu"], maxSessions=1), quota("all", maxSessions=1))
    for _ in range(2):
        assert [(uid, wait(of, uid).position) for uid in "abc"] == [("a", 1), ("b", 2), ("c", 1)]
        assert of.moved(10) == []


def test_a_session_needs_room_in_every_quota() -> None:
    of, plan = decided(
        [holder("h", "bob"), claim("a"), claim("b", second=1)], quota("wide", maxSessions=3), quota("narrow", maxSessions=2)
    )
    assert plan.grants == ["a"]
    assert "all 2 slots are in use (SessionQuota narrow)" in wait(of, "b").message


def test_a_session_whose_namespace_is_not_known_needs_room_everywhere() -> None:
    blocked = quota("a", maxSessions=0, **TEAM_A)
    of, plan = decided([claim("s", namespace="new")], blocked)
    assert not plan.grants
    of.set_namespace("new", {"team": "b"})
    assert of.decide(10).grants == ["s"]


def test_a_relabeled_namespace_moves_its_sessions() -> None:
    of, _ = decided([holder("h"), claim("s", "bob")], quota("a", maxSessions=1, **TEAM_A), capped(1, 1))
    assert counts(of) == {"a": (0, 0), "default": (1, 1), "": (0, 0)}
    of.set_namespace("team", {"team": "a"})
    assert counts(of) == {"a": (1, 1), "default": (1, 1), "": (0, 0)}
    assert of.decide(10).news == ["s"], "it waits for another quota now"
    assert "SessionQuota a" in wait(of, "s").message
    of.set_namespace("team", None)
    assert counts(of)["a"] == (1, 1), "a namespace that is not known may be selected"
    assert list(of.ledger.miscounts()) == []


def test_a_changed_quota_counts_everything_again() -> None:
    of, _ = decided([holder("h"), claim("s", "bob"), claim("t", "cyn", 1)], capped(1, 1))
    of.set_quotas([capped(2, 1)])
    plan = of.decide(10)
    assert (plan.grants, plan.news) == (["s"], ["t"])
    assert "all 2 slots" in wait(of, "t").message
    of.set_quotas([])
    assert of.decide(10).grants == ["t"]
    assert list(of.ledger.miscounts()) == []


def test_a_session_that_was_decided_on_keeps_its_verdict_through_a_change() -> None:
    of, _ = decided([holder("h"), claim("s", "bob")], capped(1, 1, whenFull="Queue"))
    of.set_quotas([capped(1, 1, whenFull="Reject")])
    of.decide(10)
    assert wait(of, "s").reason == "GlobalLimitReached", "it was accepted to the queue"


def test_users_who_are_counted_together_share_one_cap_and_one_lane() -> None:
    robots = quota(userRules=[{"match": "ci:*", "countAs": "Together", "maxSessions": 2}])
    of, plan = decided([claim(f"s{number}", f"ci:{number}", number) for number in range(4)], robots)
    assert plan.grants == ["s0", "s1"]
    assert wait(of, "s2").message.startswith(
        "Queued at position 1: the users ci:* together have reached the maximum of 2 concurrent sessions"
    )


def test_an_exempt_user_is_stopped_by_the_whole_quota_only() -> None:
    rules = [{"match": "ada", "exempt": True}]
    of, plan = decided([claim(f"s{number}", second=number) for number in range(5)], capped(4, 1, userRules=rules))
    assert len(plan.grants) == 4
    assert wait(of, "s4").reason == "GlobalLimitReached"


def test_a_heavier_user_gets_more_of_what_is_scarce() -> None:
    rules = [{"match": "ada", "weight": 3}]
    claims = [claim(f"{user}{number}", user, number) for user in ("ada", "bob") for number in range(8)]
    _, plan = decided(claims, capped(8, 8, userRules=rules))
    assert sum(uid.startswith("ada") for uid in plan.grants) == 6


def test_the_dominant_share_decides_between_users_of_several_quotas() -> None:
    """Ada uses half of the scarce quota, Bob a third of the common one: Bob goes first though he holds more."""
    gpu = quota("gpu", classNames=["gpu"], maxSessions=2)
    claims = [
        holder("g", "ada", class_name="gpu"),
        *(holder(f"b{number}", "bob") for number in range(3)),
        claim("a", "ada", class_name="gpu"),
        claim("b", "bob", 9),
    ]
    _, plan = decided(claims, quota("all", maxSessions=9), gpu)
    assert plan.grants == ["b", "a"]


def test_a_class_of_higher_priority_goes_first() -> None:
    claims = [holder("h", "bob"), claim("low", second=0), claim("high", "bob", 9, priority=5)]
    assert decided(claims, capped(2, 5))[1].grants == ["high"]


def test_a_held_quota_admits_nobody_and_says_so() -> None:
    of, plan = decided([claim("s")], quota("nights", stopPolicy="Hold"))
    assert not plan.grants
    assert (wait(of, "s").reason, wait(of, "s").message) == (
        "QuotaHeld",
        "Queued at position 1: SessionQuota nights is on hold (stopPolicy Hold). The session starts by itself after the hold.",
    )
    of.set_quotas([quota("nights")])
    assert of.decide(10).grants == ["s"]


def test_an_unreadable_quota_stops_only_those_whom_it_may_count() -> None:
    broken = quota("a", maxSessions="many", **TEAM_A)
    of, plan = decided([claim("s"), claim("t", namespace="a")], broken)
    of.set_namespace("a", {"team": "a"})
    of.decide(10)
    assert plan.grants == ["s"]
    assert wait(of, "t").reason == "QuotaHeld"
    assert "SessionQuota a cannot be read" in wait(of, "t").message


def test_the_oldest_that_waits_is_known_for_each_quota() -> None:
    of, _ = decided([holder("h"), claim("s", "bob", 7), claim("t", "cyn", 3)], capped(1, 1))
    (limit,) = of.ledger.limits.values()
    assert of.ledger.oldest_waiting(limit) == "2026-05-04T10:00:03Z"
    assert of.ledger.oldest_waiting(of.ledger.built_in) is None
    back = admission([holder("h"), claim("s", "bob", arrival=("~", "team", "s"))], capped(1, 1))
    assert [back.ledger.oldest_waiting(limit) for limit in back.ledger.limits.values()] == [None]


def test_leftovers_are_named_for_the_quota_that_counts_them() -> None:
    of = admission([holder("h", leftover="team/pod-of-h")], quota("gpu", classNames=["gpu"]))
    (gpu,) = of.ledger.limits.values()
    assert of.ledger.leftovers() == of.ledger.leftovers(of.ledger.built_in) == ["team/pod-of-h"]
    assert of.ledger.leftovers(gpu) == []


def test_a_wrong_count_is_found() -> None:
    ledger = Ledger()
    ledger.put("h", holder("h"))
    ledger.built_in.held += 1
    (group,) = ledger.built_in.groups()
    group.waiting += 1
    assert list(ledger.miscounts()) == [", ada: 1 held, 1 waiting", ": 2 held, 0 waiting"]


def test_the_same_claim_is_no_news() -> None:
    ledger = Ledger()
    assert ledger.put("h", holder("h"))
    assert not ledger.put("h", holder("h"))
    assert ledger.put("h", None)
    assert not ledger.put("h", None)
    assert (ledger.held, ledger.waiting, ledger.pools, ledger.built_in.groups()) == (0, 0, {}, [])


steps = st.tuples(
    st.integers(0, 5),
    st.sampled_from(["ask", "hold", "nothing", "label", "quota"]),
    st.sampled_from(["ada", "bob", "ci:1"]),
    st.sampled_from(["gpu", "default", None]),
    st.integers(0, 2),
)


@given(st.lists(steps, max_size=25))
def test_counts_hold_and_no_one_is_forgotten_whatever_changes(changes: list[tuple[int, str, str, str | None, int]]) -> None:
    """After each change and decision, the counts are those of an admission that learns everything at once."""
    quotas = [
        [quota("gpu", classNames=["gpu"], maxSessions=1)],
        [capped(2, 1, userRules=[{"match": "ci:*", "countAs": "Together"}]), quota("a", maxSessions=1, **TEAM_A)],
        [],
    ]
    of, chosen = admission(), 2
    for number, what, user, class_name, choice in changes:
        uid = f"s{number}"
        match what:
            case "label":
                of.set_namespace("team", [{}, {"team": "a"}, None][choice])
            case "quota":
                chosen = choice
                of.set_quotas(quotas[choice])
            case "nothing":
                of.put(uid, None)
            case _:
                fields = {"class_name": class_name, "priority": choice}
                of.put(uid, holder(uid, user, **fields) if what == "hold" else claim(uid, user, number, **fields))
        of.decide(100)
        of.moved(50)
        assert list(of.ledger.miscounts()) == []
        entries = of.ledger.entries
        assert all((of.verdict(uid) is None) == entry.claim.holds for uid, entry in entries.items())
        again = Ledger()
        again._labels = dict(of.ledger._labels)
        again.set_quotas(quotas[chosen])
        for uid, entry in entries.items():
            again.put(uid, entry.claim)
        assert [limit.held for limit in again.limits.values()] == [limit.held for limit in of.ledger.limits.values()]
        assert again.next_lane() is None, "nobody waits for a slot that they may have"


def test_a_session_that_was_turned_away_takes_no_count_with_it() -> None:
    of, _ = decided([claim("a"), claim("b", second=1)], capped(1, 1, whenFull="Reject"))
    of.put("a", holder("a", persistent=True))
    of.put("b", None)
    (limit,) = of.ledger.limits.values()
    assert [group.held for group in limit.groups()] == [1]


def test_a_lane_that_moves_often_leaves_no_trace_in_the_queue() -> None:
    """Each change of a share is an entry in a heap; outdated ones are thrown away."""
    of = admission([claim("s", "ada"), claim("t", "bob", 1)], capped(3, 200))
    for number in range(150):
        of.put(f"h{number}", holder(f"h{number}", "ada"))
    (pool,) = of.ledger.pools.values()
    assert len(pool.open._heap) < 100
    assert of.decide(10).grants == []
    of.set_quotas([capped(151, 200)])
    assert of.decide(10).grants == ["t"]
