"""The cache: in any order of watches, lists and writes, the newest version stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.api.objects import Namespace, Pod, PodUID, Quota, Session, SessionClass, SessionUID
from agentsession_operator.cluster.cache import Cache, CacheListener, Store
from support.control_plane.builders import READY, pod, quota, session, session_class

REMOVED = 0
UID = SessionUID("uid-of-demo")

news = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(REMOVED, 6)), max_size=20)


def fed(store: Store[SessionUID, Session], events: list[tuple[str, int]]) -> Store[SessionUID, Session]:
    for name, version in events:
        if version == REMOVED:
            store.remove(SessionUID(f"uid-of-{name}"))
        else:
            store.put(session(name, version=version))
    return store


def store() -> Store[SessionUID, Session]:
    return Store(lambda _before, _after: None)


@given(news.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_any_order_of_events_ends_in_the_same_objects(both: tuple[list[tuple[str, int]], list[tuple[str, int]]]) -> None:
    first, second = (fed(store(), events) for events in both)
    assert {item.meta.uid: item.meta.version for item in first.all()} == {
        item.meta.uid: item.meta.version for item in second.all()
    }


@given(news)
def test_the_newest_version_stays_and_a_deleted_object_never_comes_back(events: list[tuple[str, int]]) -> None:
    expected = {
        f"uid-of-{name}": max(version for other, version in events if other == name)
        for name in {name for name, _ in events}
        if (name, REMOVED) not in events
    }
    assert {item.meta.uid: item.meta.version for item in fed(store(), events).all()} == expected


@given(news)
def test_each_step_is_published_once_and_without_a_gap(events: list[tuple[str, int]]) -> None:
    heard: list[tuple[Session | None, Session | None]] = []
    kept = fed(Store(lambda before, after: heard.append((before, after))), events)
    state: dict[SessionUID, Session] = {}
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
    assert [kept.remove(UID), kept.remove(UID), kept.put(session(version=9))] == [True, False, False]
    assert len(kept) == 0


def test_tombstones_do_not_grow_without_a_bound() -> None:
    kept = store()
    for number in range(10_001):
        kept.remove(SessionUID(f"uid-of-{number}"))
    assert not kept.put(session("10000"))
    assert kept.put(session("0"))


class Heard(CacheListener):
    """Keeps the changes that a cache published, and what the cache held at that moment."""

    def __init__(self) -> None:
        self.changes: list[tuple[object, object, list[Pod]]] = []
        self.completions = 0

    def session_changed(self, cache: Cache, before: Session | None, after: Session | None) -> None:
        self.changes.append((before, after, cache.pods_of(UID)))

    def pod_changed(self, cache: Cache, before: Pod | None, after: Pod | None) -> None:
        self.changes.append((before, after, cache.pods_of(UID)))

    def class_changed(self, cache: Cache, before: SessionClass | None, after: SessionClass | None) -> None:
        self.changes.append((before, after, cache.pods_of(UID)))

    def quota_changed(self, cache: Cache, before: Quota | None, after: Quota | None) -> None:
        self.changes.append((before, after, cache.pods_of(UID)))

    def namespace_changed(self, cache: Cache, before: Namespace | None, after: Namespace | None) -> None:
        self.changes.append((before, after, cache.pods_of(UID)))

    def completed(self, cache: Cache) -> None:
        assert cache.complete
        self.completions += 1


def test_each_kind_publishes_its_changes() -> None:
    heard = Heard()
    cache = Cache(heard)
    items = (session(), pod(), session_class(), quota())
    cache.sessions.put(items[0])
    cache.pods.put(items[1])
    cache.classes.put(items[2])
    cache.quotas.put(items[3])
    assert [(before, after) for before, after, _ in heard.changes] == [(None, item) for item in items]
    assert cache.classes_by_name() == {"standard": items[2]}


def test_the_listener_sees_the_pod_in_the_index_already() -> None:
    heard = Heard()
    cache = Cache(heard)
    first, second = pod(version=5), pod(version=6, status=READY)
    cache.pods.put(first)
    cache.pods.put(second)
    cache.pods.remove(first.meta.uid)
    assert heard.changes == [(None, first, [first]), (first, second, [second]), (second, None, [])]


def test_completion_is_published() -> None:
    heard = Heard()
    cache = Cache(heard)
    assert not cache.complete
    cache.mark_complete()
    assert (cache.complete, heard.completions) == (True, 1)


def test_a_session_finds_its_pod_until_that_is_gone() -> None:
    cache = Cache(Heard())
    assert cache.pod_of(UID) is None
    cache.pods.put(pod(version=5))
    cache.pods.put(pod(version=6, status=READY))
    found = cache.pod_of(UID)
    assert found is not None
    assert found.phase == "Running"
    cache.pods.remove(PodUID("pod-of-demo"))
    assert cache.pod_of(UID) is None


def test_late_news_of_a_leftover_does_not_hide_its_successor() -> None:
    cache = Cache(Heard())
    cache.pods.put(pod(uid="old", version=5))
    cache.pods.put(pod(uid="new", version=9))
    cache.pods.put(pod(uid="old", version=7, deleting=True))
    found = cache.pod_of(UID)
    assert found is not None
    assert found.meta.uid == "new"
    cache.pods.remove(PodUID("old"))
    found = cache.pod_of(UID)
    assert found is not None
    assert found.meta.uid == "new"


def test_of_two_pods_the_one_that_the_status_names_is_the_sessions() -> None:
    cache = Cache(Heard())
    cache.pods.put(pod(uid="first", version=5))
    cache.pods.put(pod(uid="second", version=999))
    found = cache.pod_of(UID)
    assert found is not None
    assert found.meta.uid == "second"
    cache.sessions.put(session(status={"podUID": "first"}))
    found = cache.pod_of(UID)
    assert found is not None
    assert found.meta.uid == "first"


def test_a_pod_whose_session_is_gone_is_still_found() -> None:
    cache = Cache(Heard())
    cache.pods.put(pod())
    assert cache.pod_of(UID) is not None


def test_a_pod_whose_label_is_rewritten_leaves_its_first_session() -> None:
    cache = Cache(Heard())
    cache.pods.put(pod(version=1))
    cache.pods.put(pod(version=2, session_uid="another"))
    assert cache.pod_of(UID) is None
    assert cache.pod_of(SessionUID("another")) is not None
