"""What a list corrects in a store, and what it leaves alone."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.api.objects import Session
from agentsession_operator.cluster.cache import Store
from agentsession_operator.cluster.resync import correct
from agentsession_operator.cluster.watch import take
from support.control_plane.builders import JSON, session, session_body

NAMES = "abcd"


def store(**versions: int) -> Store[Session]:
    """Sessions by name, in a version each."""
    kept: Store[Session] = Store(lambda _before, _after: None)
    for name, version in versions.items():
        kept.put(session(name, version=version))
    return kept


def listed(at: int, **versions: int) -> JSON:
    items = [session_body(name, version=version) for name, version in versions.items()]
    return {"metadata": {"resourceVersion": str(at)}, "items": items}


def versions(kept: Store[Session]) -> dict[str, int]:
    return {item.meta.name: item.meta.version for item in kept.all()}


def test_an_empty_store_takes_everything() -> None:
    kept = store()
    assert correct(kept, Session.of, listed(9, a=3, b=5)) == 2
    assert versions(kept) == {"a": 3, "b": 5}


def test_a_store_that_is_right_is_left_alone() -> None:
    kept = store(a=3, b=5)
    assert correct(kept, Session.of, listed(9, a=3, b=5)) == 0


def test_what_the_watch_missed_is_put_right_and_counted() -> None:
    kept = store(stale=3, gone=4, same=5)
    assert correct(kept, Session.of, listed(9, stale=7, same=5, new=8)) == 3
    assert versions(kept) == {"stale": 7, "same": 5, "new": 8}


def test_what_is_younger_than_the_list_is_kept() -> None:
    kept = store(a=12, b=10)
    assert correct(kept, Session.of, listed(9, a=3)) == 0
    assert versions(kept) == {"a": 12, "b": 10}


def test_what_was_deleted_while_the_list_was_on_its_way_does_not_come_back() -> None:
    kept = store(a=3)
    kept.remove("uid-of-a")
    assert correct(kept, Session.of, listed(9, a=3)) == 0
    assert versions(kept) == {}


def test_a_session_applied_again_under_its_name_replaces_the_first() -> None:
    kept = store(a=3)
    again = {"metadata": {"resourceVersion": "9"}, "items": [session_body("a", uid="second", version=8)]}
    assert correct(kept, Session.of, again) == 2
    assert [item.meta.uid for item in kept.all()] == ["second"]


def test_an_object_that_cannot_be_read_is_no_correction_and_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    kept = store()
    objects = listed(9, a=3, b=4)
    objects["items"][0]["spec"] = {"user": 7}
    with caplog.at_level(logging.ERROR):
        assert correct(kept, Session.of, objects) == 1
    assert versions(kept) == {"b": 4}
    assert "team/a is left alone" in caplog.text


@given(
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 20)),
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9)),
)
def test_after_a_list_the_store_is_never_older_than_it_and_a_second_one_changes_nothing(
    known: dict[str, int], there: dict[str, int]
) -> None:
    kept, at = store(**known), listed(9, **there)
    correct(kept, Session.of, at)
    assert versions(kept) == {
        name: max(known.get(name, 0), there.get(name, 0))
        for name in known.keys() | there.keys()
        if name in there or known[name] > 9
    }
    assert correct(kept, Session.of, at) == 0


# Events of a watch, which go the same way.


def test_events_are_put_into_the_store() -> None:
    kept = store()
    take(kept, Session.of, None, session_body(version=1))
    take(kept, Session.of, "MODIFIED", session_body(version=2))
    assert versions(kept) == {"demo": 2}
    take(kept, Session.of, "DELETED", session_body(version=3))
    assert versions(kept) == {}


def test_the_deletion_of_an_object_that_cannot_be_read_is_understood() -> None:
    kept = store(demo=1)
    body = session_body(version=2)
    body["spec"] = {}
    take(kept, Session.of, "DELETED", body)
    assert versions(kept) == {}
