"""The HTTP server under the API: uvicorn, without its own signals and log, and with a deadline for each request's head."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS: Final = 10.0
"""How long a connection has for the head of its next request; idle ones end sooner (uvicorn's `timeout_keep_alive`)."""


MAX_CONNECTIONS: Final = 8192
"""Open connections: half of the files that the process may open (`MAX_FILES` of `__main__.py`). A further one takes the place
of one that has no request, so that connections without a token do not keep others out."""


class _Protocol(H11Protocol):
    """Drops a connection whose next request does not come: anyone can open one and send a byte now and then, and uvicorn
    would keep it indefinitely."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            others = (other for other in self.connections if isinstance(other, _Protocol) and other is not self)
            refused = next((other for other in others if other.is_idle), self)
            refused.transport.abort()
        self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._head_timer is not None:
            self._head_timer.cancel()

    @property
    def is_idle(self) -> bool:
        """It has no request, and is not being closed either."""
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def _await_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_unless_busy)

    def _close_unless_busy(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class HttpServer(uvicorn.Server):
    """Leaves the signals to the process, and sleeps while nothing happens: uvicorn's own loop wakes ten times a second to look
    whether it shall exit, and a node has many sessions that wait for their people."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._exit = asyncio.Event()

    def stop(self) -> None:
        """Take no more requests; `serve` ends when those in progress have their answers."""
        self.should_exit = True
        self._exit.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._exit.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def http_server(app: FastAPI) -> HttpServer:
    """The server of this application; it says nothing of its own and leaves the signals alone."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=_Protocol,
        ws="none",
        server_header=False,
        date_header=False,  # it would take a tick each second, and no answer of ours is cached
        timeout_graceful_shutdown=1,
    )
    return HttpServer(config)


def cut_connections(server: uvicorn.Server) -> None:
    """Without an end, which a client would take for the session's; so it knows to come back to the next process."""
    for connection in list(server.server_state.connections):
        if connection.transport is not None:
            connection.transport.abort()
