"""kopf's part: it watches and reconnects; the handlers only put what they see into the cache.

There are only `on.event` handlers: kopf's finalizers, annotations, indices and daemons would cost writes on every object and
can block deletions. kopf does not report objects that were deleted while it did not watch (a 410 relist): see resync.py.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import kopf

from agentsession_operator import metrics
from agentsession_operator.cluster.kinds import Kind
from agentsession_operator.cluster.kube import PAGE

_BACKOFFS: Final = (0.5, 1, 2, 5, 10)
_STOP_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


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
    # Otherwise kopf kills the whole process 10 minutes after its tasks were cancelled, as they are when it is started again.
    result.process.ultimate_exiting_timeout = None
    result.persistence.diffbase_storage = _NoDiffs()
    result.networking.error_backoffs = _EndlessBackoffs()
    result.networking.connect_timeout = 10
    result.networking.request_timeout = 60
    result.watching.connect_timeout = 10
    for kind in kinds:
        if kind.selector is not None:
            result.watching.label_selectors[kind.plural] = kind.selector
    # kopf lists before it watches: a page at a time, or all objects are in memory at once.
    result.watching.chunk_size = PAGE
    # kopf has a task for each object that had an event, which ends when it is idle for this long (in seconds).
    result.queueing.idle_timeout = 0.5
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


async def run(kinds: Sequence[Kind[Any, Any]], kubeconfig: str | None, started: Callable[[], None]) -> None:
    """Watch until an error that kopf does not get over; raises it. May be called again afterwards.

    kopf gets over lost connections, over 403, 429 and 5xx where it opens a watch, and over a 410 in one. Any other ERROR event
    in a watch, and a 404 or 410 where one is opened, end all of its watches (kopf/_cogs/clients/watching.py,
    `continuous_watch`).

    `started` is called when kopf has taken over SIGTERM and SIGINT, which belong to the process.
    """
    before = asyncio.all_tasks()
    # Not `kopf.operator`: when it ends, it cancels every task of the event loop that is younger than itself, as the operator's
    # requests and the creations of a pass are.
    roots = await kopf.spawn_tasks(
        registry=registry(kinds, kubeconfig), settings=settings(kinds), standalone=True, clusterwide=True
    )
    started()
    done: set[asyncio.Task[Any]] = set()
    try:
        done, _ = await asyncio.wait(roots, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _stop(roots, before)
    for task in done:
        task.result()


async def _stop(roots: Collection[asyncio.Task[Any]], before: set[asyncio.Task[Any]]) -> None:
    """End kopf's tasks, and those of the watches that a failed orchestrator leaves behind."""
    watches = {task for task in asyncio.all_tasks() - before if task.get_name().startswith("watcher for ")}
    tasks = {*roots, *watches}
    for task in tasks:
        task.cancel()
    _, left = await asyncio.wait(tasks, timeout=_STOP_SECONDS)
    if left:
        log.warning("tasks of the watches do not end: %s", ", ".join(sorted(task.get_name() for task in left)))
