"""The workspace server: runs commands and edits files for the agent, in a container that holds no credentials.

    python -m session_runtime.workspace.server --socket /run/agentsession/workspace.sock --root /workspace

It needs nothing but the standard library and Python 3.9, so that any image can be the workspace.

`protocol.py` says what the agent and the server say to each other; `init.py` is what process 1 of the container does besides.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union  # noqa: UP035 - Python 3.9

from agent.workspace import CommandInterrupted, ImageFile, Listing, WorkspaceError
from agent.workspace.local import LocalWorkspace
from session_runtime.workspace.init import become_init
from session_runtime.workspace.limits import (
    DISK_SHARE,
    FILE_SHARE,
    MAX_PROCESSES,
    Guard,
    Limits,
    limit_file_size,
    quantity,
    volume_for_files,
)
from session_runtime.workspace.listener import Listener, SocketCheck
from session_runtime.workspace.memory import container_memory, memory_for_processes
from session_runtime.workspace.protocol import ANSWER_LIMIT, GREETING

MAX_TIMEOUT = 3600.0
"""Seconds that a command may take at most, regardless of the request."""

STREAM_LIMIT = 1024 * 1024
"""Bytes of streamed output that may wait for a slow reader; beyond it output is left to the result."""

MAX_NOTES = 5
"""Kills that a command is told of, at most."""

SHELL_SUFFIX = ".shell"
"""Of the folder beside the socket in which commands leave their directory and variables to the next: in memory, so that a full
disk does not matter, and as long-lived as the pod, as the server is not."""

SCRATCH = ("/tmp", "/dev/termination-log")  # noqa: S108 - the container's own
"""What commands can write to besides the root. The kubelet makes the log a file on the node that anyone may write to."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


NOT_FOR_COMMANDS = ("AGENTSESSION_", "LITELLM_", "KUBERNETES_")
"""How the names of variables begin that are ours (the runtime's image has some) or that the kubelet adds to each container."""


def command_environment(root: Path, image: Mapping[str, str]) -> dict[str, str]:
    """The environment of commands: that of the container's image, as far as it is no business of ours."""
    kept = {name: value for name, value in image.items() if not name.startswith(NOT_FOR_COMMANDS)}
    defaults = {"PATH": DEFAULT_PATH, "LANG": "C.UTF-8"}
    return {**defaults, **kept, "HOME": str(root), "TERM": "dumb", "PAGER": "cat"}


Answer = Tuple[Dict[str, Any], Optional[Union[str, bytes]]]  # noqa: UP006, UP007, UP045 - Python 3.9
"""A line of an answer, and the text or the data behind it."""


