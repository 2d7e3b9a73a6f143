"""A server's process: a transport for the official client over stdin and stdout, and what the process says on stderr.

The official client's own transport decodes stdout strictly, has no limit for a line, and leaves stderr to the terminal: one
byte that is not UTF-8 stops it without an error, an endless line takes all memory, and a server that exits leaves no reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Final

import anyio
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter

from agent.tools.mcp import wire
from agent.tools.mcp.server import McpServer
from agent.tools.mcp.wire import repaired_in_a_thread

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

logger = logging.getLogger(__name__)

CHUNK: Final = 64 << 10
"""Bytes that are read from a pipe at once."""

EDGE: Final = 1_000
"""Bytes at both ends of an oversized line that are kept, to find out which request it answers."""

STDERR_BYTES: Final = 4_000
"""Bytes of the end of stderr that are kept."""

EXIT_TIMEOUT: Final = 2.0
"""Seconds that the server has to exit after its stdin was closed, and again after SIGTERM."""

SETTLE_TIMEOUT: Final = 1.0
"""Seconds to wait for the end of stderr after the process exited."""

POLL: Final = 0.01
"""Seconds between two looks at whether a process has exited."""

_IDS: Final = (
    re.compile(rb'^\s*\{(?:\s*"jsonrpc"\s*:\s*"2\.0"\s*,)?\s*"id"\s*:\s*(\d+)\s*[,}]'),
    re.compile(rb'"id"\s*:\s*(\d+)\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$'),
)
"""The id of an answer as SDKs write it: near its beginning or at its end."""


class StdioServer:
    """One process of a server. `connect` starts it; afterwards `last_words` says how it ended."""

    def __init__(self, server: McpServer) -> None:
        self._server = server
        self._stderr = bytearray()
        self._status: int | None = None
        self._closing = False
        self._exited = False
        """By itself: not because we closed its stdin."""
        self._settled = asyncio.Event()

    @contextlib.asynccontextmanager
    async def connect(
        self,
    ) -> AsyncIterator[tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]]:
        """Start the process and talk to it; ends it when the context is left. Raises OSError when it cannot be started."""
        process = await asyncio.create_subprocess_exec(
            *self._server.command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={**get_default_environment(), **self._server.environment},
            start_new_session=True,
        )
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        pipes = _Pipes(process, incoming, outgoing, self._stdout_ended)
        tasks = [asyncio.create_task(work) for work in (pipes.forward_answers(), pipes.forward_requests())]
        watcher = asyncio.create_task(self._watch(process, tasks[0]))
        try:
            yield read, write
        finally:
            self._closing = True
            for stream in (read, write):
                stream.close()
            ending = asyncio.create_task(_finish(process, tasks, watcher))
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                await ending  # every wait in it is bounded; a second cancellation may leave
                raise
            finally:
                for end in (incoming, outgoing):
                    end.close()

    def _stdout_ended(self) -> None:
        self._exited = not self._closing

    async def _watch(self, process: Process, stdout: asyncio.Task[None]) -> None:
        """Keep the end of stderr, and note when the server exits by itself."""
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        stderr = asyncio.create_task(self._read_stderr(process.stderr))
        try:
            await asyncio.wait({stdout})
            await _until(lambda: process.returncode is not None)
            self._status = process.returncode
            await asyncio.wait({stderr}, timeout=SETTLE_TIMEOUT)
            self._settled.set()
            await asyncio.wait({stderr})
        finally:
            self._settled.set()
            stderr.cancel()

    async def _read_stderr(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(CHUNK):
            self._stderr += chunk
            del self._stderr[:-STDERR_BYTES]

    async def last_words(self) -> str:
        """How the process ended and the end of its stderr, as sentences. Empty if it runs and has said nothing."""
        if self._exited:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXIT_TIMEOUT + SETTLE_TIMEOUT):
                    await self._settled.wait()
        said = self._stderr.decode("utf-8", "replace").strip()
        parts = []
        if self._exited:
            status = "closed its stdout" if self._status is None else f"exited with status {self._status}"
            parts.append(f"The server's process {status}.")
        if said:
            parts.append(f"The end of its stderr: {said}")
        return " ".join(parts)

    @property
    def exited(self) -> bool:
        """Whether the process ended by itself."""
        return self._exited


class _Pipes:
    """Forwards messages between the client's streams and the process's pipes."""

    def __init__(
        self,
        process: Process,
        incoming: MemoryObjectSendStream[SessionMessage | Exception],
        outgoing: MemoryObjectReceiveStream[SessionMessage],
        stdout_ended: Callable[[], None],
    ) -> None:
        self._process = process
        self._incoming = incoming
        self._outgoing = outgoing
        self._stdout_ended = stdout_ended
        self._asked: set[int | str] = set()
        """Ids of the requests without an answer."""

    async def forward_answers(self) -> None:
        """Until the server closes its stdout. What comes after the client has gone is read as well: a server that cannot write
        does not see that its stdin is closed."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        lines = _Lines()
        with self._incoming:
            while chunk := await self._process.stdout.read(CHUNK):
                for line, whole in lines.feed(chunk):
                    for message in await self._messages(line, whole):
                        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                            await self._incoming.send(message)
            self._stdout_ended()  # first: the client fails the open calls as soon as its stream is closed

    async def _messages(self, line: bytes, whole: bool) -> list[SessionMessage]:
        """The message of a line, or errors for the requests that it was meant to answer."""
        problem = f"its answer is larger than {wire.MAX_ANSWER} bytes"
        if whole:
            try:
                message = jsonrpc_message_adapter.validate_json(await repaired_in_a_thread(line), by_name=False)
            except ValueError:
                problem = "its answer is not a JSON-RPC message"
            else:
                if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
                    self._asked.discard(message.id)
                return [SessionMessage(message)]
        meant = self._meant(line, whole)
        self._asked -= meant
        error = ErrorData(code=INTERNAL_ERROR, message=problem)
        return [SessionMessage(JSONRPCError(jsonrpc="2.0", id=each, error=error)) for each in meant]

    def _meant(self, line: bytes, whole: bool) -> set[int | str]:
        """The requests that a line answers which cannot be read: all open ones if there is no telling."""
        if whole and b'"jsonrpc"' not in line:
            logger.debug("an MCP server wrote a line to its stdout that is not a message")
            return set()
        for pattern in _IDS:
            found = pattern.search(line)
            if found is not None and int(found[1]) in self._asked:
                return {int(found[1])}
        return set() if b'"method"' in line[:EDGE] else set(self._asked)

    async def forward_requests(self) -> None:
        """Until the client closes its stream, or the server its stdin."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(ConnectionError, anyio.ClosedResourceError), self._outgoing:
            async for sent in self._outgoing:
                if isinstance(sent.message, JSONRPCRequest):
                    self._asked.add(sent.message.id)
                stdin.write(sent.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await stdin.drain()
            return
        # The process may be alive: without this, what was asked would wait for an answer until its timeout.
        self._incoming.close()


class _Lines:
    """Puts lines together from chunks; of an oversized line only the ends are kept."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bool]]:
        """The lines that end in this chunk, without empty ones, and whether each one is whole."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._grow(piece)
            line, whole = bytes(self._line), self._size == len(self._line)
            self._line, self._size = bytearray(), 0
            if line.strip():
                yield line, whole
        self._grow(rest)

    def _grow(self, piece: bytes) -> None:
        self._size += len(piece)
        self._line += piece
        if len(self._line) > wire.MAX_ANSWER:
            del self._line[EDGE:-EDGE]


async def _finish(process: Process, tasks: list[asyncio.Task[None]], watcher: asyncio.Task[None]) -> None:
    """End a process as the protocol says (2025-11-25, lifecycle, shutdown): close its stdin, then SIGTERM, then SIGKILL."""
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    process.stdin.close()
    if not await _until(lambda: process.returncode is not None):
        _signal(process, signal.SIGTERM)
        if not await _until(lambda: not _signal(process, 0)):
            _signal(process, signal.SIGKILL)
            await _until(lambda: process.returncode is not None)
    await asyncio.wait({watcher}, timeout=SETTLE_TIMEOUT)
    for task in (*tasks, watcher):
        task.cancel()
    await asyncio.wait({*tasks, watcher})
    # A process that left the group may hold the pipes open, and nothing public closes our ends of them.
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


def _signal(process: Process, number: int) -> bool:
    """Send a signal to the process and its descendants; False when there is none."""
    try:
        os.killpg(process.pid, number)  # start_new_session made its pid the group's id
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def _until(state: Callable[[], bool]) -> bool:
    """Whether the state is there within EXIT_TIMEOUT. `Process.wait` would also wait for the ends of the pipes, which a child
    of the server may hold open."""
    deadline = asyncio.get_running_loop().time() + EXIT_TIMEOUT
    while not state():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(POLL)
    return True
