"""The workspace server: runs commands and edits files for the agent, in a container that holds no credentials.

    python -m session_runtime.workspace --socket /run/agentsession/workspace.sock --root /workspace

It needs nothing but the standard library and Python 3.9, so that any image can be the workspace.

The protocol: one request for each connection to a Unix socket, a JSON object on one line. A closed connection takes the
request back: its command is killed with all it started. The answer is any number of output lines and one last line.

    {"op": "run", "command": "make", "timeout": 120, "stream": true}
        {"output": "cc -o ..."}                              only when `stream` is true, as it comes
        {"result": {"exit_code": 0, "output": "cc ...", "timed_out": false, "truncated": false}}
    {"op": "read", "path": "a.txt", "offset": 1, "limit": null}              {"result": "text"}
    {"op": "write", "path": "a.txt", "content": "text"}                      {"result": null}
    {"op": "edit", "path": "a.txt", "old": "x", "new": "y", "replace_all": false}    {"result": 1}
    {"op": "shutdown"}                                       {"result": null}, and the server ends with status 0

What cannot be done is answered with {"error": "why"}.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Sequence  # noqa: UP035 - Python 3.9

from agent.workspace import LocalWorkspace, WorkspaceError
from session_runtime.workspace_limits import MAX_PROCESSES, MEMORY_SHARE, ProcessGuard, container_memory, limit_memory

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one line of the protocol."""

MAX_TIMEOUT = 3600.0
"""Seconds that a command may take at most, whatever the request says."""

STREAM_LIMIT = 1024 * 1024
"""Bytes of streamed output that may wait for a slow reader; beyond it output is left to the result."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

FINISHED_SUFFIX = ".finished"


def finished_marker(socket: Path) -> Path:
    """The file that says, beside the socket, that the session is finished: a server that starts then ends at once.

    Without it the pod of a session that ends before this container is up would wait for it for ever.
    """
    return socket.with_name(socket.name + FINISHED_SUFFIX)


def command_environment(root: Path) -> dict[str, str]:
    """All that commands get to see of the environment."""
    return {
        "PATH": os.environ.get("PATH", DEFAULT_PATH),
        "HOME": str(root),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PAGER": "cat",
    }


class Server:
    """Serves one workspace on one socket until it is told to end."""

    def __init__(self, workspace: LocalWorkspace, guard: ProcessGuard | None = None) -> None:
        self._workspace = workspace
        self._guard = guard
        self._requests: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(self, status: int) -> None:
        """Make `serve` return this exit status."""
        if not self._end.done():
            self._end.set_result(status)

    async def serve(self, socket: Path) -> int:
        """Serve until the end; returns the exit status. Whatever still runs is killed."""
        _remove(socket)  # left behind by an earlier process
        server = await asyncio.start_unix_server(self._accept, str(socket), limit=MESSAGE_LIMIT)
        os.chmod(socket, 0o660)
        if _is_finished(socket):  # looked for only now, so that the other side's word is not missed
            self.end(0)
        try:
            return await self._end
        finally:
            server.close()
            _remove(socket)
            for request in self._requests:
                request.cancel()
            if self._requests:
                await asyncio.wait(self._requests, timeout=1.0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = asyncio.ensure_future(self._handle(reader, writer))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read_request(reader)
            if request is not None:
                answer = await _unless_closed(reader, self._answer(request, writer))
                if answer is not None:
                    _send(writer, answer)
                    await writer.drain()
                    if request.get("op") == "shutdown":
                        self.end(0)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> dict[str, Any]:
        try:
            return {"result": await self._perform(request, writer)}
        except WorkspaceError as error:
            return {"error": str(error)}
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"not a request that this server knows: {type(error).__name__}: {error}"}

    async def _perform(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> Any:
        op = request["op"]
        if op == "run":
            return await self._run(request, writer)
        if op == "read":
            limit = request.get("limit")
            return await self._workspace.read(
                str(request["path"]), offset=int(request.get("offset", 1)), limit=None if limit is None else int(limit)
            )
        if op == "write":
            return await self._workspace.write(str(request["path"]), str(request["content"]))
        if op == "edit":
            replace_all = bool(request.get("replace_all", False))
            return await self._workspace.edit(
                str(request["path"]), str(request["old"]), str(request["new"]), replace_all=replace_all
            )
        if op == "shutdown":
            return None
        raise ValueError(f"unknown op {op!r}")

    async def _run(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> dict[str, Any]:
        def stream(text: str) -> None:
            if writer.transport.get_write_buffer_size() < STREAM_LIMIT:
                _send(writer, {"output": text})

        kills = 0 if self._guard is None else self._guard.kills
        if self._guard is not None:
            self._guard.command_begins()
        result = await self._workspace.run(
            str(request["command"]),
            timeout=min(float(request["timeout"]), MAX_TIMEOUT),
            on_output=stream if request.get("stream") else None,
        )
        note = ""
        if self._guard is not None and self._guard.kills > kills:
            note = f"\n[all processes were killed: there were more than {self._guard.limit}]"
        return {
            "exit_code": result.exit_code,
            "output": result.output + note,
            "timed_out": result.timed_out,
            "truncated": result.truncated,
        }


async def _read_request(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The request; None when the connection ended before there was one, or when it is not one."""
    try:
        request = json.loads(await reader.readline())
    except ValueError:  # not JSON, or a line over the limit
        return {}
    return request if isinstance(request, dict) else {}