class Server:
    """Serves one workspace on one socket until a shutdown.

    The guard kills commands that take too much. `end_marker` is the file that marks the end of the session; commands must not
    be able to make it. A server that starts after that exits at once.
    """

    def __init__(self, workspace: LocalWorkspace, guard: Guard | None = None, end_marker: Path | None = None) -> None:
        self._workspace = workspace
        self._guard = guard
        self._end_marker = end_marker
        self._requests: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(self, status: int) -> None:
        """Make `serve` return this exit status."""
        if not self._end.done():
            self._end.set_result(status)

    async def serve(self, socket: Path) -> int:
        """Serve until the end; returns the exit status. Requests that still run are killed."""
        listener = Listener(socket, self._accept)
        await listener.open()
        work: set[asyncio.Future[Any]] = {self._end}
        if self._guard is not None:
            self._guard.add(SocketCheck(self._guard, listener))
            work.add(asyncio.ensure_future(self._guard.run()))
        if self._session_has_ended():  # looked for only now, so that the other side's word is not missed
            self.end(0)
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            return int(done.pop().result())
        finally:
            listener.close()
            work |= self._requests
            for task in work:
                task.cancel()
            await asyncio.wait(work, timeout=1.0)

    def _session_has_ended(self) -> bool:
        return self._end_marker is not None and self._end_marker.exists()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = asyncio.ensure_future(self._handle(reader, writer))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(GREETING)
            request = await _read_request(reader)
            if request is not None:
                answer = await _unless_closed(reader, self._answer(request, writer))
                if answer is not None:
                    _send(writer, *answer)
                    await writer.drain()
                    if request.get("op") == "shutdown" and self._session_has_ended():
                        self.end(0)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> Answer:
        try:
            return await self._perform(request, writer)
        except ImageFile as error:
            return {"error": str(error), "image": True}, None
        except WorkspaceError as error:
            return {"error": str(error)}, None
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"not a valid request: {type(error).__name__}: {error}"}, None
        except Exception as error:  # the connection would end without a word, as if the server had
            traceback.print_exc()
            return {"error": f"the workspace's server failed: {type(error).__name__}: {error}"}, None

    async def _perform(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> Answer:
        op = request["op"]
        if op == "run":
            return await self._run(request, writer)
        if op == "read":
            limit = request.get("limit")
            return {"result": None}, await self._workspace.read(
                str(request["path"]), offset=int(request.get("offset", 1)), limit=None if limit is None else int(limit)
            )
        if op == "read_image":
            return {"result": None}, await self._workspace.read_image(str(request["path"]))
        if op == "list":
            listing = await self._workspace.list(
                str(request["path"]), glob=str(request.get("glob", "*")), depth=int(request.get("depth", 1))
            )
            return {"result": _bounded(listing)}, None
        if op in ("write", "edit"):
            return {"result": await self._change(op, request)}, None
        if op == "shutdown":
            if not self._session_has_ended():
                raise WorkspaceError("the session has not ended")
            return {"result": None}, None
        raise ValueError(f"unknown op {op!r}")

    async def _change(self, op: str, request: dict[str, Any]) -> dict[str, Any] | None:
        path = str(request["path"])
        if self._guard is not None:
            if problem := await self._guard.disk_problem():
                raise WorkspaceError(f"{path} was not written: {problem}")
            self._guard.command_begins()  # what is written here counts too
        if op == "write":
            await self._workspace.write(path, str(request["content"]))
            return None
        replace_all = bool(request.get("replace_all", False))
        edited = await self._workspace.edit(path, str(request["old"]), str(request["new"]), replace_all=replace_all)
        return dataclasses.asdict(edited)

    async def _run(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> Answer:
        def stream(text: str) -> None:
            if writer.transport.get_write_buffer_size() < STREAM_LIMIT:
                _send(writer, {"output": None}, text)

        kills = [] if self._guard is None else self._guard.kills
        before = len(kills)
        if self._guard is not None:
            self._guard.command_begins()
        try:
            result = await self._workspace.run(
                str(request["command"]),
                timeout=min(float(request["timeout"]), MAX_TIMEOUT),
                on_output=stream if request.get("stream") else None,
            )
        except CommandInterrupted as interrupted:
            result = interrupted.result  # for a client that has taken the request back and still listens
        note = "".join(f"\n[{kill}]" for kill in kills[before:][-MAX_NOTES:])
        how = {
            "exit_code": result.exit_code,
            "timed_out": result.timed_out,
            "truncated": result.truncated,
            "directory": result.directory,
        }
        return {"result": how}, result.output + note


async def _read_request(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The request; None when the connection ended before there was one, or when it is not one."""
    try:
        request = json.loads(await reader.readline())
    except ValueError:  # not JSON, or a line over the limit
        return {}
    return request if isinstance(request, dict) else {}


async def _unless_closed(reader: asyncio.StreamReader, work: Any) -> Any:
    """The result of `work`, which is cancelled when the other side closes its end of the connection before; None when there
    is none then."""
    task = asyncio.ensure_future(work)
    closed = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({task, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        return None if task.cancelled() else task.result()
    finally:
        for future in (task, closed):
            future.cancel()
        await asyncio.wait({task, closed})


def _bounded(listing: Listing) -> dict[str, Any]:
    """The listing without the entries that would make the answer too long."""
    room = ANSWER_LIMIT - 1024
    entries = []
    for entry in map(dataclasses.asdict, listing.entries):
        room -= len(json.dumps(entry)) + 2
        if room < 0:
            break
        entries.append(entry)
    return {"entries": entries, "truncated": listing.truncated or len(entries) < len(listing.entries)}


def _send(writer: asyncio.StreamWriter, message: dict[str, Any], behind: str | bytes | None = None) -> None:
    content = behind.encode("utf-8", "replace") if isinstance(behind, str) else behind or b""
    size = {} if behind is None else {"text" if isinstance(behind, str) else "data": len(content)}
    writer.write(json.dumps({**message, **size}).encode() + b"\n" + content)


async def serve(socket: Path, root: Path, limits: Limits | None = None, end_marker: Path | None = None) -> int:
    """Serve the workspace below `root` until a shutdown (0) or SIGTERM (143).

    `limits` are for a container whose process 1 is this program; None sets none.
    """
    guard = None if limits is None else Guard(limits)
    server = Server(
        LocalWorkspace(root, command_environment(root, os.environ), socket.with_name(socket.name + SHELL_SUFFIX)),
        guard,
        end_marker,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.end, 128 + number)
    return await server.serve(socket)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    options.root = options.root.resolve()
    disks = _disks(options)
    if disks:
        limit_file_size(int(min(size for size, _ in disks) * FILE_SHARE))  # the limit is one for all disks
    contained = os.getpid() == 1
    if contained:
        become_init()
    bounds = tuple((int(size * DISK_SHARE), paths) for size, paths in disks)
    memory = options.max_memory or memory_for_processes(container_memory() or 0) or None
    limits = Limits(options.max_processes, memory, bounds) if contained else None
    return asyncio.new_event_loop().run_until_complete(serve(options.socket, options.root, limits, options.end))


def _disks(options: argparse.Namespace) -> list[tuple[int, tuple[Path, ...]]]:
    """How many bytes there are for which files and folders."""
    if options.volume is None:
        sizes = [(options.disk, (options.root, *options.scratch))]
    else:
        files = volume_for_files(options.volume, options.root)
        sizes = [(files, (options.root,)), (options.disk, tuple(options.scratch))]
    return [(size, paths) for size, paths in sizes if size is not None]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m session_runtime.workspace.server", description=__doc__.split("\n")[0])
    parser.add_argument("--socket", type=Path, default=Path("/run/agentsession/workspace.sock"), help="where to listen")
    parser.add_argument(
        "--end",
        type=Path,
        metavar="FILE",
        help="exit when the agent asks for it and this file exists, which must lie where commands cannot write",
    )
    parser.add_argument("--root", type=Path, default=Path("/workspace"), help="working folder of commands")
    parser.add_argument(
        "--max-processes",
        type=int,
        default=MAX_PROCESSES,
        help="kill all processes when the container has more than this (%(default)s); applies only to process 1 of a container",
    )
    parser.add_argument(
        "--max-memory",
        type=int,
        metavar="BYTES",
        help="kill the largest process when all together take more memory than this (default: 90%% of the container's limit); "
        "applies only to process 1 of a container",
    )
    parser.add_argument(
        "--disk",
        type=quantity,
        metavar="SIZE",
        help="disk space of the container, for example 10Gi. A file can take at most 80% of it. All processes are killed when "
        "all files together take more than 90% (only as process 1 of the container)",
    )
    parser.add_argument(
        "--volume", type=quantity, metavar="SIZE", help="the same for the root, if the root is a volume of its own"
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        nargs="*",
        default=[Path(path) for path in SCRATCH],
        metavar="PATH",
        help=f"where commands can write besides the root ({' '.join(SCRATCH)}); these files count as disk space too",
    )
    return parser


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # threads that still count or write files are not waited for
