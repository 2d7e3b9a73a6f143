"""The workspace as the agent container sees it: a client of the workspace server's socket.

What answers there is not trusted: the model's commands run beside the server, as the same user, and can take its place.
Every answer is bounded in time and size and checked; anything wrong with it is a `WorkspaceError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from agent.workspace import (
    HEAD_LIMIT,
    LIST_LIMIT,
    READ_LIMIT,
    TAIL_LIMIT,
    CommandInterrupted,
    CommandResult,
    Edited,
    Entry,
    ImageFile,
    Listing,
    WorkspaceError,
)
from agent.workspace.images import IMAGE_LIMIT
from session_runtime.workspace.protocol import ANSWER_LIMIT, GREETING, MESSAGE_LIMIT, TEXT_LIMIT

CONNECT_SECONDS: Final = 120.0
"""How long a call waits for the server: while its image is pulled, and while the kubelet restarts its container, after a pause
of 10 s that doubles each time."""

AGAIN_SECONDS: Final = 10.0
"""The same for a call that follows on one that found no server."""

GREETING_SECONDS: Final = 10.0
"""How long a server that accepts a connection may take to speak. One that is silent is not waited for any longer."""

CONNECT_INTERVAL: Final = 0.05

SHUTDOWN_SECONDS: Final = 1.0

RUN_MARGIN: Final = 30.0
"""Seconds beyond a command's own timeout after which a server that says nothing is given up."""

FILE_SECONDS: Final = 60.0
"""Seconds that reading or writing a file may take."""

INTERRUPT_SECONDS: Final = 1.0
"""How long a cancelled call waits for what its command had printed. The agent's loop leaves it behind earlier."""

OUTPUT_LIMIT: Final = 2 * (HEAD_LIMIT + TAIL_LIMIT)
"""Characters of a command's output that are taken; the server keeps to half of it, but for the last piece and notes."""

T = TypeVar("T")
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class _Answer:
    """One line of an answer, and what is behind it."""

    line: dict[str, Any]
    behind: bytes = b""

    @property
    def text(self) -> str:
        return self.behind.decode(errors="replace")


class _Silent(Exception):
    """The server accepts connections and says nothing."""


class SocketWorkspace:
    """`agent.workspace.Workspace` over a Unix socket, one connection for each call.

    Cancelling a call closes its connection, and with that its command is killed; what it printed is waited for briefly.
    `end_marker` is the file that marks the end of the session for the server; None where there is none to end.
    """

    def __init__(self, socket: Path, end_marker: Path | None = None) -> None:
        self._socket = socket
        self._end_marker = end_marker
        self._reached = True
        """False while the last call found no server."""

    async def run(self, command: str, *, timeout: float, on_output: Callable[[str], None] | None = None) -> CommandResult:
        request = {"op": "run", "command": command, "timeout": timeout, "stream": on_output is not None}
        connection, line = await self._connect(request)
        exchange = asyncio.create_task(_within(timeout + RUN_MARGIN, _exchange(connection, line, on_output)))
        try:
            return _checked(_command_result, await asyncio.shield(exchange))
        except asyncio.CancelledError:
            connection[1].write_eof()
            await asyncio.wait([exchange], timeout=INTERRUPT_SECONDS)
            if not exchange.done() or exchange.exception() is not None:
                raise
            raise CommandInterrupted(_checked(_command_result, exchange.result())) from None
        finally:
            exchange.cancel()

    async def read(self, path: str, *, offset: int = 1, limit: int | None = None) -> str:
        answer = await self._call({"op": "read", "path": path, "offset": offset, "limit": limit})
        return _checked(lambda found: _text_behind(found, READ_LIMIT), answer)

    async def read_image(self, path: str) -> bytes:
        return _checked(_data_behind, await self._call({"op": "read_image", "path": path}))

    async def write(self, path: str, content: str) -> None:
        await self._call({"op": "write", "path": path, "content": content})

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> Edited:
        request = {"op": "edit", "path": path, "old": old, "new": new, "replace_all": replace_all}
        return _checked(_edited, await self._call(request))

    async def list(self, path: str = ".", *, glob: str = "*", depth: int = 1) -> Listing:
        return _checked(_listing, await self._call({"op": "list", "path": path, "glob": glob, "depth": depth}))

    async def shut_down(self) -> None:
        """Make the server exit, now or as soon as it starts. Never raises."""
        if self._end_marker is not None:
            with contextlib.suppress(OSError):
                self._end_marker.touch()
        with contextlib.suppress(OSError, TimeoutError, WorkspaceError, _Silent):
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await _exchange(await _open(self._socket), b'{"op": "shutdown"}\n')

    async def _call(self, request: dict[str, Any]) -> _Answer:
        return await _within(FILE_SECONDS, _exchange(*await self._connect(request)))

    async def _connect(self, request: dict[str, Any]) -> tuple[Connection, bytes]:
        """A connection to a server that has said that it is there, and what to send to it.

        A server that dies or is being restarted is waited for, and again, but shorter, by the next call.
        """
        line = json.dumps(request).encode() + b"\n"
        if len(line) > MESSAGE_LIMIT:
            raise WorkspaceError(f"the call is larger than the limit of {MESSAGE_LIMIT} bytes; do it in parts")
        problem: object = "nothing answers"
        reached, self._reached = self._reached, False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS if reached else min(AGAIN_SECONDS, CONNECT_SECONDS)):
                while True:
                    try:
                        connection = await _open(self._socket)
                        self._reached = True
                        return connection, line
                    except _Silent:
                        problem = "it accepts connections and does not answer; a command may have taken its place"
                        break
                    except OSError as error:
                        problem = error.strerror or error
                    await asyncio.sleep(CONNECT_INTERVAL)
        raise WorkspaceError(f"cannot reach the workspace at {self._socket}: {problem}")