async def _unless_closed(reader: asyncio.StreamReader, work: Any) -> Any:
    """The result of `work`; None, with the work cancelled, when the other side closes the connection before."""
    task = asyncio.ensure_future(work)
    closed = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({task, closed}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for future in (task, closed):
            future.cancel()
        await asyncio.wait({task, closed})


def _remove(socket: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        socket.unlink()


def _is_finished(socket: Path) -> bool:
    return finished_marker(socket).exists()


def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


def become_init() -> None:
    """As process 1 of a container: go on in a child, and do here what nobody else does, reaping orphans.

    asyncio waits for its own children by their ids, so a reaper in the same process would take their exit
    statuses away. This returns in the child only; the parent ends as the child ends.
    """
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return
    for number in signals:
        signal.signal(number, lambda received, _: os.kill(child, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            os._exit(code)


async def serve(socket: Path, root: Path, max_processes: int | None = None) -> int:
    """Serve the workspace below `root` until a shutdown (0) or SIGTERM (143).

    `max_processes` is for a container whose process 1 is this program; None sets no limit.
    """
    guard = None if max_processes is None else ProcessGuard(max_processes)
    server = Server(LocalWorkspace(root, command_environment(root)), guard)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.end, 128 + number)
    guarding = None if guard is None else asyncio.ensure_future(guard.run())
    try:
        return await server.serve(socket)
    finally:
        if guarding is not None:
            guarding.cancel()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m session_runtime.workspace", description=__doc__.split("\n")[0])
    parser.add_argument("--socket", type=Path, default=Path("/run/agentsession/workspace.sock"), help="where to listen")
    parser.add_argument("--root", type=Path, default=Path("/workspace"), help="the folder in which commands run")
    parser.add_argument(
        "--max-processes",
        type=int,
        default=MAX_PROCESSES,
        help="kill all processes when there are more than this in the container (%(default)s); only as its process 1",
    )
    parser.add_argument(
        "--max-memory",
        type=int,
        metavar="BYTES",
        help="memory that one process may use; unless given, nine tenths of what the container may",
    )
    options = parser.parse_args(arguments)
    memory = options.max_memory or int((container_memory() or 0) * MEMORY_SHARE)
    if memory:
        limit_memory(memory)
    contained = os.getpid() == 1
    if contained:
        become_init()
    max_processes = options.max_processes if contained else None
    return asyncio.run(serve(options.socket, options.root.resolve(), max_processes))


if __name__ == "__main__":
    sys.exit(main())
