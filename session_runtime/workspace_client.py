"""The workspace as the agent container sees it: a client of the workspace server's socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from agent.workspace import CommandResult, WorkspaceError
from session_runtime.workspace import MESSAGE_LIMIT, finished_marker

CONNECT_SECONDS: Final = 20.0
"""How long a call waits for the server: at the session's start, and while the kubelet restarts its container."""

CONNECT_INTERVAL: Final = 0.05

SHUTDOWN_SECONDS: Final = 1.0

RUN_MARGIN: Final = 30.0
"""Seconds beyond a command's own timeout after which a server that says nothing is given up."""

FILE_SECONDS: Final = 60.0
"""Seconds that reading or writing a file may take."""


class SocketWorkspace:
    """`agent.workspace.Workspace` over a Unix socket, one connection for each call.

    Cancelling a call closes its connection, and with that its command is killed.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def run(self, command: str, *, timeout: float, on_output: Callable[[str], None] | None = None) -> CommandResult:
        request = {"op": "run", "command": command, "timeout": timeout, "stream": on_output is not None}
        result = await self._call(request, timeout + RUN_MARGIN, on_output)
        try:
            return CommandResult(
                exit_code=result["exit_code"],
                output=str(result["output"]),
                timed_out=bool(result["timed_out"]),
                truncated=bool(result["truncated"]),
            )
        except (KeyError, TypeError) as error:
            raise WorkspaceError(f"the workspace's answer makes no sense: {result!r:.200}") from error

    async def read(self, path: str, *, offset: int = 1, limit: int | None = None) -> str:
        return str(await self._call({"op": "read", "path": path, "offset": offset, "limit": limit}))

    async def write(self, path: str, content: str) -> None:
        await self._call({"op": "write", "path": path, "content": content})

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> int:
        request = {"op": "edit", "path": path, "old": old, "new": new, "replace_all": replace_all}
        return int(await self._call(request))

    async def shut_down(self) -> None:
        """Tell the server to end, now or as soon as it starts. Never raises."""
        with contextlib.suppress(OSError):
            finished_marker(self._socket).touch()
        with contextlib.suppress(OSError, TimeoutError, WorkspaceError):
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                connection = await asyncio.open_unix_connection(str(self._socket), limit=MESSAGE_LIMIT)
                await _exchange(connection, {"op": "shutdown"}, None)

    async def _call(
        self, request: dict[str, Any], timeout: float = FILE_SECONDS, on_output: Callable[[str], None] | None = None
    ) -> Any:
        connection = await self._connect()
        try:
            async with asyncio.timeout(timeout):
                return await _exchange(connection, request, on_output)
        except TimeoutError as error:
            raise WorkspaceError(f"the workspace did not answer within {timeout:g} s") from error
        except (ConnectionError, ValueError) as error:
            raise WorkspaceError(
                "the workspace's container ended in the middle of this call and is being restarted: "
                "files are kept, processes are not; it may have run out of memory"
            ) from error

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = asyncio.get_running_loop().time() + CONNECT_SECONDS
        while True:
            try:
                return await asyncio.open_unix_connection(str(self._socket), limit=MESSAGE_LIMIT)
            except OSError as error:
                if asyncio.get_running_loop().time() >= deadline:
                    message = f"the workspace cannot be reached at {self._socket}: {error.strerror}"
                    raise WorkspaceError(message) from error
            await asyncio.sleep(CONNECT_INTERVAL)


async def _exchange(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    request: dict[str, Any],
    on_output: Callable[[str], None] | None,
) -> Any:
    """Send the request and read up to its last line. The connection is closed in any case."""
    reader, writer = connection
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        while True:
            answer = json.loads(await reader.readline())  # ValueError at the end of the connection
            if "output" in answer:
                if on_output is not None:
                    on_output(str(answer["output"]))
            elif "error" in answer:
                raise WorkspaceError(str(answer["error"]))
            else:
                return answer["result"]
    finally:
        writer.transport.abort()