async def _within(seconds: float, exchange: Coroutine[Any, Any, _Answer]) -> _Answer:
    """The answer of a server that may take so long. Anything wrong with it is a WorkspaceError."""
    try:
        async with asyncio.timeout(seconds):
            return await exchange
    except TimeoutError as error:
        raise WorkspaceError(f"the workspace did not answer within {seconds:g} s") from error
    except OSError as error:
        raise WorkspaceError(
            "the workspace's server exited in the middle of this call and is restarting: files are kept, processes "
            "are not. The command may have killed it, or it ran out of memory"
        ) from error


async def _open(socket: Path) -> Connection:
    """A connection on which the server has spoken. Raises OSError, and _Silent."""
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=ANSWER_LIMIT)
    try:
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                greeting = await reader.read(len(GREETING))
        except TimeoutError:
            raise _Silent from None
        if greeting == GREETING:
            return reader, writer
        raise ConnectionError("the workspace's server did not answer")
    except BaseException:
        writer.transport.abort()
        raise


async def _exchange(connection: Connection, request: bytes, on_output: Callable[[str], None] | None = None) -> _Answer:
    """Send the request and read up to its last line. The connection is closed in any case."""
    reader, writer = connection
    try:
        writer.write(request)
        await writer.drain()
        while True:
            answer = await _read_answer(reader)
            if "error" in answer.line:
                kind = ImageFile if answer.line.get("image") is True else WorkspaceError
                raise kind(_checked(lambda found: _text(found.line["error"], OUTPUT_LIMIT), answer))
            if "result" in answer.line:
                return answer
            if on_output is None or "output" not in answer.line:
                raise _nonsense(answer)
            on_output(answer.text)
    finally:
        writer.transport.abort()


async def _read_answer(reader: asyncio.StreamReader) -> _Answer:
    """One line of an answer, with what is behind it. Raises ConnectionError at the end of the connection."""
    try:
        line = await reader.readline()
    except ValueError as error:
        raise WorkspaceError(f"the workspace's answer is longer than {ANSWER_LIMIT} bytes") from error
    if not line.endswith(b"\n"):
        raise ConnectionResetError
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _nonsense(line) from error
    if not isinstance(answer, dict):
        raise _nonsense(line)
    size = answer.get("text", answer.get("data", 0))
    if not isinstance(size, int) or size < 0:
        raise _nonsense(line)
    if size > TEXT_LIMIT:
        raise WorkspaceError(f"the workspace's answer is longer than {TEXT_LIMIT} bytes")
    try:
        return _Answer(answer, await reader.readexactly(size))
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError from error


def _checked(convert: Callable[[_Answer], T], answer: _Answer) -> T:
    """The answer as what it has to be."""
    try:
        return convert(answer)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _nonsense(answer) from error


def _nonsense(answer: _Answer | bytes) -> WorkspaceError:
    beginning = answer[:200] if isinstance(answer, bytes) else str(answer.line)[:200]
    return WorkspaceError(f"the workspace's answer is invalid: {beginning!r}")


def _text(value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value[:limit]


def _text_behind(answer: _Answer, limit: int) -> str:
    if "text" not in answer.line:
        raise KeyError("text")
    return answer.text[:limit]


def _data_behind(answer: _Answer) -> bytes:
    if "data" not in answer.line or len(answer.behind) > IMAGE_LIMIT:
        raise ValueError("no data, or too much")
    return answer.behind


def _command_result(answer: _Answer) -> CommandResult:
    result = answer.line["result"]
    code = result["exit_code"]
    return CommandResult(
        exit_code=None if code is None else int(code),
        output=_text_behind(answer, OUTPUT_LIMIT),
        timed_out=bool(result["timed_out"]),
        truncated=bool(result["truncated"]),
        directory=None if (directory := result.get("directory")) is None else _text(directory, 4096),
    )


def _edited(answer: _Answer) -> Edited:
    result = answer.line["result"]
    return Edited(int(result["count"]), bool(result["had_changed"]))


def _listing(answer: _Answer) -> Listing:
    result = answer.line["result"]
    entries = result["entries"][:LIST_LIMIT]
    return Listing(
        tuple(Entry(_text(entry["path"], 4096), _text(entry["kind"], 10), int(entry["size"])) for entry in entries),
        bool(result["truncated"]),
    )
