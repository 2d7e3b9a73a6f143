"""kopf's part: it watches and reconnects; the handlers put what they see into the cache, and nothing else.

Only `on.event` handlers: kopf's finalizers, annotations, indices and daemons would cost writes on every object and can wedge
deletions. kopf does not say which objects vanished while it was not looking (a 410 relist): see resync.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import kopf

from agentsession_operator import metrics
from agentsession_operator.api.meta import CLASSES, GROUP, QUOTAS, SESSION_UID_LABEL, SESSIONS, VERSION
from agentsession_operator.api.objects import Pod, Quota, Session, SessionClass, UnreadableObject
from agentsession_operator.cluster.cache import Cache, Store

log = logging.getLogger(__name__)

_BACKOFFS: Final = (0.5, 1, 2, 5, 10)


class _EndlessBackoffs:
    """kopf stops for good when its backoffs run out, which an API server away for a minute is enough for."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(_BACKOFFS, itertools.repeat(_BACKOFFS[-1]))


class _NoDiffs(kopf.DiffBaseStorage):
    """No record of what objects were before: `on.event` handlers need none.

    kopf would copy each object several times for every event to compare it with that record: more than half of the operator's
    CPU time with 1,000 sessions.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def settings() -> kopf.OperatorSettings:
    """kopf's settings for an operator that only watches."""
    result = kopf.OperatorSettings()
    result.peering.standalone = True
    result.posting.enabled = False
    result.persistence.diffbase_storage = _NoDiffs()
    result.networking.error_backoffs = _EndlessBackoffs()
    result.networking.connect_timeout = 10
    result.networking.request_timeout = 60
    result.watching.connect_timeout = 10
    result.watching.label_selectors["pods"] = SESSION_UID_LABEL
    # A watch that is silent for so long is opened again, in case the connection died without a word.
    result.watching.server_timeout = 300
    result.watching.client_timeout = 330
    return result


def registry(cache: Cache, kubeconfig: str | None) -> kopf.OperatorRegistry:
    """The handlers that feed the cache."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if kubeconfig is None and (found := kopf.login_with_service_account(**kwargs)):
            return found
        return kopf.login_with_kubeconfig(**kwargs)

    def feed(store: Store[Any], read: Callable[[Mapping[str, Any]], Any], resource: str) -> Callable[..., Any]:
        async def handler(event: Mapping[str, Any], **_: Any) -> None:
            metrics.WATCH_EVENTS.labels(resource).inc()
            take(store, read, event["type"], event["object"])

        handler.__name__ = f"see_{resource}"
        return handler

    def watch(plural: str, store: Store[Any], read: Callable[[Mapping[str, Any]], Any]) -> None:
        kopf.on.event(GROUP, VERSION, plural, registry=handlers)(feed(store, read, plural))

    watch(QUOTAS, cache.quotas, Quota.of)
    watch(CLASSES, cache.classes, SessionClass.of)
    watch(SESSIONS, cache.sessions, Session.of)
    kopf.on.event("", "v1", "pods", registry=handlers)(feed(cache.pods, Pod.of, "pods"))
    return handlers


def take(store: Store[Any], read: Callable[[Mapping[str, Any]], Any], kind: str | None, body: Mapping[str, Any]) -> None:
    """Put one event into a store. An object that cannot be read is reported and left out."""
    if kind == "DELETED":
        store.remove(body["metadata"]["uid"])
        return
    try:
        store.put(read(body))
    except UnreadableObject as error:
        meta = body["metadata"]
        log.error("%s/%s is left alone: %s", meta.get("namespace", ""), meta["name"], error)
