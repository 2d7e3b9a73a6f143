"""kopf's part: it watches and reconnects; the handlers only put what they see into the cache.

There are only `on.event` handlers: kopf's finalizers, annotations, indices and daemons would cost writes on every object and
can block deletions. kopf does not report objects that were deleted while it did not watch (a 410 relist): see resync.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import kopf

from agentsession_operator import metrics
from agentsession_operator.cluster.kinds import Kind

_BACKOFFS: Final = (0.5, 1, 2, 5, 10)


class _EndlessBackoffs:
    """kopf gives up when its backoffs run out. An API server that is away for a minute is enough for that."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(_BACKOFFS, itertools.repeat(_BACKOFFS[-1]))


class _NoDiffs(kopf.DiffBaseStorage):
    """No record of what objects were before: `on.event` handlers need none.

    To compare an object with that record, kopf would copy it several times for each event: more than half of the operator's
    CPU time with 1,000 sessions.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def settings(kinds: Sequence[Kind[Any, Any]]) -> kopf.OperatorSettings:
    """kopf's settings for an operator that only watches."""
    result = kopf.OperatorSettings()
    result.peering.standalone = True
    result.posting.enabled = False
    result.persistence.diffbase_storage = _NoDiffs()
    result.networking.error_backoffs = _EndlessBackoffs()
    result.networking.connect_timeout = 10
    result.networking.request_timeout = 60
    result.watching.connect_timeout = 10
    for kind in kinds:
        if kind.selector is not None:
            result.watching.label_selectors[kind.plural] = kind.selector
    # A watch that is silent for this long is opened again, in case the connection died unnoticed.
    result.watching.server_timeout = 300
    result.watching.client_timeout = 330
    return result


def registry(kinds: Sequence[Kind[Any, Any]], kubeconfig: str | None) -> kopf.OperatorRegistry:
    """The handlers that keep the stores of these kinds up to date."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if kubeconfig is None and (found := kopf.login_with_service_account(**kwargs)):
            return found
        return kopf.login_with_kubeconfig(**kwargs)

    for kind in kinds:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=handlers)(_handler(kind))
    return handlers


def _handler(kind: Kind[Any, Any]) -> Callable[..., Any]:
    async def handler(event: Mapping[str, Any], **_: Any) -> None:
        metrics.WATCH_EVENTS.labels(kind.plural).inc()
        kind.take(event["type"], event["object"])

    handler.__name__ = f"see_{kind.plural}"
    return handler
