"""The runtime's process: opens the session, serves it, and ends it properly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.redaction import Redactor
from session_runtime.agent_assembly import OpenModel, litellm_model, opener
from session_runtime.credentials import credentials, secret_values
from session_runtime.http.app import create_app
from session_runtime.http.server import cut_connections, http_server
from session_runtime.http.waiting import answering
from session_runtime.reporting import report
from session_runtime.reporting.console import Console
from session_runtime.reporting.metrics import Metrics
from session_runtime.reporting.reporter import Reporter, sender
from session_runtime.session.facts import Facts
from session_runtime.session.journal import FULL_SECONDS, Change, Journal
from session_runtime.session.session import Session
from session_runtime.session.store import Loaded, Store
from session_runtime.session.store_errors import VolumeFullError
from session_runtime.supervisor import Supervisor
from session_runtime.wire import SessionConfig
from session_runtime.workspace.client import SocketWorkspace

logger = logging.getLogger(__name__)

FINISHED: Final = 0
FAILED: Final = 1
STOPPED: Final = 128 + signal.SIGTERM
"""Exit status of a session that was stopped and has not finished; the kubelet restarts the container."""

FAILURE_SECONDS: Final = 1.5
"""How long `/readyz` names a failure before the process ends: the kubelet asks every second."""

STOP_SECONDS: Final = 1.0
"""How long a turn that is taken back has to kill its tools."""

CLOSE_SECONDS: Final = 0.7
"""How long open responses have for their end. A stop has 2 s in all."""


@dataclass(frozen=True)
class Options:
    """Where the process finds its surroundings."""

    state_dir: Path
    workspace_socket: Path
    session_end: Path
    """File that marks the end of the session for the workspace's server."""
    report_token: Path
    termination_log: Path


