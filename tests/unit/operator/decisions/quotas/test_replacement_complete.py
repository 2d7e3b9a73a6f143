"""ReplaceOldestIdle looks at what changed only: by property, it misses nobody who could make room."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.decisions.quotas.admission import Admission
from agentsession_operator.decisions.quotas.claims import Claim
from support.control_plane.builders import quota
from support.control_plane.claims import admission, claim

REPLACED = "ReplaceOldestIdle"
QUOTAS = (
    quota("all", maxSessions=4, maxSessionsPerUser=1, whenFull=REPLACED),
    quota("gpu", classNames=["gpu"], maxSessions=2, maxSessionsPerUser=2, whenFull=REPLACED),
)
UIDS = [f"s{number}" for number in range(9)]


def changes_(uid: str) -> st.SearchStrategy[tuple[str, Claim | None]]:
    """What one session claims next."""
    claims = st.builds(
        lambda user, second, kind, priority, first, idle: claim(
            uid,
            user,
            second,
            class_name=kind,
            priority=priority,
            first=first,
            holds=idle is not None,
            idle_since=idle or None,
        ),
        st.sampled_from(["ada", "bob", "cyn"]),
        st.integers(0, 9),
        st.sampled_from(["default", "gpu"]),
        st.integers(0, 1),
        st.sampled_from([True, True, False]),
        st.sampled_from([None, None, "", "3", "5", "7"]),
    )
    return st.tuples(st.just(uid), st.none() | claims | claims)


def could_still_be_helped(of: Admission) -> Iterator[str]:
    """Sessions that wait for their first slot although somebody could make room for them."""
    for uid, entry in of.ledger.entries.items():
        if entry.lane is not None and entry.claim.first and not of._replacements.awaits(uid):
            full = entry.lane.full()
            replaces = full and all(each.limit.rules.when_full == REPLACED for each in full)
            if replaces and of._replacements.find(entry.claim, full) is not None:
                yield uid


@given(st.lists(st.sampled_from(UIDS).flatmap(changes_), max_size=40))
def test_nobody_who_could_make_room_is_missed(changes: list[tuple[str, Claim | None]]) -> None:
    of = admission((), *QUOTAS)
    for uid, now in changes:
        of.put(uid, now)
        of.decide(100)
        assert list(could_still_be_helped(of)) == []


def test_the_next_in_line_inherits_who_makes_room() -> None:
    one = quota("all", maxSessionsPerUser=1, whenFull=REPLACED)
    of = admission([claim("h", holds=True, idle_since="3"), claim("a", second=1), claim("b", second=2)], one)
    of.decide(10)
    assert successor(of, "h") == "a"
    of.put("a", None)
    assert of.decide(10).news == ["h"]
    assert successor(of, "h") == "b"


def test_who_loses_the_one_that_makes_room_finds_another() -> None:
    two = quota("all", maxSessions=2, maxSessionsPerUser=1, whenFull=REPLACED)
    of = admission([claim("h", "bob", holds=True, idle_since="3"), claim("w", "cyn", holds=True), claim("a")], two)
    of.decide(10)
    assert successor(of, "h") == "a"
    of.put("own", claim("own", holds=True, idle_since="5"))
    of.decide(10)
    of.put("h", None)
    of.decide(10)
    assert successor(of, "own") == "a"


def test_a_quota_that_has_room_again_leaves_fewer_to_make_room_in() -> None:
    everybody = quota("all", maxSessions=2, maxSessionsPerUser=1, whenFull=REPLACED)
    gpu = quota("gpu", classNames=["gpu"], maxSessions=1, maxSessionsPerUser=9, whenFull=REPLACED)
    own, other = claim("own", holds=True, idle_since="3"), claim("g", "bob", class_name="gpu", holds=True)
    of = admission([own, other, claim("a", class_name="gpu")], everybody, gpu)
    of.decide(10)
    assert successor(of, "own") is None
    of.put("g", None)
    of.put("c", claim("c", "cyn", holds=True))
    of.decide(10)
    assert successor(of, "own") == "a"


def successor(of: Admission, uid: str) -> str | None:
    displaced = of.displaced(uid)
    return displaced.successor if displaced is not None else None
