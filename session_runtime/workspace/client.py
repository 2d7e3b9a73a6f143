"""The workspace as the agent container sees it: a client of the workspace server's socket.

What answers there is not trusted: the model's commands run beside the server, as the same user, and can take its place.
Every answer is bounded in time and size and checked; anything wrong with it is a `WorkspaceError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from agent.workspace import (
    HEAD_LIMIT,
    LIST_LIMIT,
    READ_LIMIT,
    TAIL_LIMIT,
    CommandResult,
    Entry,
    Listing,
    WorkspaceError,
)
from session_runtime.workspace.protocol import GREETING, MESSAGE_LIMIT, finished_marker

CONNECT_SECONDS: Final = 120.0
"""How long a call waits for the server: while its image is pulled, and while the kubelet restarts its container, after a pause
of 10 s that doubles each time."""

CONNECT_INTERVAL: Final = 0.05

SHUTDOWN_SECONDS: Final = 1.0

RUN_MARGIN: Final = 30.0
"""Seconds beyond a command's own timeout after which a server that says nothing is given up."""

FILE_SECONDS: Final = 60.0
"""Seconds that reading or writing a file may take."""

OUTPUT_LIMIT: Final = 2 * (HEAD_LIMIT + TAIL_LIMIT)
"""Characters of a command's output that are taken; the server keeps to half of it, but for the last piece and notes."""

T = TypeVar("T")
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SocketWorkspace:
    """`agent.workspace.Workspace` over a Unix socket, one connection for each call.

    Cancelling a call closes its connection, and with that its command is killed.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def run(self, command: str, *, timeout: float, on_output: Callable[[str], None] | None = None) -> CommandResult:
        request = {"op": "run", "command": command, "timeout": timeout, "stream": on_output is not None}
        return _checked(_command_result, await self._call(request, timeout=timeout + RUN_MARGIN, on_output=on_output))

    async def read(self, path: str, *, offset: int = 1, limit: int | None = None) -> str:
        answer = await self._call({"op": "read", "path": path, "offset": offset, "limit": limit})
        return _checked(lambda text: _text(text, READ_LIMIT), answer)

    async def write(self, path: str, content: str) -> None:
        await self._call({"op": "write", "path": path, "content": content})

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> int:
        request = {"op": "edit", "path": path, "old": old, "new": new, "replace_all": replace_all}
        return _checked(int, await self._call(request))

    async def list(self, path: str = ".", *, glob: str = "*", depth: int = 1) -> Listing:
        return _checked(_listing, await self._call({"op": "list", "path": path, "glob": glob, "depth": depth}))

    async def shut_down(self) -> None:
        """Make the server exit, now or as soon as it starts. Never raises."""
        with contextlib.suppress(OSError):
            # Not through a link: the workspace can write to that folder, and the link would be followed in here.
            os.close(os.open(finished_marker(self._socket), os.O_CREAT | os.O_EXCL, 0o644))
        with contextlib.suppress(OSError, TimeoutError, WorkspaceError):
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await _exchange(await _open(self._socket), b'{"op": "shutdown"}\n')

    async def _call(
        self,
        request: dict[str, Any],
        *,
        timeout: float | None = None,
        on_output: Callable[[str], None] | None = None,
    ) -> Any:
        timeout = FILE_SECONDS if timeout is None else timeout
        line = json.dumps(request).encode() + b"\n"
        if len(line) > MESSAGE_LIMIT:
            raise WorkspaceError(f"the call is larger than the limit of {MESSAGE_LIMIT} bytes; do it in parts")
        connection = await self._connect()
        try:
            async with asyncio.timeout(timeout):
                return await _exchange(connection, line, on_output)
        except TimeoutError as error:
            raise WorkspaceError(f"the workspace did not answer within {timeout:g} s") from error
        except OSError as error:
            raise WorkspaceError(
                "the workspace's server exited in the middle of this call and is restarting: files are kept, processes "
                "are not. The command may have killed it, or it ran out of memory"
            ) from error

    async def _connect(self) -> Connection:
        """A connection to a server that has said that it is there; one that dies or is being restarted is waited for."""
        problem: object = "nothing answers"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                while True:
                    try:
                        return await _open(self._socket)
                    except OSError as error:
                        problem = error.strerror or error
                    await asyncio.sleep(CONNECT_INTERVAL)
        raise WorkspaceError(f"cannot reach the workspace at {self._socket}: {problem}")


async def _open(socket: Path) -> Connection:
    """A connection on which the server has spoken. Raises OSError."""
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=MESSAGE_LIMIT)
    try:
        if await reader.read(len(GREETING)) == GREETING:
            return reader, writer
        raise ConnectionError("the workspace's server did not answer")
    except BaseException:
        writer.transport.abort()
        raise


async def _exchange(connection: Connection, request: bytes, on_output: Callable[[str], None] | None = None) -> Any:
    """Send the request and read up to its last line. The connection is closed in any case."""
    reader, writer = connection
    try:
        writer.write(request)
        await writer.drain()
        while True:
            answer = await _read_answer(reader)
            if "error" in answer:
                raise WorkspaceError(_checked(lambda found: _text(found["error"], OUTPUT_LIMIT), answer))
            if "result" in answer:
                return answer["result"]
            if on_output is None:
                raise _nonsense(answer)
            on_output(_checked(lambda found: _text(found["output"], OUTPUT_LIMIT), answer))
    finally:
        writer.transport.abort()


async def _read_answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    """One line of an answer. Raises ConnectionError at the end of the connection."""
    try:
        line = await reader.readline()
    except ValueError as error:
        raise WorkspaceError(f"the workspace's answer is longer than {MESSAGE_LIMIT} bytes") from error
    if not line.endswith(b"\n"):
        raise ConnectionResetError
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _nonsense(line) from error
    if not isinstance(answer, dict):
        raise _nonsense(answer)
    return answer


def _checked(convert: Callable[[Any], T], answer: Any) -> T:
    """The answer as what it has to be."""
    try:
        return convert(answer)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _nonsense(answer) from error


def _nonsense(answer: object) -> WorkspaceError:
    return WorkspaceError(f"the workspace's answer is invalid: {str(answer)[:200]!r}")


def _text(value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value[:limit]


def _command_result(answer: Any) -> CommandResult:
    code = answer["exit_code"]
    return CommandResult(
        exit_code=None if code is None else int(code),
        output=_text(answer["output"], OUTPUT_LIMIT),
        timed_out=bool(answer["timed_out"]),
        truncated=bool(answer["truncated"]),
    )


def _listing(answer: Any) -> Listing:
    entries = answer["entries"][:LIST_LIMIT]
    return Listing(
        tuple(Entry(_text(entry["path"], 4096), _text(entry["kind"], 10), int(entry["size"])) for entry in entries),
        bool(answer["truncated"]),
    )
