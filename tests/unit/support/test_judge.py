"""The judge of fault tests, by values: what counts as a holder, as a breach, as a second pod."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from support.faults.judge import FINALIZER, FORGED, Event, History, at_most, at_most_per_user, busiest

JSON = dict[str, Any]


def session(
    version: int, name: str, kind: str = "MODIFIED", *, admitted: bool = False, user: str = "alice", **rest: Any
) -> Event:
    conditions = [{"type": "Admitted", "status": "True" if admitted else "False"}]
    meta = {"uid": f"uid-{name}", "name": name, "namespace": "n"}
    body = {"metadata": meta, "spec": {"user": user}, "status": {"conditions": conditions, **rest}}
    return Event(version, "agentsessions", kind, body)  # type: ignore[arg-type]


def pod(
    version: int,
    name: str,
    kind: str = "MODIFIED",
    *,
    of: str = "a",
    phase: str = "Pending",
    user: str = "alice",
    labelled: bool = True,
    **meta: Any,
) -> Event:
    labels = {"agentsession.dev/session-uid": f"uid-{of}"} if labelled else {}
    annotations = {"agentsession.dev/user": user, **meta.pop("annotations", {})}
    whole = {"uid": f"pod-{name}", "name": name, "namespace": "n", "labels": labels, "annotations": annotations, **meta}
    containers = [{"name": "agent", "state": {"running": {}}}] if phase == "Running" else []
    body = {"metadata": whole, "status": {"phase": phase, "containerStatuses": containers}}
    return Event(version, "pods", kind, body)  # type: ignore[arg-type]


def holding(*events: Event) -> set[str]:
    return {uid.removeprefix("uid-") for uid in History(events).end().holders()}


def test_an_admitted_session_holds_without_a_pod() -> None:
    assert holding(session(1, "a", admitted=True)) == {"a"}
    assert holding(session(1, "a", admitted=True), session(2, "a", admitted=False)) == set()


def test_a_deleted_session_holds_no_longer_by_its_status() -> None:
    assert holding(session(1, "a", admitted=True), session(2, "a", "DELETED", admitted=True)) == set()


def test_a_pod_holds_until_it_has_ended_or_is_gone() -> None:
    assert holding(session(1, "a"), pod(2, "p")) == {"a"}
    assert holding(session(1, "a"), pod(2, "p"), pod(3, "p", deletionTimestamp="now")) == {"a"}
    forced = pod(3, "p", deletionTimestamp="now", deletionGracePeriodSeconds=0)
    for end in (pod(3, "p", phase="Succeeded"), pod(3, "p", phase="Failed"), pod(3, "p", "DELETED"), forced):
        assert holding(session(1, "a"), pod(2, "p"), end) == set()


def test_a_pod_holds_for_its_user_when_its_session_is_gone() -> None:
    history = History([session(1, "a", user="bob"), pod(2, "p", user="bob"), session(3, "a", "DELETED", user="bob")])
    assert [(holder.session, holder.user, holder.by) for holder in history.end().holders().values()] == [
        ("uid-a", "bob", "pod")
    ]
    assert holding(pod(1, "p", of="never-seen")) == {"never-seen"}


def test_a_pod_that_lost_its_label_holds_all_the_same() -> None:
    assert holding(session(1, "a"), pod(2, "p"), pod(3, "p", labelled=False)) == {"a"}
    assert holding(pod(2, "p", labelled=False)) == set(), "it was never ours"


def test_a_forged_pod_holds_nothing() -> None:
    assert holding(pod(1, "p", annotations={FORGED: ""})) == set()


def test_two_pods_of_a_session_share_its_slot_and_are_told() -> None:
    history = History([session(1, "a"), pod(2, "p"), pod(5, "q"), pod(6, "p", "DELETED")])
    assert history.most_holders() == 1
    assert history.doubled() == {"uid-a": 5}
    assert history.pods_ever() == {"uid-a": ["p", "q"]}


def test_pods_one_after_the_other_are_not_doubled() -> None:
    assert History([pod(2, "p"), pod(3, "p", phase="Failed"), pod(4, "q")]).doubled() == {}


def test_a_breach_is_an_event_that_takes_a_count_above_its_cap() -> None:
    history = History(
        [session(1, "a", admitted=True), session(2, "b", admitted=True, user="bob"), session(3, "c", admitted=True)]
    )
    assert history.breaches(at_most(3), at_most_per_user(2)) == []
    (breach,) = history.breaches(at_most(2))
    assert (breach.version, breach.count, breach.cause) == (3, 3, "MODIFIED agentsessions n/c")
    (breach,) = history.breaches(at_most_per_user(1))
    assert (breach.version, breach.group, breach.holders) == (3, "alice", ("uid-a", "uid-c"))


def test_staying_above_a_cap_is_not_another_breach() -> None:
    history = History([session(number, name, admitted=True) for number, name in enumerate("abb", 1)])
    assert [breach.version for breach in history.breaches(at_most(1))] == [2]


def test_what_was_there_when_the_record_began_is_no_breach() -> None:
    listed = [session(number, name, "LISTED", admitted=True) for number, name in enumerate("ab", 1)]
    assert History(listed).breaches(at_most(1)) == []
    assert [breach.version for breach in History([*listed, session(9, "c", admitted=True)]).breaches(at_most(1))] == [9]


def test_orphans_are_living_pods_without_a_session() -> None:
    assert History([pod(1, "p")]).orphans() == ["p"]
    gone = [session(1, "a"), pod(2, "p"), session(3, "a", "DELETED")]
    assert History(gone).orphans() == ["p"]
    assert History([*gone, pod(4, "p", deletionTimestamp="now")]).orphans() == []


def test_a_finalizer_is_left_on_a_pod_that_has_ended() -> None:
    assert History([pod(1, "p", finalizers=[FINALIZER])]).finalizers_left() == []
    assert History([pod(1, "p", phase="Failed", finalizers=[FINALIZER])]).finalizers_left() == ["p"]
    assert History([pod(1, "p", phase="Failed", finalizers=["another"])]).finalizers_left() == []


def test_a_prompt_started_twice_is_told_unless_the_session_is_persistent() -> None:
    pods = [pod(2, "p", phase="Running"), pod(3, "p", "DELETED"), pod(4, "q", phase="Running")]
    assert History([session(1, "a"), *pods]).started_twice() == {"uid-a": ["p", "q"]}
    assert History([session(1, "a", workspace={"claimName": "c"}), *pods]).started_twice() == {}
    assert History([session(1, "a"), *pods[:2], pod(4, "q")]).started_twice() == {}


def test_the_busiest_second_of_each_key() -> None:
    assert busiest([("a", 0.0), ("a", 0.5), ("a", 0.9), ("a", 1.5), ("b", 7.0)]) == {"a": 3, "b": 1}


EVENTS = st.lists(
    st.tuples(st.booleans(), st.sampled_from("abc"), st.booleans(), st.sampled_from(["alice", "bob"]), st.booleans()),
    max_size=30,
).map(
    lambda choices: [
        session(number, name, "DELETED" if gone else "MODIFIED", admitted=flag, user=user)
        if is_session
        else pod(number, f"{name}-{flag}", "DELETED" if gone else "MODIFIED", of=name, user=user)
        for number, (is_session, name, flag, user, gone) in enumerate(choices, 1)
    ]
)


@given(EVENTS, st.integers(0, 3))
def test_there_is_a_breach_exactly_where_the_most_holders_exceed_the_cap(events: list[Event], limit: int) -> None:
    history = History(events)
    assert bool(history.breaches(at_most(limit))) == (history.most_holders() > limit)
    most_of_one = history.most_holders(lambda holder: holder.user)
    assert bool(history.breaches(at_most_per_user(limit))) == (most_of_one > limit)


@given(EVENTS, st.randoms())
def test_the_order_of_arrival_does_not_matter(events: list[Event], chance: random.Random) -> None:
    shuffled = list(events)
    chance.shuffle(shuffled)
    assert History(shuffled).end().holders() == History(events).end().holders()
    assert History(shuffled).breaches(at_most(1)) == History(events).breaches(at_most(1))
