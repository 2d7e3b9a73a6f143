"""The operator, assembled: what runs, in which order it starts, and what its health consists of.

A change takes this path: watch.py -> kinds.py -> cache.py -> wakeups.py -> workqueue.py -> reconciler.py, and from wakeups.py
to admitter.py if it concerns a slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import kopf

from agentsession_operator.api.objects import SessionUID
from agentsession_operator.cluster import token_key, watch
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kinds import followed
from agentsession_operator.cluster.kube import ApiError, Connection, KubeApi
from agentsession_operator.cluster.lease import Lease
from agentsession_operator.cluster.resync import Resync
from agentsession_operator.control.admitter import Admitter
from agentsession_operator.control.quota_status import QuotaStatus
from agentsession_operator.control.reconciler import Reconciler
from agentsession_operator.control.session_objects import SessionObjects
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.manifests.pod import Installation
from agentsession_operator.reports.desk import ReportDesk, ReportStore
from agentsession_operator.reports.http import HttpServer, make_app
from agentsession_operator.reports.verifier import TokenVerifier

WORKERS: Final = 16
STOP_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class PartDied(Exception):
    """A part ended that must run as long as the operator does."""


@dataclass(frozen=True, slots=True)
class Options:
    """The operator's settings."""

    namespace: str
    """The operator's own: it holds the lease and the token key."""
    identity: str
    runtime_image: str
    image_pull_policy: str
    report_url: str
    kubeconfig: str | None
    http_host: str
    http_port: int


class Operator:
    """One process. `run` returns when the process is asked to stop, and raises when a part has ended."""

    def __init__(self, options: Options, connection: Connection) -> None:
        self._options, self._connection = options, connection
        self._lease = Lease(connection, options.namespace, options.identity)
        self._api = KubeApi(connection, may_write=self._lease.check)
        self._queue: WorkQueue[SessionUID] = WorkQueue()
        self._wakeups = Wakeups(self._queue)
        self._cache = Cache(self._wakeups)
        self._reports = ReportStore(self._wakeups)
        self._resync = Resync(self._api, self._cache)
        self._dead: str | None = None
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises PartDied if a part ends before that."""
        self._take_signals()
        desk = ReportDesk(self._cache, self._reports, TokenVerifier(self._api))
        server = HttpServer(
            make_app(desk, healthy=self.health, ready=self.readiness), self._options.http_host, self._options.http_port
        )
        async with contextlib.AsyncExitStack() as cleanup:
            cleanup.push_async_callback(self._connection.close)
            serving, leading = _part("http server", server.serve()), _part("operator", self._lead())
            parts = [serving, leading]
            cleanup.push_async_callback(_end, [leading])
            cleanup.push_async_callback(server.stop, serving)
            stopping = asyncio.create_task(self._stop.wait())
            cleanup.push_async_callback(_end, [stopping])
            done, _ = await asyncio.wait([*parts, stopping], return_when=asyncio.FIRST_COMPLETED)
            self._report_deaths([part for part in done if part is not stopping])
        log.info("stopped")

    async def _lead(self) -> None:
        """What one operator at a time may do."""
        await self._lease.acquire()
        try:
            keeping = _part("lease", self._lease.keep())
            parts = [keeping]
            try:
                parts += self._start(await self._prepare(keeping))
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                self._report_deaths(list(done))
            finally:
                await _end(parts)
        finally:
            await self._lease.release()

    async def _prepare(self, keeping: asyncio.Task[None]) -> bytes:
        """Read what must be known before the first decision, for as long as it takes, while the lease is kept: the objects, and
        the token key, which is returned."""
        key: bytes | None = None
        while key is None:
            try:
                key = await token_key.read_or_create(self._api, self._options.namespace)
            except ApiError as error:
                log.warning("cannot read the token key, trying again: %s", error)
                await asyncio.sleep(1.0)
        first = _part("first lists", self._resync.first())
        done, _ = await asyncio.wait([first, keeping], return_when=asyncio.FIRST_COMPLETED)
        self._report_deaths([part for part in done if part is keeping])
        await first
        return key

    def _start(self, key: bytes) -> list[asyncio.Task[Any]]:
        options = self._options
        installation = Installation(options.runtime_image, options.image_pull_policy, options.report_url, key)
        objects = SessionObjects(self._api, self._cache, installation)
        admitter = Admitter(self._api, self._cache, objects, self._queue, self._wakeups)
        reconciler = Reconciler(self._api, self._cache, self._queue, admitter, objects, self._reports)
        return [
            _part("watches", self._watch()),
            _part("relist", self._resync.run()),
            _part("admission", admitter.run()),
            _part("quota status", QuotaStatus(self._api, self._cache, admitter).run()),
            *(_part(f"worker {number}", reconciler.work()) for number in range(WORKERS)),
        ]

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    async def _watch(self) -> None:
        # kopf handles the signals itself once it has started, and then waits 5 s for every task, ours too. So the handlers are
        # set again, and kopf is stopped like the other parts.
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        started.add_done_callback(lambda _: self._take_signals())
        kinds = followed(self._cache)
        await kopf.operator(
            registry=watch.registry(kinds, self._options.kubeconfig),
            settings=watch.settings(kinds),
            standalone=True,
            clusterwide=True,
            ready_flag=started,
        )

    def _report_deaths(self, parts: list[asyncio.Task[Any]]) -> None:
        for part in parts:
            if part.cancelled() or self._stop.is_set():
                continue
            error = part.exception()
            if isinstance(error, PartDied):
                raise error  # a part of this part, and logged already
            self._dead = f"{part.get_name()} has ended: {error!r}"
            log.critical("%s; the process exits, and the kubelet starts it again", self._dead)
            raise PartDied(self._dead) from error

    def health(self) -> str | None:
        """Liveness: a part that has ended, or a cache that no list has confirmed for minutes."""
        return self._dead or (self._resync.health() if self._cache.complete else None)

    def readiness(self) -> str | None:
        """Readiness: leading, with a complete cache and no part that has ended."""
        if not self._cache.complete:
            return "waiting for the lease or for the first lists"
        try:
            self._lease.check()
        except Exception as error:
            return str(error)
        return self.health()


def _part(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name=name)


async def _end(parts: list[asyncio.Task[Any]]) -> None:
    """Cancel, and wait at most STOP_SECONDS."""
    for part in parts:
        part.cancel()
    await asyncio.wait(parts, timeout=STOP_SECONDS)
