"""The cache: whatever the order in which watches, lists and writes tell of an object, the newest version stays."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.api.objects import Session
from agentsession_operator.cluster.cache import Cache, Store
from support.control_plane.builders import READY, admitted, ended, finished, pod, quota, session, session_class

REMOVED = 0

news = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(REMOVED, 6)), max_size=20)


def told(store: Store[Session], events: list[tuple[str, int]]) -> Store[Session]:
    for name, version in events:
        if version == REMOVED:
            store.remove(f"uid-of-{name}")
        else:
            store.put(session(name, version=version))
    return store


def store() -> Store[Session]:
    return Store(lambda _before, _after: None)


@given(news.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_any_order_of_events_ends_in_the_same_objects(both: tuple[list[tuple[str, int]], list[tuple[str, int]]]) -> None:
    first, second = (told(store(), events) for events in both)
    assert {item.meta.uid: item.meta.version for item in first.all()} == {
        item.meta.uid: item.meta.version for item in second.all()
    }


@given(news)
def test_the_newest_version_stays_and_what_was_deleted_never_comes_back(events: list[tuple[str, int]]) -> None:
    expected = {
        f"uid-of-{name}": max(version for other, version in events if other == name)
        for name in {name for name, _ in events}
        if (name, REMOVED) not in events
    }
    assert {item.meta.uid: item.meta.version for item in told(store(), events).all()} == expected


@given(news)
def test_listeners_hear_of_each_step_once_and_without_a_gap(events: list[tuple[str, int]]) -> None:
    heard: list[tuple[Session | None, Session | None]] = []
    kept = told(Store(lambda before, after: heard.append((before, after))), events)
    state: dict[str, Session] = {}
    for before, after in heard:
        known = after or before
        assert known is not None
        assert state.get(known.meta.uid) is before
        if after is None:
            del state[known.meta.uid]
        else:
            state[known.meta.uid] = after
    assert list(state.values()) == kept.all()


def test_put_and_remove_say_whether_it_was_news() -> None:
    kept = store()
    assert [kept.put(session(version=version)) for version in (2, 2, 1, 3)] == [True, False, False, True]
    assert [kept.remove("uid-of-demo"), kept.remove("uid-of-demo"), kept.put(session(version=9))] == [True, False, False]
    assert len(kept) == 0


def test_tombstones_do_not_grow_without_a_bound() -> None:
    kept = store()
    for number in range(10_001):
        kept.remove(f"uid-of-{number}")
    assert not kept.put(session("10000"))
    assert kept.put(session("0"))


class Heard:
    """Who was told what."""

    def __init__(self) -> None:
        self.sessions: list[str] = []
        self.slots = self.settings = 0
        self.cache = Cache(session_changed=self.sessions.append, slots_changed=self._slots, settings_changed=self._settings)

    def _slots(self) -> None:
        self.slots += 1

    def _settings(self) -> None:
        self.settings += 1

    def during(self, act: Callable[[Cache], object]) -> tuple[list[str], int, int]:
        """The sessions, and how often slots and settings were called changed, while `act` was at work."""
        self.sessions.clear()
        self.slots = self.settings = 0
        act(self.cache)
        return list(self.sessions), self.slots, self.settings


def test_a_session_that_comes_or_goes_may_change_who_gets_a_slot() -> None:
    heard = Heard()
    assert heard.during(lambda cache: cache.sessions.put(session())) == (["uid-of-demo"], 1, 0)
    assert heard.during(lambda cache: cache.sessions.put(admitted(version=2))) == (["uid-of-demo"], 1, 0)
    assert heard.during(lambda cache: cache.sessions.put(finished(version=3))) == (["uid-of-demo"], 1, 0)
    assert heard.during(lambda cache: cache.sessions.remove("uid-of-demo")) == (["uid-of-demo"], 1, 0)


def test_a_session_that_is_to_rest_or_wanted_back_may_change_who_gets_a_slot() -> None:
    heard = Heard()
    heard.cache.sessions.put(admitted())
    assert heard.during(lambda cache: cache.sessions.put(admitted(version=2, suspend=True))) == (["uid-of-demo"], 1, 0)
    assert heard.during(lambda cache: cache.sessions.put(admitted(version=3, suspend=False))) == (["uid-of-demo"], 1, 0)


def test_a_session_that_only_works_changes_no_slot() -> None:
    heard = Heard()
    heard.cache.sessions.put(admitted())
    assert heard.during(lambda cache: cache.sessions.put(admitted(version=2, status={"messageCount": 3}))) == (
        ["uid-of-demo"],
        0,
        0,
    )


def test_a_pod_is_its_sessions_news_and_its_end_frees_a_slot() -> None:
    heard = Heard()
    assert heard.during(lambda cache: cache.pods.put(pod(status=READY))) == (["uid-of-demo"], 0, 0)
    assert heard.during(lambda cache: cache.pods.put(pod(status=ended(), version=101))) == (["uid-of-demo"], 1, 0)
    assert heard.during(lambda cache: cache.pods.remove("pod-of-demo")) == (["uid-of-demo"], 1, 0)


def test_a_quota_matters_when_its_spec_changes_and_not_when_its_status_does() -> None:
    heard = Heard()
    assert heard.during(lambda cache: cache.quotas.put(quota(maxSessions=1)))[2] == 1
    assert heard.during(lambda cache: cache.quotas.put(quota(maxSessions=1, version=2, status={"used": 1})))[2] == 0
    assert heard.during(lambda cache: cache.quotas.put(quota(maxSessions=2, version=3)))[2] == 1
    assert heard.during(lambda cache: cache.quotas.remove("uid-of-quota-default"))[2] == 1


def test_a_class_that_changes_is_a_setting() -> None:
    heard = Heard()
    assert heard.during(lambda cache: cache.classes.put(session_class())) == ([], 0, 1)
    assert heard.cache.classes_by_name().keys() == {"standard"}


def test_a_session_finds_its_pod_until_that_is_gone() -> None:
    cache = Heard().cache
    assert cache.pod_of("uid-of-demo") is None
    cache.pods.put(pod(version=5))
    cache.pods.put(pod(version=6, status=READY))
    found = cache.pod_of("uid-of-demo")
    assert found is not None
    assert found.phase == "Running"
    cache.pods.remove("pod-of-demo")
    assert cache.pod_of("uid-of-demo") is None


def test_the_leftovers_late_news_do_not_hide_the_successor() -> None:
    cache = Heard().cache
    cache.pods.put(pod(uid="old", version=5))
    cache.pods.put(pod(uid="new", version=9))
    cache.pods.put(pod(uid="old", version=7, deleting=True))
    found = cache.pod_of("uid-of-demo")
    assert found is not None
    assert found.meta.uid == "new"
    cache.pods.remove("old")
    found = cache.pod_of("uid-of-demo")
    assert found is not None
    assert found.meta.uid == "new"


def test_a_pod_of_another_namespace_is_never_a_sessions_pod() -> None:
    """It would decide over the session's status, and its token would be good for the session's reports."""
    cache = Heard().cache
    cache.sessions.put(session())
    cache.pods.put(pod(namespace="elsewhere", uid="forged", version=999, status=READY))
    assert cache.pod_of("uid-of-demo") is None
    cache.pods.put(pod(uid="own", version=5))
    found = cache.pod_of("uid-of-demo")
    assert found is not None
    assert found.meta.uid == "own"


def test_a_pod_whose_session_is_gone_is_still_found_so_that_it_can_be_deleted() -> None:
    cache = Heard().cache
    cache.pods.put(pod())
    assert cache.pod_of("uid-of-demo") is not None


def test_a_pod_whose_label_is_rewritten_leaves_its_first_session() -> None:
    heard = Heard()
    heard.cache.pods.put(pod(version=1))
    told_, _, _ = heard.during(lambda cache: cache.pods.put(pod(version=2, session_uid="another")))
    assert sorted(told_) == ["another", "uid-of-demo"]
    assert heard.cache.pod_of("uid-of-demo") is None
    assert heard.cache.pod_of("another") is not None
