"""The operator's HTTP server: health, metrics, and the reports of session pods."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from agentsession_operator import metrics
from agentsession_operator.reports.desk import ReportDesk
from agentsession_operator.reports.listener import listen
from agentsession_operator.reports.verifier import Refused
from session_runtime.wire import REPORT_ROUTE, SessionReport

STOP_SECONDS: Final = 3.0
MAX_REPORT_BYTES: Final = 256 * 1024
"""The last message has at most 4 KiB; the rest is for the arguments of calls that wait for approval."""

Probe = Callable[[], str | None]
"""What is wrong, or None."""


def make_app(desk: ReportDesk, *, healthy: Probe, ready: Probe) -> FastAPI:
    """The application. If `healthy` fails, the kubelet restarts the container; if `ready` fails, the Service skips it."""
    app = FastAPI(title="AgentSession operator", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> Response:
        return _probe(healthy())

    @app.get("/readyz")
    async def readyz() -> Response:
        return _probe(ready())

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.put(REPORT_ROUTE, status_code=204)
    async def report(namespace: str, name: str, request: Request) -> Response:
        try:
            pod_uid = await desk.sender(request.headers.get("authorization", ""))
            body = SessionReport.model_validate_json(await _body(request))
            news = desk.take(namespace, name, pod_uid, body)
        except Refused as refused:
            metrics.REPORTS.labels(str(refused.status)).inc()
            return JSONResponse({"detail": str(refused)}, refused.status)
        except ValidationError as error:
            metrics.REPORTS.labels("422").inc()
            return JSONResponse({"detail": error.errors(include_url=False, include_input=False)}, 422)
        metrics.REPORTS.labels("taken" if news else "old").inc()
        return Response(status_code=204)

    return app


async def _body(request: Request) -> bytes:
    """The body. It is read after the token has been checked, up to the size that a report can have. Raises Refused."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REPORT_BYTES:
            raise Refused(413, f"a report has at most {MAX_REPORT_BYTES} bytes")
    return body


def _probe(problem: str | None) -> Response:
    return PlainTextResponse(problem or "ok", 503 if problem else 200)


class HttpServer(uvicorn.Server):
    """uvicorn as one task among others: the operator handles the signals, and stops its parts in order."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                lifespan="off",
                workers=1,
                timeout_graceful_shutdown=1,
            )
        )

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped. Raises OSError if the port is taken or the address is not of this host."""
        await super().serve(sockets or [listen(self.config.host, self.config.port)])

    async def stop(self, serving: asyncio.Task[Any]) -> None:
        """End the task that serves, and close its sockets. Requests in progress get STOP_SECONDS."""
        self.should_exit = True
        done, _ = await asyncio.wait([serving], timeout=STOP_SECONDS)
        if not done:
            serving.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
