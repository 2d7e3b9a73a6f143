"""The operator put together: what runs, in which order it starts, and what its health is made of."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import kopf

from agentsession_operator.cluster import token_key as tokenkey
from agentsession_operator.cluster import watch
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi
from agentsession_operator.cluster.lease import Lease
from agentsession_operator.cluster.resync import Resync
from agentsession_operator.control.admitter import Admitter
from agentsession_operator.control.quota_status import QuotaStatus
from agentsession_operator.control.reconciler import Reconciler
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.manifests.pod import Installation
from agentsession_operator.reports.desk import ReportDesk, ReportStore, TokenVerifier
from agentsession_operator.reports.http import HttpServer, make_app

WORKERS: Final = 16
STOP_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class PartDied(Exception):
    """A part that must run as long as the operator does has ended."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator is started with."""

    namespace: str
    """Its own: the lease and the token key live there."""
    identity: str
    runtime_image: str
    image_pull_policy: str
    report_url: str
    kubeconfig: str | None
    http_host: str
    http_port: int


class Operator:
    """One process. `run` returns when it was asked to stop, and raises when a part of it died."""

    def __init__(self, options: Options, api: KubeApi) -> None:
        self._options, self._api = options, api
        self._queue = WorkQueue()
        self._cache = Cache(session_changed=self._queue.add, slots_changed=self._wake, settings_changed=self._settings_changed)
        self._admitter = Admitter(api, self._cache, self._queue.add)
        self._reports = ReportStore(self._queue.add)
        self._lease = Lease(api, options.namespace, options.identity)
        self._resync = Resync(api, self._cache, self._settings_changed)
        self._token_key: bytes | None = None
        self._dead: str | None = None
        self._stop = asyncio.Event()
        api.may_write = self._lease.check

    def _wake(self) -> None:
        self._admitter.wake()

    def _settings_changed(self) -> None:
        """A class or a quota is another: whoever has no pod yet may fare differently now."""
        if not self._cache.complete:
            return
        for session in self._cache.sessions.all():
            if not session.finished and self._cache.pod_of(session.meta.uid) is None:
                self._queue.add(session.meta.uid)
        self._wake()

    def _installation(self) -> Installation:
        assert self._token_key is not None  # noqa: S101 - read before the workers start
        options = self._options
        return Installation(options.runtime_image, options.image_pull_policy, options.report_url, self._token_key)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises what the first part that died raised."""
        self._take_signals()
        desk = ReportDesk(self._cache, self._reports, TokenVerifier(self._api))
        server = HttpServer(
            make_app(desk, healthy=self.health, ready=self.readiness), self._options.http_host, self._options.http_port
        )
        async with contextlib.AsyncExitStack() as cleanup:
            cleanup.push_async_callback(self._api.close)
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
        """What only one operator at a time may do."""
        await self._lease.acquire()
        try:
            keeping = _part("lease", self._lease.keep())
            parts = [keeping]
            try:
                await self._prepare(keeping)
                parts += self._start()
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                self._report_deaths(list(done))
            finally:
                await _end(parts)
        finally:
            await self._lease.release()

    async def _prepare(self, keeping: asyncio.Task[None]) -> None:
        """Read what must be known before the first decision, for as long as it takes, while the lease is kept."""
        while self._token_key is None:
            try:
                self._token_key = await tokenkey.read_or_create(self._api, self._options.namespace)
            except ApiError as error:
                log.warning("the token key cannot be read yet: %s", error)
                await asyncio.sleep(1.0)
        first = _part("first lists", self._resync.first())
        done, _ = await asyncio.wait([first, keeping], return_when=asyncio.FIRST_COMPLETED)
        self._report_deaths([part for part in done if part is keeping])
        await first

    def _start(self) -> list[asyncio.Task[Any]]:
        reconciler = Reconciler(self._api, self._cache, self._queue, self._admitter, self._reports, self._installation)
        return [
            _part("watches", self._watch()),
            _part("relist", self._resync.run()),
            _part("admission", self._admitter.run()),
            _part("quota status", QuotaStatus(self._api, self._cache, self._admitter).run()),
            *(_part(f"worker {number}", reconciler.work()) for number in range(WORKERS)),
        ]

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    async def _watch(self) -> None:
        # kopf takes the signals for itself when it starts, and at one waits 5 s for every task there is, ours too. So they are
        # taken back, and kopf is ended as the other parts are.
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        started.add_done_callback(lambda _: self._take_signals())
        await kopf.operator(
            registry=watch.registry(self._cache, self._options.kubeconfig),
            settings=watch.settings(),
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
                raise error  # a part of this part, and told already
            self._dead = f"{part.get_name()} has ended: {error!r}"
            log.critical("%s; the process ends, to be started anew", self._dead)
            raise PartDied(self._dead) from error

    def health(self) -> str | None:
        """Liveness: a dead part, or caches that have not been confirmed for minutes."""
        return self._dead or (self._resync.health() if self._cache.complete else None)

    def readiness(self) -> str | None:
        """Readiness: leading, with complete caches and nothing dead."""
        if not self._cache.complete:
            return "waiting for the lease, or for the first lists"
        try:
            self._lease.check()
        except Exception as error:
            return str(error)
        return self.health()


def _part(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name=name)


async def _end(parts: list[asyncio.Task[Any]]) -> None:
    """Cancel, and wait, but not for ever."""
    for part in parts:
        part.cancel()
    await asyncio.wait(parts, timeout=STOP_SECONDS)
