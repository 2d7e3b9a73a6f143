"""Which sessions a quota counts, and who shares one count."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.api.objects import Quota
from agentsession_operator.decisions.quotas.limits import Limit
from support.control_plane.builders import quota

LABELS = {"team": "a", "tier": "gold"}


def limit(of: Quota) -> Limit:
    return Limit(of.meta.name, of.spec, of.scope)


def selecting(**selector: Any) -> Limit:
    return limit(quota(namespaceSelector=selector))


def demand(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


def test_a_quota_without_selectors_counts_everything() -> None:
    assert limit(quota()).counts({}, "default") is True
    assert limit(quota()).counts(None, None) is True
    assert selecting().counts(None, None) is True


@pytest.mark.parametrize(
    ("selector", "counts"),
    [
        ({"matchLabels": {"team": "a"}}, True),
        ({"matchLabels": {"team": "b"}}, False),
        ({"matchLabels": {"team": "a", "region": "eu"}}, False),
        (demand("team", "In", "a", "b"), True),
        (demand("team", "In", "b"), False),
        (demand("region", "In", "eu"), False),
        (demand("team", "NotIn", "b"), True),
        (demand("team", "NotIn", "a"), False),
        (demand("region", "NotIn", "eu"), True),
        (demand("team", "Exists"), True),
        (demand("region", "Exists"), False),
        (demand("region", "DoesNotExist"), True),
        (demand("team", "DoesNotExist"), False),
        ({"matchLabels": {"team": "a"}, **demand("tier", "In", "silver")}, False),
    ],
)
def test_namespaces_are_selected_as_kubernetes_does(selector: dict[str, Any], counts: bool) -> None:
    assert selecting(**selector).counts(LABELS, "default") is counts


def test_a_namespace_that_is_not_known_may_be_any() -> None:
    assert selecting(matchLabels={"team": "a"}).counts(None, "default") is None


def test_classes_are_selected_by_name() -> None:
    gpu = limit(quota(classNames=["gpu", "big"]))
    assert [gpu.counts({}, name) for name in ("gpu", "default", None)] == [True, False, None]


def test_both_selectors_must_hold() -> None:
    both = limit(quota(namespaceSelector={"matchLabels": {"team": "a"}}, classNames=["gpu"]))
    assert both.counts(LABELS, "gpu") is True
    assert both.counts(LABELS, "default") is False
    assert both.counts({}, None) is False
    assert both.counts(LABELS, None) is None


def test_a_quota_with_a_mistake_elsewhere_keeps_its_scope() -> None:
    broken = limit(quota(maxSessions="many", namespaceSelector={"matchLabels": {"team": "a"}}))
    assert broken.held_up
    assert not broken.drains
    assert (broken.counts(LABELS, "default"), broken.counts({}, "default")) == (True, False)


@pytest.mark.parametrize(
    "spec",
    [
        {"namespaceSelector": demand("team", "In")},
        {"namespaceSelector": demand("team", "Exists", "a")},
        {"namespaceSelector": {"matchLabels": "team"}},
        {"classNames": []},
        {"classNames": [""]},
    ],
)
def test_a_quota_whose_selectors_cannot_be_read_may_count_any(spec: dict[str, Any]) -> None:
    broken = limit(quota(**spec))
    assert broken.held_up
    assert broken.counts(LABELS, "default") is None


def test_each_user_has_a_count_of_their_own() -> None:
    of = limit(quota(maxSessionsPerUser=3))
    assert of.group_of("ada") is of.group_of("ada")
    assert of.group_of("ada") is not of.group_of("bob")
    assert (of.group_of("ada").cap, of.group_of("ada").weight) == (3, 1)


def test_the_first_rule_that_matches_a_user_applies() -> None:
    rules = [
        {"match": "ada", "maxSessions": 1},
        {"match": "*@ci", "countAs": "Together", "maxSessions": 5, "weight": 2},
        {"match": "a*", "exempt": True},
    ]
    of = limit(quota(maxSessionsPerUser=3, userRules=rules))
    assert of.group_of("ada").cap == 1
    assert of.group_of("alan").cap is None
    assert of.group_of("bob").cap == 3
    robots = of.group_of("one@ci")
    assert of.group_of("two@ci") is robots
    assert (robots.cap, robots.weight, robots.together, robots.name) == (5, 2, True, "*@ci")


def test_a_rule_without_a_limit_keeps_the_limit_of_the_quota() -> None:
    of = limit(quota(maxSessionsPerUser=3, userRules=[{"match": "*", "weight": 7}]))
    assert (of.group_of("ada").cap, of.group_of("ada").weight) == (3, 7)


def test_a_user_named_like_a_rule_is_not_in_its_group() -> None:
    rules = [{"match": "x?", "countAs": "Together"}]
    of = limit(quota(userRules=rules))
    assert of.group_of("x1") is not of.group_of("x?y")


def test_an_exempt_rule_with_a_limit_cannot_be_read() -> None:
    assert quota(userRules=[{"match": "ada", "exempt": True, "maxSessions": 3}]).spec is None


@given(st.text(max_size=8), st.sampled_from(["*", "?", "a*", "[ab]*"]))
def test_any_user_name_finds_a_group(user: str, match: str) -> None:
    of = limit(quota(userRules=[{"match": match, "countAs": "Together"}]))
    assert of.group_of(user).name in (user, match)
    of.forget(of.group_of(user))
    assert of.groups() == []
