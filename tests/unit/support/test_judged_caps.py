"""Quotas as the judge of fault tests counts by them, by values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from support.faults.judge import Event, History, Holder
from support.faults.quotas import caps_of, counts, nobody_more, selects

JSON = dict[str, Any]
TEAM: JSON = {"matchLabels": {"team": "a"}}


def holder(user: str = "alice", class_name: str | None = "", labels: Mapping[str, str] | None = None) -> Holder:
    return Holder("uid", user, "n", class_name, "pod", labels)


def admitted(version: int, name: str, user: str = "alice", namespace: str = "n", **spec: str) -> Event:
    status = {"conditions": [{"type": "Admitted", "status": "True"}]}
    meta = {"uid": name, "name": name, "namespace": namespace}
    return Event(version, "agentsessions", "MODIFIED", {"metadata": meta, "spec": {"user": user, **spec}, "status": status})


def labeled(version: int, namespace: str = "n", **labels: str) -> Event:
    meta = {"uid": f"namespace-{namespace}", "name": namespace, "labels": labels}
    return Event(version, "namespaces", "MODIFIED", {"metadata": meta})


def broken(quotas: Mapping[str, JSON], *events: Event) -> list[tuple[int, str, str]]:
    return [(breach.version, breach.cap, breach.group) for breach in History(events).breaches(*caps_of(quotas))]


@pytest.mark.parametrize(
    ("expression", "with_a", "with_b", "without"),
    [
        ({"operator": "In", "values": ["a"]}, True, False, False),
        ({"operator": "NotIn", "values": ["a"]}, False, True, True),
        ({"operator": "Exists"}, True, True, False),
        ({"operator": "DoesNotExist"}, False, False, True),
    ],
)
def test_a_selector_selects_as_in_kubernetes(expression: JSON, with_a: bool, with_b: bool, without: bool) -> None:
    selector = {"matchExpressions": [{"key": "team", **expression}]}
    assert [selects(selector, labels) for labels in ({"team": "a"}, {"team": "b"}, {})] == [with_a, with_b, without]
    assert selects({}, {})
    assert [selects(TEAM, labels) for labels in ({"team": "a", "more": ""}, {"team": "b"}, {})] == [True, False, False]


def test_a_session_without_a_class_is_of_the_default_one() -> None:
    spec = {"classNames": ["default"]}
    assert counts(spec, holder())
    assert not counts(spec, holder(class_name="other"))
    assert not counts(spec, holder(), default_class="other")


def test_what_is_not_known_of_a_holder_counts() -> None:
    spec = {"classNames": ["other"], "namespaceSelector": TEAM}
    assert counts(spec, holder(class_name=None))
    assert not counts(spec, holder(class_name=None, labels={}))
    assert not counts(spec, holder(labels={"team": "a"}))


def test_each_quota_counts_those_whom_it_selects() -> None:
    quotas = {"team": {"namespaceSelector": TEAM, "maxSessions": 1}, "class": {"classNames": ["x"], "maxSessions": 1}}
    events = [
        labeled(0, "elsewhere", team="b"),
        labeled(1, team="a"),
        admitted(2, "a"),
        admitted(3, "b", namespace="elsewhere", className="x"),
        admitted(4, "c", className="x"),
    ]
    assert broken(quotas, *events[:4]) == []
    assert broken(quotas, *events) == [(4, "team", "all"), (4, "class", "all")]


def test_sessions_that_no_quota_counts_have_the_built_in_limits() -> None:
    quotas = {"class": {"classNames": ["x"], "maxSessions": 100, "maxSessionsPerUser": 100}}
    own = [admitted(number, f"s{number}") for number in range(1, 12)]
    assert broken(quotas, *own) == [(11, "built in per user", "alice")]
    all_of = [admitted(number, f"s{number}", f"u{number}") for number in range(1, 52)]
    assert broken(quotas, *all_of) == [(51, "built in", "all")]
    assert broken(quotas, *[admitted(number, f"s{number}", className="x") for number in range(1, 60)]) == []


def test_the_first_rule_that_matches_a_user_counts() -> None:
    rules = [
        {"match": "ci:*", "countAs": "Together", "maxSessions": 2},
        {"match": "root", "exempt": True},
        {"match": "b*", "maxSessions": 3},
        {"match": "*ob"},
        {"match": "c*"},
    ]
    quotas = {"q": {"maxSessionsPerUser": 1, "userRules": rules}}

    def breaks(*users: str) -> list[tuple[int, str, str]]:
        return broken(quotas, *[admitted(number, f"s{number}", user) for number, user in enumerate(users, 1)])

    assert breaks("ci:a", "ci:b") == []
    assert breaks("ci:a", "ci:b", "ci:c") == [(3, "q rule 0", "ci:*")]
    assert breaks("root", "root", "root") == []
    assert breaks("bob", "bob", "bob", "bob") == [(4, "q rule 2", "bob")]
    assert breaks("carl", "cora") == []
    assert breaks("carl", "carl") == [(2, "q rule 4", "carl")]
    assert breaks("alice", "alice") == [(2, "q per user", "alice")]


def test_a_relabeled_namespace_stops_nobody_and_admits_nobody() -> None:
    quotas = {"team": {"namespaceSelector": TEAM, "maxSessions": 1}}
    moved = [labeled(1), admitted(2, "a"), admitted(3, "b"), labeled(4, team="a")]
    assert broken(quotas, *moved) == []
    assert broken(quotas, *moved, admitted(5, "c")) == [(5, "team", "all")]


def test_a_held_quota_adds_no_holder() -> None:
    history = History([admitted(1, "a"), admitted(2, "a"), admitted(3, "b", className="x"), admitted(4, "c")])
    held = nobody_more("q", {"classNames": ["default"]})
    assert [breach.version for breach in history.breaches(held)] == [1, 4]
    assert [breach.version for breach in history.breaches(held, since=1)] == [4]
    assert history.breaches(held, since=1, until=3) == []
