"""What a list corrects in a store and what it leaves alone; what a watch event does."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.api.meta import CLASSES, SESSIONS
from agentsession_operator.api.objects import Pod, PodUID, Session, SessionUID
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kinds import Comparison, Kind, followed
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from support.control_plane.builders import INSTALLATION, JSON, READY, class_body, pod_body, quota, session, session_body

NAMES = "abcd"


Sessions = Kind[SessionUID, Session]


def known(**versions: int) -> Sessions:
    """The kind of the sessions, with a cache that knows these, by name, in a version each."""
    cache = Cache(Wakeups(WorkQueue()))
    for name, version in versions.items():
        cache.sessions.put(session(name, version=version))
    (kind,) = (kind for kind in followed(cache, INSTALLATION.token_key) if kind.plural == SESSIONS)
    return kind


def listed(at: int, **versions: int) -> JSON:
    items = [session_body(name, version=version) for name, version in versions.items()]
    return {"metadata": {"resourceVersion": str(at)}, "items": items}


def corrected(kind: Kind[Any, Any], page: JSON) -> int:
    """How many objects a list of one page corrects."""
    comparison = Comparison(kind)
    comparison.see(page)
    return comparison.finish()


def versions(kept: Sessions) -> dict[str, int]:
    return {item.meta.name: item.meta.version for item in kept.store.all()}


def test_an_empty_store_takes_everything() -> None:
    kept = known()
    assert corrected(kept, listed(9, a=3, b=5)) == 2
    assert versions(kept) == {"a": 3, "b": 5}


def test_a_list_in_pages_corrects_as_a_whole_one() -> None:
    kept = known(stale=3, gone=4, same=5)
    comparison = Comparison(kept)
    comparison.see(listed(9, stale=7, same=5))
    assert versions(kept) == {"stale": 3, "gone": 4, "same": 5}
    assert comparison.take() == 1
    comparison.see(listed(9, new=8))
    assert comparison.finish() == 2
    assert versions(kept) == {"stale": 7, "same": 5, "new": 8}


def test_what_the_watch_delivers_meanwhile_is_no_correction() -> None:
    kept = known(a=3)
    comparison = Comparison(kept)
    comparison.see(listed(9, a=7))
    kept.store.put(session("a", version=7))
    assert comparison.finish() == 0


def test_a_store_that_is_right_is_left_alone() -> None:
    kept = known(a=3, b=5)
    assert corrected(kept, listed(9, a=3, b=5)) == 0


def test_changes_that_the_watch_missed_are_corrected_and_counted() -> None:
    kept = known(stale=3, gone=4, same=5)
    assert corrected(kept, listed(9, stale=7, same=5, new=8)) == 3
    assert versions(kept) == {"stale": 7, "same": 5, "new": 8}


def test_what_is_younger_than_the_list_is_kept() -> None:
    kept = known(a=12, b=10)
    assert corrected(kept, listed(9, a=3)) == 0
    assert versions(kept) == {"a": 12, "b": 10}


def test_an_object_deleted_during_the_list_does_not_come_back() -> None:
    kept = known(a=3)
    kept.store.remove(SessionUID("uid-of-a"))
    assert corrected(kept, listed(9, a=3)) == 0
    assert versions(kept) == {}


def test_a_session_applied_again_under_its_name_replaces_the_first() -> None:
    kept = known(a=3)
    again = {"metadata": {"resourceVersion": "9"}, "items": [session_body("a", uid="second", version=8)]}
    assert corrected(kept, again) == 2
    assert [item.meta.uid for item in kept.store.all()] == ["second"]


def test_an_unreadable_object_is_logged_and_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    kept = known()
    objects = listed(9, a=3, b=4)
    objects["items"][0]["spec"] = {"user": 7}
    with caplog.at_level(logging.ERROR):
        assert corrected(kept, objects) == 1
    assert versions(kept) == {"b": 4}
    assert "ignoring agentsessions team/a" in caplog.text


@given(
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 20)),
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9)),
)
def test_a_list_makes_the_store_no_older_and_a_second_changes_nothing(before: dict[str, int], there: dict[str, int]) -> None:
    kept, at = known(**before), listed(9, **there)
    corrected(kept, at)
    assert versions(kept) == {
        name: max(before.get(name, 0), there.get(name, 0))
        for name in before.keys() | there.keys()
        if name in there or before[name] > 9
    }
    assert corrected(kept, at) == 0


def the_pods() -> tuple[Cache, Kind[PodUID, Pod]]:
    cache = Cache(Wakeups(WorkQueue()))
    (kind,) = (kind for kind in followed(cache, INSTALLATION.token_key) if kind.plural == "pods")
    return cache, kind


FORGED = [
    {"agentsession.dev/mac": ""},
    {"agentsession.dev/mac": "0" * 64},
    {"agentsession.dev/user": "victim"},
    {"agentsession.dev/session": "another"},
]


@pytest.mark.parametrize("annotations", FORGED)
def test_a_forged_pod_is_ignored_and_logged_once(annotations: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    cache, pods = the_pods()
    body = pod_body(status=READY)
    body["metadata"]["annotations"] |= annotations
    with caplog.at_level(logging.ERROR):
        for version in range(101, 110):
            body["metadata"]["resourceVersion"] = str(version)
            pods.take("MODIFIED", body)
    assert len(cache.pods) == 0
    assert len(caplog.records) == 1


def test_a_mark_that_was_copied_to_another_namespace_is_worth_nothing() -> None:
    cache, pods = the_pods()
    body = pod_body(status=READY)
    body["metadata"] |= {"namespace": "elsewhere", "uid": "forged"}
    pods.take("ADDED", body)
    assert len(cache.pods) == 0


def test_a_pod_that_is_known_is_followed_by_its_uid() -> None:
    cache, pods = the_pods()
    body = pod_body(status=READY)
    pods.take("ADDED", body)
    body["metadata"] |= {"annotations": {"agentsession.dev/user": "mallory"}, "resourceVersion": "200"}
    pods.take("MODIFIED", body)
    (pod,) = cache.pods.all()
    assert (pod.meta.version, pod.user, pod.marked) == (200, "ada", False)


def test_a_protected_pod_that_vanishes_is_a_doubt() -> None:
    cache, pods = the_pods()
    pods.take("ADDED", pod_body(status=READY))
    pods.take("DELETED", pod_body(status=READY, version=200))
    assert [pod.meta.uid for pod in cache.doubtful(SessionUID("uid-of-demo"))] == ["pod-of-demo"]
    cache.follow(cache.pods.all()[0], pod_body(status=READY, version=300))
    assert cache.doubtful(SessionUID("uid-of-demo")) == []


def test_a_released_pod_that_vanishes_is_gone() -> None:
    cache, pods = the_pods()
    pods.take("ADDED", pod_body(status=READY, protected=False))
    pods.take("DELETED", pod_body(status=READY, protected=False, version=200))
    assert len(cache.pods) == 0


def test_a_pod_that_misses_in_a_list_is_a_doubt() -> None:
    cache, pods = the_pods()
    pods.take("ADDED", pod_body(status=READY))
    assert corrected(pods, {"metadata": {"resourceVersion": "900"}, "items": []}) == 1
    assert len(cache.doubtful(SessionUID("uid-of-demo"))) == 1


def test_a_class_that_becomes_unreadable_replaces_its_old_version() -> None:
    cache = Cache(Wakeups(WorkQueue()))
    (kind,) = (kind for kind in followed(cache, INSTALLATION.token_key) if kind.plural == CLASSES)
    kind.take("ADDED", class_body(version=1))
    kind.take("MODIFIED", class_body(version=2, workspace={"type": "Sometimes"}))
    assert cache.classes.all()[0].spec is None


def test_odd_fields_of_a_pod_are_absent_ones() -> None:
    cache, pods = the_pods()
    body = pod_body(status={"phase": "Running", "conditions": "none", "containerStatuses": [7]})
    body["metadata"]["annotations"]["agentsession.dev/workspace"] = "not JSON"
    pods.take("ADDED", body)
    (pod,) = cache.pods.all()
    assert (list(pod.conditions), list(pod.containers), pod.workspace) == ([], [], None)


def test_a_status_whose_conditions_can_be_read_keeps_them() -> None:
    kept = known()
    good = {"type": "Admitted", "status": "True", "reason": "Admitted", "lastTransitionTime": "now"}
    kept.take("ADDED", session_body(version=1, status={"lostPods": "many", "conditions": [good]}))
    assert kept.store.all()[0].admitted


ODD: list[JSON] = [{}, {"metadata": {"uid": "x"}}, {"metadata": {"uid": "x", "name": "x", "resourceVersion": "new"}}]


@pytest.mark.parametrize("body", ODD[1:])
def test_what_is_no_object_of_the_api_is_ignored_in_every_kind(body: JSON) -> None:
    cache = Cache(Wakeups(WorkQueue()))
    for kind in followed(cache, INSTALLATION.token_key):
        kind.take("ADDED", body)
        assert len(kind.store) == 0


def test_a_status_that_was_edited_by_hand_loses_its_odd_fields_only() -> None:
    kept = known()
    status = {
        "podUID": "p",
        "lostPods": "many",
        "queue": {"position": "first"},
        "conditions": [{"type": 7}, {"type": "Admitted", "status": "True", "reason": "Admitted", "lastTransitionTime": "now"}],
    }
    kept.take("ADDED", session_body(version=1, status=status))
    (read,) = kept.store.all()
    assert (read.status.pod_uid, read.status.lost_pods, read.status.queue, read.admitted) == ("p", None, None, True)


def test_the_readable_quota_is_what_it_says() -> None:
    assert quota(maxSessions="many").spec is None
    assert quota(maxSessions=3).spec is not None


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
