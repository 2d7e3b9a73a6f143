"""The operator, assembled: what runs, in which order it starts, and what its health consists of.

A change takes this path: watch.py -> kinds.py -> cache.py -> wakeups.py -> workqueue.py -> reconciler.py, and from wakeups.py
to admitter.py if it concerns a slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agentsession_operator.api.objects import SessionUID
from agentsession_operator.cluster import token_key, watch
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kinds import Kind, followed
from agentsession_operator.cluster.kube import ApiError, Connection, KubeApi
from agentsession_operator.cluster.lease import Lease, NotLeader
from agentsession_operator.cluster.resync import Resync
from agentsession_operator.control.admitter import Admitter
from agentsession_operator.control.books import Books
from agentsession_operator.control.paces import Paces
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
WATCH_STABLE_SECONDS: Final = 60.0
"""Watches that have lasted this long were up: the next end is the first of a new row."""
LONGEST_WATCH_BACKOFF: Final = 10.0
WATCH_DOWN_SECONDS: Final = 300.0
"""Watches that end again and again for this long make the operator unhealthy: a new process may fare better."""

T = TypeVar("T")
Kinds = Sequence[Kind[Any, Any]]

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


class WatchHealth:
    """How often the watches have ended in a row, and since when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds and only goes forward."""
        self._clock = clock
        self._failures = 0
        self._since = 0.0
        """When the watches of this row began for the first time."""
        self._began: float | None = None
        """When those that run now began."""

    def began(self) -> None:
        """The watches start."""
        self._began = self._clock()
        if self._failures == 0:
            self._since = self._began

    def ended(self) -> float:
        """The watches ended. Returns the seconds to wait before they start again."""
        if self._stable():
            self._failures, self._since = 0, self._clock()
        self._began = None
        self._failures += 1
        return min(LONGEST_WATCH_BACKOFF, 0.5 * 2.0 ** min(self._failures - 1, 8))

    def health(self) -> str | None:
        """What is wrong, or None: the watches have not stayed up for minutes."""
        down = self._clock() - self._since
        if self._failures == 0 or self._stable() or down <= WATCH_DOWN_SECONDS:
            return None
        return f"the watches have ended {self._failures} times in the last {down:.0f} s"

    def _stable(self) -> bool:
        return self._began is not None and self._clock() - self._began > WATCH_STABLE_SECONDS


class Operator:
    """One process. `run` returns when the process is asked to stop, and raises when a part has ended."""

    def __init__(self, options: Options, connection: Connection) -> None:
        self._options, self._connection = options, connection
        self._lease = Lease(connection, options.namespace, options.identity)
        self._api = KubeApi(connection, may_write=self._lease.check)
        self._queue: WorkQueue[SessionUID] = WorkQueue()
        self._wakeups = Wakeups(self._queue)
        self._cache = Cache(self._wakeups)
        self._paces = Paces()
        self._reports = ReportStore(self._wakeups)
        self._resync: Resync | None = None
        self._watches = WatchHealth()
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
        objects: SessionObjects | None = None
        try:
            keeping = _part("lease", self._lease.keep())
            parts = [keeping]
            try:
                key = await self._while_kept(keeping, self._read_key())
                kinds = followed(self._cache, key)
                self._resync = resync = Resync(self._api, self._cache, kinds)
                await self._while_kept(keeping, resync.first())
                objects = self._session_objects(key)
                parts += self._start(kinds, resync, objects)
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                self._report_deaths(list(done))
            finally:
                await _end(parts)
        finally:
            await self._step_down(objects)

    async def _step_down(self, objects: SessionObjects | None) -> None:
        """Give the lease up; but not while a creation may still land, which the next leader could not know of."""
        if objects is not None:
            await objects.drain()
        if objects is not None and objects.in_doubt:
            self._lease.abandon()
            log.warning("the outcome of a pod creation is not known: the lease is left to expire")
        else:
            await self._lease.release()

    async def _while_kept(self, keeping: asyncio.Task[None], work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, for as long as it takes, while the lease is kept."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait([task, keeping], return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                self._report_deaths([keeping])
            return await task
        finally:
            task.cancel()

    async def _read_key(self) -> bytes:
        while True:
            try:
                return await token_key.read_or_create(self._api, self._options.namespace)
            except (ApiError, NotLeader) as error:
                log.warning("cannot read the token key, trying again: %s", error)
                await asyncio.sleep(1.0)

    def _session_objects(self, key: bytes) -> SessionObjects:
        options = self._options
        installation = Installation(options.runtime_image, options.image_pull_policy, options.report_url, key)
        return SessionObjects(self._api, self._cache, self._paces, installation)

    def _start(self, kinds: Kinds, resync: Resync, objects: SessionObjects) -> list[asyncio.Task[Any]]:
        books = Books(self._cache, objects, self._reports, self._wakeups)
        admitter = Admitter(self._cache, objects, self._queue, self._wakeups, books)
        reconciler = Reconciler(self._api, self._cache, self._queue, books, objects, self._reports, self._paces)
        return [
            _part("watches", self._watch(kinds, resync, admitter)),
            _part("relist", resync.run(admitter.trust_the_watches)),
            _part("admission", self._admit(resync, admitter)),
            _part("quota status", QuotaStatus(self._api, self._cache, books).run()),
            *(_part(f"worker {number}", reconciler.work()) for number in range(WORKERS)),
        ]

    async def _admit(self, resync: Resync, admitter: Admitter) -> None:
        """Admit, once every write of the previous leader has landed and been counted."""
        if await self._lease.wait_until_quiet():
            await resync.fresh()
        await admitter.run()

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    async def _watch(self, kinds: Kinds, resync: Resync, admitter: Admitter) -> None:
        """Keep the watches up. What is deleted while they are down goes unseen until the next list."""

        def started() -> None:
            self._take_signals()
            resync.watches_started()

        while True:
            self._watches.began()
            error: Exception | None = None
            try:
                await watch.run(kinds, self._options.kubeconfig, started)
            except Exception as raised:
                error = raised
            wait = self._watches.ended()
            admitter.distrust_the_watches()
            resync.watches_ended()
            log.warning("the watches ended (%r); they start again in %.1f s", error, wait)
            await asyncio.sleep(wait)

    def _report_deaths(self, parts: list[asyncio.Task[Any]]) -> None:
        for part in parts:
            if self._stop.is_set():
                continue
            error = part.exception() if not part.cancelled() else None
            if isinstance(error, PartDied):
                raise error  # a part of this part, and logged already
            self._dead = f"{part.get_name()} has ended: {error!r}"
            log.critical("%s; the process exits, and the kubelet starts it again", self._dead)
            raise PartDied(self._dead) from error

    def health(self) -> str | None:
        """Liveness: a part that has ended, or a cache that no list has confirmed for minutes."""
        if self._dead is not None or self._resync is None or not self._cache.complete:
            return self._dead
        return self._resync.health() or self._watches.health()

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
