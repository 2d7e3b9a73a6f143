"""What clients and the kubelet hear from a process that cannot open its session yet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response

from session_runtime.http.problems import ProblemError
from session_runtime.http.server import cut_connections, http_server

RETRY_AFTER: Final = "5"
"""Seconds."""


def waiting_app(what: str, problem: str) -> FastAPI:
    """Is alive and not ready, and answers everything else with the problem."""
    app = FastAPI(openapi_url=None)

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "ok\n"

    @app.get("/readyz", response_class=PlainTextResponse)
    async def readyz() -> Response:
        return PlainTextResponse(f"{what}: {problem}\n", 503)

    @app.api_route("/{path:path}", methods=["GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"])
    async def other(path: str) -> Response:
        headers = {"Retry-After": RETRY_AFTER}
        return ProblemError(503, "not-started", "The session has not started", problem, headers=headers).response()

    return app


@asynccontextmanager
async def answering(listener: socket.socket, what: str, problem: str) -> AsyncIterator[None]:
    """Answer on this socket meanwhile; the socket stays open for the session."""
    server = http_server(waiting_app(what, problem))
    serving = asyncio.create_task(server.serve(sockets=[listener.dup()]))
    try:
        yield
    finally:
        server.stop()
        cut_connections(server)
        with contextlib.suppress(asyncio.CancelledError):
            await serving
