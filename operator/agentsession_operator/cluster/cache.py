"""What the operator has seen of the cluster: the newest version of each object, from watches, lists and its own writes.

A change is published to one listener (control/wakeups.py) before `put` or `remove` returns. Nothing in this module may await:
no other task may see the objects and the index of pods disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from agentsession_operator.api.objects import UID, Meta, Namespace, Pod, PodUID, Quota, Session, SessionClass, SessionUID
from agentsession_operator.cluster.thrift import Thrift


class HasMeta(Protocol):
    """An object with identity and version."""

    @property
    def meta(self) -> Meta[Any]: ...


T = TypeVar("T", bound=HasMeta)

_TOMBSTONES = 10_000


class CacheListener(Protocol):
    """Receives each change. `before` is None for a new object and `after` for a deleted one; never are both.

    Implemented by control/wakeups.py, which this layer must not import. The methods are called while the cache is being
    changed, so they neither await nor change it.
    """

    def session_changed(self, cache: Cache, before: Session | None, after: Session | None) -> None: ...
    def pod_changed(self, cache: Cache, before: Pod | None, after: Pod | None) -> None: ...
    def class_changed(self, cache: Cache, before: SessionClass | None, after: SessionClass | None) -> None: ...
    def quota_changed(self, cache: Cache, before: Quota | None, after: Quota | None) -> None: ...
    def namespace_changed(self, cache: Cache, before: Namespace | None, after: Namespace | None) -> None: ...
    def completed(self, cache: Cache) -> None:
        """All kinds have been listed for the first time."""
        ...


class Store(Generic[UID, T]):
    """Objects of one kind by UID.

    Several sources report the same object in any order. So an older version never replaces a newer one, and a deleted
    object never comes back: UIDs are not reused.
    """

    def __init__(self, changed: Callable[[T | None, T | None], None], kept: Callable[[T], T] = lambda item: item) -> None:
        """`kept` makes an object small before it is stored."""
        self._kept = kept
        self._objects: dict[UID, T] = {}
        self._deleted: dict[UID, None] = {}
        self._changed = changed

    def put(self, item: T) -> bool:
        """Store a version. False if it is not newer than the stored one."""
        uid: UID = item.meta.uid
        before = self._objects.get(uid)
        if uid in self._deleted or (before is not None and before.meta.version >= item.meta.version):
            return False
        item = self._objects[uid] = self._kept(item)
        self._changed(before, item)
        return True

    def remove(self, uid: UID) -> bool:
        """Record that the object is gone. False if it was not stored."""
        before = self._objects.pop(uid, None)
        self._deleted[uid] = None
        while len(self._deleted) > _TOMBSTONES:
            self._deleted.pop(next(iter(self._deleted)))
        if before is None:
            return False
        self._changed(before, None)
        return True

    def get(self, uid: UID) -> T | None:
        return self._objects.get(uid)

    def all(self) -> list[T]:
        return list(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)


class Cache:
    """The five kinds that decisions depend on."""

    def __init__(self, listener: CacheListener) -> None:
        self._listener = listener
        self.sessions: Store[SessionUID, Session] = Store(
            lambda *change: listener.session_changed(self, *change), Thrift().kept
        )
        self.pods: Store[PodUID, Pod] = Store(self._index_pod)
        self.classes: Store[str, SessionClass] = Store(lambda *change: listener.class_changed(self, *change))
        self.quotas: Store[str, Quota] = Store(lambda *change: listener.quota_changed(self, *change))
        self.namespaces: Store[str, Namespace] = Store(lambda *change: listener.namespace_changed(self, *change))
        self._pods_of: dict[SessionUID, dict[PodUID, Pod]] = {}
        self._doubtful: dict[PodUID, Pod] = {}
        self._complete = False

    @property
    def complete(self) -> bool:
        """Whether everything has been listed. No session may be admitted before that."""
        return self._complete

    def mark_complete(self) -> None:
        """Everything has been listed."""
        self._complete = True
        self._listener.completed(self)

    def pod_of(self, session_uid: SessionUID) -> Pod | None:
        """The session's pod: of several the one that its status names, else the newest."""
        session, pods = self.sessions.get(session_uid), self._pods_of.get(session_uid, {})
        named = session.status.pod_uid if session is not None else None
        if named is not None and (pod := pods.get(PodUID(named))) is not None:
            return pod
        return max(pods.values(), key=lambda pod: pod.meta.version, default=None)

    def pods_of(self, session_uid: SessionUID) -> list[Pod]:
        """All pods that carry the session's UID."""
        return list(self._pods_of.get(session_uid, {}).values())

    def pod_vanished(self, uid: PodUID) -> None:
        """A watch or a list has the pod no more.

        A pod with our finalizer cannot be gone before it was released: its label was removed, which a watch with a selector
        reports as a deletion, or its finalizer was taken off by somebody else. Which of the two is a doubt, to be settled by a
        read (`doubtful`); until then the pod counts as it was.
        """
        pod = self.pods.get(uid)
        if pod is not None and pod.protected:
            self._doubtful[uid] = pod
            self._listener.pod_changed(self, pod, pod)
        else:
            self.pods.remove(uid)

    def doubtful(self, session_uid: SessionUID) -> list[Pod]:
        """Pods of the session that may be gone."""
        return [pod for uid, pod in self._pods_of.get(session_uid, {}).items() if uid in self._doubtful]

    def follow(self, known: Pod, body: Mapping[str, Any]) -> None:
        """Store what a read says of a pod that is known to be ours, even if its label was removed."""
        self._doubtful.pop(known.meta.uid, None)
        self.pods.put(Pod.following(known, body))

    def classes_by_name(self) -> dict[str, SessionClass]:
        return {item.meta.name: item for item in self.classes.all()}

    def _index_pod(self, before: Pod | None, after: Pod | None) -> None:
        if before is not None:
            pods = self._pods_of[before.session_uid]
            del pods[before.meta.uid]
            if after is None:
                self._doubtful.pop(before.meta.uid, None)
            if not pods:
                del self._pods_of[before.session_uid]
        if after is not None:
            self._pods_of.setdefault(after.session_uid, {})[after.meta.uid] = after
        self._listener.pod_changed(self, before, after)
