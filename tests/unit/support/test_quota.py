"""The watcher of the caps, by values: what it counts as a holder."""

from __future__ import annotations

import pytest

from support.api import JSON, session
from support.quota import over_the_caps


def admitted(name: str, user: str = "alice") -> JSON:
    body = session(name, user=user)
    body["metadata"]["uid"] = name
    return body | {"status": {"conditions": [{"type": "Admitted", "status": "True"}]}}


def pod(phase: str, **meta: object) -> JSON:
    return {"metadata": meta, "status": {"phase": phase}}


@pytest.mark.parametrize(
    "ended",
    [pod("Succeeded"), pod("Failed"), pod("Running", deletionTimestamp="now", deletionGracePeriodSeconds=0)],
    ids=["succeeded", "failed", "forced"],
)
def test_pods_above_the_cap_are_told_until_they_end(ended: JSON) -> None:
    leaving = pod("Running", deletionTimestamp="now", deletionGracePeriodSeconds=30)
    assert over_the_caps([], [pod("Running"), leaving], 1, 1) == ["2 pods run"]
    assert not over_the_caps([], [pod("Running"), ended], 1, 1)


def test_admitted_sessions_above_a_cap_are_told() -> None:
    two = [admitted("a"), admitted("b", "bob")]
    assert not over_the_caps(two, [], 2, 1)
    assert over_the_caps(two, [], 1, 1) == ["2 sessions are admitted: Counter({'alice': 1, 'bob': 1})"]
    assert over_the_caps([*two, admitted("c")], [], 3, 1) != []
