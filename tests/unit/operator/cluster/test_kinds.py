"""What a list corrects in a store and what it leaves alone; what a watch event does."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.api.meta import SESSIONS
from agentsession_operator.api.objects import Session, SessionUID
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kinds import Kind, followed
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from support.control_plane.builders import JSON, session, session_body

NAMES = "abcd"


Sessions = Kind[SessionUID, Session]


def known(**versions: int) -> Sessions:
    """The kind of the sessions, with a cache that knows these, by name, in a version each."""
    cache = Cache(Wakeups(WorkQueue()))
    for name, version in versions.items():
        cache.sessions.put(session(name, version=version))
    (kind,) = (kind for kind in followed(cache) if kind.plural == SESSIONS)
    return kind


def listed(at: int, **versions: int) -> JSON:
    items = [session_body(name, version=version) for name, version in versions.items()]
    return {"metadata": {"resourceVersion": str(at)}, "items": items}


def versions(kept: Sessions) -> dict[str, int]:
    return {item.meta.name: item.meta.version for item in kept.store.all()}


def test_an_empty_store_takes_everything() -> None:
    kept = known()
    assert kept.correct(listed(9, a=3, b=5)) == 2
    assert versions(kept) == {"a": 3, "b": 5}


def test_a_store_that_is_right_is_left_alone() -> None:
    kept = known(a=3, b=5)
    assert kept.correct(listed(9, a=3, b=5)) == 0


def test_changes_that_the_watch_missed_are_corrected_and_counted() -> None:
    kept = known(stale=3, gone=4, same=5)
    assert kept.correct(listed(9, stale=7, same=5, new=8)) == 3
    assert versions(kept) == {"stale": 7, "same": 5, "new": 8}


def test_what_is_younger_than_the_list_is_kept() -> None:
    kept = known(a=12, b=10)
    assert kept.correct(listed(9, a=3)) == 0
    assert versions(kept) == {"a": 12, "b": 10}


def test_an_object_deleted_during_the_list_does_not_come_back() -> None:
    kept = known(a=3)
    kept.store.remove(SessionUID("uid-of-a"))
    assert kept.correct(listed(9, a=3)) == 0
    assert versions(kept) == {}


def test_a_session_applied_again_under_its_name_replaces_the_first() -> None:
    kept = known(a=3)
    again = {"metadata": {"resourceVersion": "9"}, "items": [session_body("a", uid="second", version=8)]}
    assert kept.correct(again) == 2
    assert [item.meta.uid for item in kept.store.all()] == ["second"]


def test_an_unreadable_object_is_logged_and_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    kept = known()
    objects = listed(9, a=3, b=4)
    objects["items"][0]["spec"] = {"user": 7}
    with caplog.at_level(logging.ERROR):
        assert kept.correct(objects) == 1
    assert versions(kept) == {"b": 4}
    assert "ignoring agentsessions team/a" in caplog.text


@given(
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 20)),
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9)),
)
def test_a_list_makes_the_store_no_older_and_a_second_changes_nothing(before: dict[str, int], there: dict[str, int]) -> None:
    kept, at = known(**before), listed(9, **there)
    kept.correct(at)
    assert versions(kept) == {
        name: max(before.get(name, 0), there.get(name, 0))
        for name in before.keys() | there.keys()
        if name in there or before[name] > 9
    }
    assert kept.correct(at) == 0


# Events of a watch, which go the same way.


def test_events_are_put_into_the_store() -> None:
    kept = known()
    kept.take(None, session_body(version=1))
    kept.take("MODIFIED", session_body(version=2))
    assert versions(kept) == {"demo": 2}
    kept.take("DELETED", session_body(version=3))
    assert versions(kept) == {}


def test_the_deletion_of_an_object_that_cannot_be_read_is_understood() -> None:
    kept = known(demo=1)
    body = session_body(version=2)
    body["spec"] = {}
    kept.take("DELETED", body)
    assert versions(kept) == {}
