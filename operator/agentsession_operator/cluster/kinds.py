"""The kinds that the operator follows, in one table: the watches (watch.py) and the relist (resync.py) both go through it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from agentsession_operator.api.meta import CLASSES, GROUP, QUOTAS, SESSION_UID_LABEL, SESSIONS, VERSION
from agentsession_operator.api.objects import UID, Pod, Quota, Session, SessionClass, UnreadableObject
from agentsession_operator.cluster.cache import Cache, Store, T
from agentsession_operator.cluster.kube import core_path, path_of

log = logging.getLogger(__name__)


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

    @property
    def query(self) -> dict[str, str]:
        """The query of a list."""
        return {} if self.selector is None else {"labelSelector": self.selector}

    def take(self, event: str | None, body: Mapping[str, Any]) -> None:
        """Store what a watch event says; `event` is None for an object of a list.

        An object that cannot be read is logged and left out.
        """
        if event == "DELETED":
            self.store.remove(body["metadata"]["uid"])
            return
        try:
            self.store.put(self.read(body))
        except UnreadableObject as error:
            meta = body["metadata"]
            log.error("ignoring %s %s/%s: %s", self.plural, meta.get("namespace", ""), meta["name"], error)

    def correct(self, listed: Mapping[str, Any]) -> int:
        """Bring the store up to a list. Returns the number of objects that were missing, stale or left over.

        An object that the store knows in a version newer than the list was created after it, and stays.
        """
        version = int(listed["metadata"]["resourceVersion"])
        uids = {body["metadata"]["uid"] for body in listed["items"]}
        corrected = 0
        for body in listed["items"]:
            known = self.store.get(body["metadata"]["uid"])
            if known is None or known.meta.version < int(body["metadata"]["resourceVersion"]):
                self.take(None, body)
                corrected += self.store.get(body["metadata"]["uid"]) is not known
        for item in self.store.all():
            if item.meta.uid not in uids and item.meta.version <= version:
                corrected += self.store.remove(item.meta.uid)
        return corrected


def followed(cache: Cache) -> tuple[Kind[Any, Any], ...]:
    """The table. Quotas come first: a session must not be counted under caps that are not known yet."""
    return (
        Kind(GROUP, VERSION, QUOTAS, path_of(QUOTAS), None, Quota.of, cache.quotas),
        Kind(GROUP, VERSION, CLASSES, path_of(CLASSES), None, SessionClass.of, cache.classes),
        Kind(GROUP, VERSION, SESSIONS, path_of(SESSIONS), None, Session.of, cache.sessions),
        Kind("", "v1", "pods", core_path("pods"), SESSION_UID_LABEL, Pod.of, cache.pods),
    )
