"""What the operator has seen of the cluster: the newest version of every object, from watches, lists and its own writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from agentsession_operator.api.objects import Meta, Pod, Quota, Session, SessionClass


class HasMeta(Protocol):
    """An object with identity and version."""

    @property
    def meta(self) -> Meta[Any]: ...


T = TypeVar("T", bound=HasMeta)

_TOMBSTONES = 10_000


class Store(Generic[T]):
    """Objects of one kind by UID.

    Several sources tell of the same object in any order, so an older version never replaces a newer one, and a deleted
    object never comes back: UIDs are not used twice.
    """

    def __init__(self, changed: Callable[[T | None, T | None], None]) -> None:
        self._objects: dict[str, T] = {}
        self._deleted: dict[str, None] = {}
        self._changed = changed

    def put(self, item: T) -> bool:
        """Take a version in; False where it is not news."""
        uid = item.meta.uid
        before = self._objects.get(uid)
        if uid in self._deleted or (before is not None and before.meta.version >= item.meta.version):
            return False
        self._objects[uid] = item
        self._changed(before, item)
        return True

    def remove(self, uid: str) -> bool:
        """The object is gone; False where that is not news."""
        before = self._objects.pop(uid, None)
        self._deleted[uid] = None
        while len(self._deleted) > _TOMBSTONES:
            self._deleted.pop(next(iter(self._deleted)))
        if before is None:
            return False
        self._changed(before, None)
        return True

    def get(self, uid: str) -> T | None:
        return self._objects.get(uid)

    def all(self) -> list[T]:
        return list(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)


class Cache:
    """The four kinds that decisions depend on, and who is told when they change."""

    def __init__(
        self,
        *,
        session_changed: Callable[[str], None],
        slots_changed: Callable[[], None],
        settings_changed: Callable[[], None],
    ) -> None:
        """`session_changed` gets the UID of a session of which something changed, its pod included; `slots_changed` says
        that somebody may have come for a slot or left one; `settings_changed` that a class or a quota is another."""
        self._session_changed, self._slots_changed = session_changed, slots_changed
        self.sessions: Store[Session] = Store(self._on_session)
        self.pods: Store[Pod] = Store(self._on_pod)
        self.classes: Store[SessionClass] = Store(lambda _before, _after: settings_changed())
        self.quotas: Store[Quota] = Store(self._on_quota)
        self._settings_changed = settings_changed
        self._pods_of: dict[str, dict[str, Pod]] = {}
        self.complete = False
        """Set once everything has been listed: before that, nobody may be admitted."""

    def pod_of(self, session_uid: str) -> Pod | None:
        """The session's pod: of several the youngest, and none of another namespace, where anybody may have forged it."""
        session = self.sessions.get(session_uid)
        pods = self._pods_of.get(session_uid, {}).values()
        own = (pod for pod in pods if session is None or pod.meta.namespace == session.meta.namespace)
        return max(own, key=lambda pod: pod.meta.version, default=None)

    def pods_of(self, session_uid: str) -> list[Pod]:
        """All pods that carry the session's UID."""
        return list(self._pods_of.get(session_uid, {}).values())

    def classes_by_name(self) -> dict[str, SessionClass]:
        return {item.meta.name: item for item in self.classes.all()}

    def _on_session(self, before: Session | None, after: Session | None) -> None:
        known = after or before
        assert known is not None  # noqa: S101 - a change has a before or an after
        self._session_changed(known.meta.uid)
        if before is None or after is None or _claim_on_a_slot(before) != _claim_on_a_slot(after):
            self._slots_changed()

    def _on_pod(self, before: Pod | None, after: Pod | None) -> None:
        if before is not None:
            pods = self._pods_of[before.session_uid]
            del pods[before.meta.uid]
            if not pods:
                del self._pods_of[before.session_uid]
        if after is not None:
            self._pods_of.setdefault(after.session_uid, {})[after.meta.uid] = after
        for uid in {pod.session_uid for pod in (before, after) if pod is not None}:
            self._session_changed(uid)
        if after is None or after.ended:
            self._slots_changed()

    def _on_quota(self, before: Quota | None, after: Quota | None) -> None:
        if before is None or after is None or before.spec != after.spec:
            self._settings_changed()


def _claim_on_a_slot(session: Session) -> tuple[bool, bool, bool]:
    return session.admitted, session.finished, session.spec.suspend