class Process:
    """One run of the runtime, from an open database to an exit status."""

    def __init__(self, config: SessionConfig, options: Options, open_model: OpenModel, store: Store) -> None:
        self._config = config
        self._options = options
        redactor = Redactor(secret_values(os.environ))
        self._store = store
        loaded = self._store.load()
        self._journal = Journal(self._store, loaded.last_seq, _now)
        self._workspace = SocketWorkspace(options.workspace_socket, options.session_end)
        open_agent = opener(config, self._workspace, open_model)
        self._session = Session(config, self._journal, loaded, open_agent, _now)
        self._console = Console(redactor, sys.stdout)
        self._metrics = Metrics()
        self._journal.listeners.append(lambda _, drafts: self._console.show(drafts))
        self._journal.listeners.append(lambda _, drafts: self._metrics.observe(drafts, time.time()))
        self._supervisor = Supervisor()
        self._reporter = self._make_reporter(loaded)
        self._stop = asyncio.Event()

    async def run(self, listener: socket.socket) -> int:
        """Serve the session on this socket until it ends, or is stopped, or breaks; returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        self._supervisor.start("journal", self._journal.run())
        if not await self._recover(listener):
            await self._supervisor.cancel("journal")
            await self._journal.release()
            return STOPPED
        app = create_app(self._config, self._session, self._journal, self._metrics, self._problems)
        server = http_server(app)
        http = self._supervisor.start("http", server.serve(sockets=[listener]), may_end=True)
        worker = self._supervisor.start("session", self._session.run(), may_end=True)
        if self._reporter is not None:
            self._supervisor.start("reporter", self._reporter.run())
        status = await self._wait(worker)
        if status == FINISHED:
            self._journal.close()
            await self._conclude()
        elif status == FAILED:
            await asyncio.sleep(FAILURE_SECONDS)
        server.stop()
        if status != FINISHED:
            cut_connections(server)
            self._journal.close()
        await asyncio.wait([http], timeout=CLOSE_SECONDS)
        await self._supervisor.cancel("session", "reporter", "http", "journal")
        self._console.close(timeout=0.5)
        await self._journal.release()
        return status

    async def _recover(self, listener: socket.socket) -> bool:
        """Set right what the last process left unfinished; False if a stop came first. It has to be written, so on a full
        volume it waits for room, and the socket says so meanwhile."""
        recovering, stop = asyncio.create_task(self._session.recover()), asyncio.create_task(self._stop.wait())
        async with contextlib.AsyncExitStack() as meanwhile:
            said = False
            while not (recovering.done() or stop.done()):
                await asyncio.wait([recovering, stop], timeout=FULL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if self._journal.problem is not None and not said:
                    await meanwhile.enter_async_context(answering(listener, "volume", self._journal.problem))
                    said = True
        stop.cancel()
        if not recovering.done():
            recovering.cancel()
            return False
        await recovering
        return True

    def _problems(self) -> Mapping[str, str]:
        full = self._journal.problem
        return self._supervisor.problems if full is None else {**self._supervisor.problems, "volume": full}

    async def _wait(self, worker: asyncio.Task[None]) -> int:
        """Wait for the exit status. A stop cancels the turn; the next process resumes it."""
        failed, stop = asyncio.create_task(self._supervisor.failed()), asyncio.create_task(self._stop.wait())
        await asyncio.wait([worker, failed, stop], return_when=asyncio.FIRST_COMPLETED)
        if not worker.done() and stop.done():
            worker.cancel()
            await asyncio.wait([worker], timeout=STOP_SECONDS)
            if not self._supervisor.problems:
                with contextlib.suppress(TimeoutError):  # on a full volume nothing can be written
                    async with asyncio.timeout(STOP_SECONDS):
                        await self._session.put_down()
        failed.cancel()
        stop.cancel()
        if self._supervisor.problems:
            return FAILED
        return FINISHED if self._session.finished else STOPPED

    async def _conclude(self) -> None:
        """Report to the operator and the workspace that the session has finished. A stop ends the wait early."""
        final = report.build(self._session.snapshot(), self._config, await self._next_sequence())
        _write_termination_log(self._options.termination_log, report.termination_message(final))
        await self._supervisor.cancel("reporter")
        stop = asyncio.create_task(self._stop.wait())
        farewell = asyncio.create_task(self._say_farewell())
        await asyncio.wait([farewell, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        farewell.cancel()

    async def _say_farewell(self) -> None:
        async with asyncio.TaskGroup() as together:
            together.create_task(self._keep_archive())
            await self._workspace.shut_down()
            if self._reporter is not None:
                await self._reporter.finish()

    async def _keep_archive(self) -> None:
        """Upload the archive if the class asks for it. A failure is logged and does not delay the exit."""
        repository = self._config.archive_repository
        if repository is None:
            return
        from session_runtime.archive import hub  # late: the start does not wait for what only some ends need

        try:
            async with asyncio.timeout(hub.UPLOAD_SECONDS):
                where = await hub.keep(self._config, repository, credentials(os.environ), self._options.state_dir, _now())
        except TimeoutError:
            logger.warning(
                "the session's archive was not uploaded to the Hub: the upload took longer than %.0f s", hub.UPLOAD_SECONDS
            )
        except Exception as error:
            logger.warning("the session's archive was not uploaded to the Hub: %s", error)
        else:
            self._console.say("archive", where, _now())

    def _make_reporter(self, loaded: Loaded) -> Reporter | None:
        # From the clock at first, so that a pod that lost its volume does not begin below its predecessor's numbers;
        # with at most a report a second, the clock stays ahead.
        known = loaded.facts.report_sequence
        self._sequence = int(time.time()) if known is None else known
        if self._config.report_url is None:
            return None
        return Reporter(
            sender(self._config.report_url, self._options.report_token),
            lambda sequence: report.build(self._session.snapshot(), self._config, sequence),
            self._journal.changed,
            self._next_sequence,
        )

    async def _next_sequence(self) -> int:
        self._sequence += 1
        sequence = self._sequence
        await self._journal.write(Change(facts=Facts(report_sequence=sequence)))
        return sequence


def _now() -> datetime:
    return datetime.now(UTC)


def _write_termination_log(path: Path, text: str) -> None:
    """Where the kubelet looks when the container has ended; there is no such file when the runtime runs by hand."""
    with contextlib.suppress(FileNotFoundError, PermissionError), open(path, "r+b") as file:
        file.truncate()
        file.write(text.encode())


async def serve(listener: socket.socket, config: SessionConfig, options: Options, open_model: OpenModel = litellm_model) -> int:
    """Run the session; returns the exit status. Raises StoreError when its database cannot be used."""
    return await Process(config, options, open_model, await _open_store(listener, options.state_dir)).run(listener)


async def _open_store(listener: socket.socket, directory: Path) -> Store:
    """The session's database. On a full volume it is waited for, as in the middle of a session: exiting would not make room.

    Only a first start needs that: a database that has been open before has its room reserved.
    """
    try:
        return Store(directory)
    except VolumeFullError as error:
        logger.error("%s. The session starts when there is room", error)
        problem = str(error)
    async with answering(listener, "volume", problem):
        while True:
            await asyncio.sleep(FULL_SECONDS)
            with contextlib.suppress(VolumeFullError):
                store = Store(directory)
                logger.info("the session's volume has room now")
                return store
