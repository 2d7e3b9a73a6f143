"""MCP servers over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn

from support.agent.mcp_server import make
from support.agent.processes import until


@contextlib.asynccontextmanager
async def http(app: Callable[..., Any], port: int = 0) -> AsyncIterator[str]:
    """An ASGI application on loopback."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        await task


def mcp_app(seen: list[dict[str, str]] | None = None, legacy: bool = False) -> Callable[..., Any]:
    """The server over HTTP; `seen` gets the headers of each request. A legacy one does not know `server/discover`."""
    app: Any = make().streamable_http_app()

    async def recording(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            if seen is not None:
                seen.append(headers)
            if legacy and headers.get("mcp-method") == "server/discover":
                await send({"type": "http.response.start", "status": 404, "headers": []})
                await send({"type": "http.response.body"})
                return
        await app(scope, receive, send)

    return recording
