"""The kinds that the operator follows, in one table: the watches (watch.py) and the relist (resync.py) both go through it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic

from agentsession_operator import metrics
from agentsession_operator.api.meta import CLASSES, GROUP, QUOTAS, SESSION_UID_LABEL, SESSIONS, VERSION
from agentsession_operator.api.objects import UID, Namespace, Pod, Quota, Session, SessionClass, UnreadableObject, is_ours
from agentsession_operator.cluster.cache import Cache, Store, T
from agentsession_operator.cluster.kube import core_path, path_of

log = logging.getLogger(__name__)

_ERRORS_KEPT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Kind(Generic[UID, T]):
    """One kind: where it is listed and watched, how its JSON is read, and where it is kept."""

    group: str
    version: str
    plural: str
    path: str
    """Of the collection, in all namespaces."""
    selector: str | None
    """The label that an object must carry, or None."""
    read: Callable[[Mapping[str, Any]], T]
    """Raises UnreadableObject."""
    store: Store[UID, T]
    gone: Callable[[UID], object]
    """What an object that is not there any more means: out of the store, or a doubt."""
    errors: dict[str, str] = field(default_factory=dict)
    """By UID, what was wrong with an object that could not be read the last time: each is logged once."""

    @property
    def query(self) -> dict[str, str]:
        """The query of a list."""
        return {} if self.selector is None else {"labelSelector": self.selector}

    def take(self, event: str | None, body: Mapping[str, Any]) -> None:
        """Store what a watch event says; `event` is None for an object of a list.

        An object that cannot be read concerns itself alone: it is logged and left out.
        """
        uid: UID = body["metadata"]["uid"]
        if event == "DELETED":
            self.errors.pop(uid, None)
            self.gone(uid)
            return
        try:
            item = self.read(body)
        except UnreadableObject as error:
            self._ignore(uid, body, str(error))
        else:
            self.errors.pop(uid, None)
            self.store.put(item)

    def _ignore(self, uid: UID, body: Mapping[str, Any], error: str) -> None:
        if self.errors.get(uid) == error:
            return
        while len(self.errors) >= _ERRORS_KEPT:
            self.errors.pop(next(iter(self.errors)))
        self.errors[uid] = error
        metrics.UNREADABLE.labels(self.plural).inc()
        meta = body["metadata"]
        log.error("ignoring %s %s/%s: %s", self.plural, meta.get("namespace", ""), meta.get("name", ""), error)


class Comparison(Generic[UID, T]):
    """A list of a kind, page by page, beside the store.

    Of each page only what the store lacks is kept: whole lists would be several times as large as all that the operator knows.
    An object that the store knows in a version newer than the list was created after it, and stays.
    """

    def __init__(self, kind: Kind[UID, T]) -> None:
        self.kind = kind
        self._uids: set[UID] = set()
        self._version = 0
        self._news: list[Mapping[str, Any]] = []

    def see(self, page: Mapping[str, Any]) -> None:
        """Take a page in. All pages of a list are of one resourceVersion."""
        self._version = int(page["metadata"]["resourceVersion"])
        for body in page["items"]:
            self._uids.add(body["metadata"]["uid"])
            if self._is_news(body):
                self._news.append(body)

    def take(self) -> int:
        """Store what the pages had that the store still lacks. Returns the number of objects."""
        taken = 0
        for body in self._news:
            if self._is_news(body):
                before = self.kind.store.get(body["metadata"]["uid"])
                self.kind.take(None, body)
                taken += self.kind.store.get(body["metadata"]["uid"]) is not before
        self._news.clear()
        return taken

    def finish(self) -> int:
        """After the last page: also drop what the list does not have. Returns the number of objects that were missing, stale
        or left over."""
        corrected = self.take()
        for item in self.kind.store.all():
            if item.meta.uid not in self._uids and item.meta.version <= self._version:
                self.kind.gone(item.meta.uid)
                corrected += 1
        return corrected

    def _is_news(self, body: Mapping[str, Any]) -> bool:
        known = self.kind.store.get(body["metadata"]["uid"])
        return known is None or known.meta.version < int(body["metadata"]["resourceVersion"])


def followed(cache: Cache, key: bytes) -> tuple[Kind[Any, Any], ...]:
    """The table. Quotas come first, and the namespaces that they select: a session must not be counted under caps that are not
    known yet.

    `key` tells our pods from forged ones.
    """

    def session_pod(body: Mapping[str, Any]) -> Pod:
        known = cache.pods.get(body["metadata"]["uid"])
        if known is not None:
            return Pod.following(known, body)
        pod = Pod.of(body)
        if not is_ours(pod, key):
            metrics.FORGED_PODS.inc()
            raise UnreadableObject("the operator did not create this pod, although it carries the label of a session's pod")
        return pod

    quotas, namespaces, classes = cache.quotas, cache.namespaces, cache.classes
    sessions, pods = cache.sessions, cache.pods
    return (
        Kind(GROUP, VERSION, QUOTAS, path_of(QUOTAS), None, Quota.of, quotas, quotas.remove),
        Kind("", "v1", "namespaces", core_path("namespaces"), None, Namespace.of, namespaces, namespaces.remove),
        Kind(GROUP, VERSION, CLASSES, path_of(CLASSES), None, SessionClass.of, classes, classes.remove),
        Kind(GROUP, VERSION, SESSIONS, path_of(SESSIONS), None, Session.of, sessions, sessions.remove),
        Kind("", "v1", "pods", core_path("pods"), SESSION_UID_LABEL, session_pod, pods, cache.pod_vanished),
    )
