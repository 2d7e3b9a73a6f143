"""What the agent makes of a workspace whose server is not there, or has been replaced by something hostile."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.workspace import LIST_LIMIT, READ_LIMIT, WorkspaceError
from agent.workspace.images import IMAGE_LIMIT
from session_runtime.workspace import client
from session_runtime.workspace.client import OUTPUT_LIMIT, SocketWorkspace
from session_runtime.workspace.protocol import ANSWER_LIMIT, GREETING, MESSAGE_LIMIT, TEXT_LIMIT
from support.runtime.harness import DEADLINE
from support.runtime.workspace_process import server

pytestmark = pytest.mark.anyio

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def hostile(folder: Path, behaviour: Behaviour) -> AsyncIterator[SocketWorkspace]:
    """A client of a server that greets, takes the request and then behaves like this."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(GREETING)
            await reader.readline()
            await behaviour(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    listener = await asyncio.start_unix_server(serve, str(folder / "w.sock"), limit=MESSAGE_LIMIT)
    async with listener, asyncio.timeout(DEADLINE):
        yield SocketWorkspace(folder / "w.sock")


def says(*lines: bytes) -> Behaviour:
    async def behaviour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(lines)
        await writer.drain()

    return behaviour


async def pours_without_end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 1_000_000)
        await writer.drain()


async def says_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


CALLS: dict[str, Callable[[SocketWorkspace], Awaitable[object]]] = {
    "run": lambda workspace: workspace.run("true", timeout=10),
    "read": lambda workspace: workspace.read("a"),
    "edit": lambda workspace: workspace.edit("a", "b", "c"),
    "list": lambda workspace: workspace.list(),
    "read_image": lambda workspace: workspace.read_image("a"),
}

NONSENSE = [
    b"nonsense",
    b"[]",
    b"7",
    b"null",
    b"{}",
    b"[" * 100_000,
    b"[{}," * 100_000,
    b'{"result": null, "text": -1}',
    b'{"result": null, "text": "many"}',
    b'{"result": null, "text": 1e3}',
    b"1" * 10_000,
    b"\xff\xfe",
    b'{"output": null, "text": 0}',
    b'{"result": null}',
    b'{"result": {}}',
    b'{"result": []}',
    b'{"result": 1e999}',
    b'{"result": {"count": 1e999, "had_changed": false}}',
    b'{"result": {"exit_code": "zero", "timed_out": false, "truncated": false}}',
    b'{"result": {"exit_code": 0, "timed_out": false, "truncated": false}}',
    b'{"result": {"entries": "abc", "truncated": false}}',
    b'{"result": {"entries": [{"path": 1, "kind": "file", "size": 1}], "truncated": false}}',
    b'{"error": {"not": "a text"}}',
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("line", NONSENSE, ids=lambda line: line[:40].decode(errors="replace"))
async def test_an_answer_that_makes_no_sense_is_an_error_of_the_call(short_path: Path, line: bytes, call: str) -> None:
    async with hostile(short_path, says(line + b"\n")) as workspace:
        with pytest.raises(WorkspaceError, match="answer is invalid"):
            await CALLS[call](workspace)


async def test_an_answer_without_end_is_an_error_of_the_call(short_path: Path) -> None:
    async with hostile(short_path, pours_without_end) as workspace:
        with pytest.raises(WorkspaceError, match=f"longer than {ANSWER_LIMIT} bytes"):
            await workspace.read("a")


async def test_a_text_that_is_too_long_is_not_read(short_path: Path) -> None:
    line = json.dumps({"result": None, "text": TEXT_LIMIT + 1}).encode() + b"\n"
    async with hostile(short_path, says(line, b"x" * 1_000_000)) as workspace:
        with pytest.raises(WorkspaceError, match=f"longer than {TEXT_LIMIT} bytes"):
            await workspace.read("a")


async def test_data_that_is_larger_than_an_image_is_refused(short_path: Path) -> None:
    line = json.dumps({"result": None, "data": IMAGE_LIMIT + 1}).encode() + b"\n"
    async with hostile(short_path, says(line, bytes(IMAGE_LIMIT + 1))) as workspace:
        with pytest.raises(WorkspaceError, match="answer is invalid"):
            await workspace.read_image("a")


async def test_output_without_end_is_no_result_either(short_path: Path) -> None:
    async def pours_lines(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b'{"output": null, "text": 4}\nmore' * 1000)
            await writer.drain()

    pieces: list[str] = []
    enough = asyncio.Event()

    def take(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 10_000:
            enough.set()

    async with hostile(short_path, pours_lines) as workspace:
        running = asyncio.create_task(workspace.run("true", timeout=600, on_output=take))
        await enough.wait()
        running.cancel()  # as an interrupt does it, or the tool's own timeout
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.mark.parametrize("call", CALLS)
async def test_a_server_that_never_answers_is_given_up(short_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(client, "FILE_SECONDS", 0.1)
    monkeypatch.setattr(client, "RUN_MARGIN", -9.9)
    async with hostile(short_path, says_nothing) as workspace:
        with pytest.raises(WorkspaceError, match="did not answer within"):
            await CALLS[call](workspace)


@pytest.mark.parametrize("backlog", [0, 100])
async def test_a_server_that_never_accepts_is_given_up(short_path: Path, monkeypatch: pytest.MonkeyPatch, backlog: int) -> None:
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.3)
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(short_path / "w.sock"))
        listener.listen(backlog)
        workspace = SocketWorkspace(short_path / "w.sock")
        async with asyncio.timeout(DEADLINE):
            for _ in range(3):
                with pytest.raises(WorkspaceError, match="cannot reach the workspace"):
                    await workspace.run("true", timeout=10)
            await workspace.shut_down()


async def test_a_server_that_accepts_and_is_silent_is_not_waited_for(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_SECONDS", 10 * DEADLINE)
    monkeypatch.setattr(client, "GREETING_SECONDS", 0.1)
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(short_path / "w.sock"))
        listener.listen(100)
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(WorkspaceError, match="accepts connections and does not answer"):
                await SocketWorkspace(short_path / "w.sock").run("true", timeout=10)


async def test_after_a_call_without_a_server_the_next_waits_less(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.1)
    workspace = SocketWorkspace(short_path / "w.sock")
    with pytest.raises(WorkspaceError, match="cannot reach"):
        await workspace.read("a")
    monkeypatch.setattr(client, "CONNECT_SECONDS", 10 * DEADLINE)
    monkeypatch.setattr(client, "AGAIN_SECONDS", 0.1)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(WorkspaceError, match="cannot reach"):
            await workspace.read("a")
    async with server(short_path):
        monkeypatch.setattr(client, "AGAIN_SECONDS", DEADLINE)
        assert (await workspace.run("echo up", timeout=10)).output == "up\n"
        assert workspace._reached, "the next one waits as long as the first"


@pytest.mark.parametrize("greeting", [b"", b"220 mail.example.org ESMTP\r\n", b"\n"])
async def test_something_else_at_the_socket_is_no_workspace(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, greeting: bytes
) -> None:
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.3)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_unix_server(serve, str(short_path / "w.sock")), asyncio.timeout(DEADLINE):
        with pytest.raises(WorkspaceError, match="cannot reach the workspace"):
            await SocketWorkspace(short_path / "w.sock").read("a")


async def test_a_connection_that_ends_in_the_middle_says_what_is_kept(short_path: Path) -> None:
    async with hostile(short_path, says(b'{"result": ')) as workspace:
        with pytest.raises(WorkspaceError, match="files are kept, processes are not"):
            await workspace.read("a")


async def test_what_is_taken_of_an_answer_is_bounded(short_path: Path) -> None:
    text = b"x" * 5_000_000
    result = {"exit_code": 0, "timed_out": False, "truncated": False}
    line = json.dumps({"result": result, "text": len(text)}).encode() + b"\n"
    async with hostile(short_path, says(line, text)) as workspace:
        assert len((await workspace.run("true", timeout=10)).output) == OUTPUT_LIMIT
    line = json.dumps({"result": None, "text": len(text)}).encode() + b"\n"
    async with hostile(short_path, says(line, text)) as workspace:
        assert len(await workspace.read("a")) == READ_LIMIT
    entries = [{"path": "x" * 5000, "kind": "file", "size": 1}] + [{"path": "y", "kind": "file", "size": 1}] * 2000
    listing = {"entries": entries, "truncated": False}
    async with hostile(short_path, says(json.dumps({"result": listing}).encode() + b"\n")) as workspace:
        found = await workspace.list()
        assert len(found.entries) == LIST_LIMIT
        assert len(found.entries[0].path) == 4096


async def test_a_request_that_no_server_would_take_is_not_sent(short_path: Path) -> None:
    async with server(short_path):
        workspace = SocketWorkspace(short_path / "w.sock")
        with pytest.raises(WorkspaceError, match="in parts"):
            await workspace.write("a", "x" * MESSAGE_LIMIT)
        await workspace.write("a", "x" * (MESSAGE_LIMIT - 1000))
        assert (await workspace.run("wc -c < a", timeout=10)).output == f"{MESSAGE_LIMIT - 1000}\n"


async def test_a_connection_in_the_backlog_of_a_dead_server_is_retried(short_path: Path) -> None:
    """The kernel accepts for it; a request that was sent there would be lost, or, worse, be taken for begun."""
    with sockets.socket(sockets.AF_UNIX) as dying:
        dying.bind(str(short_path / "w.sock"))
        dying.listen(10)
        calling = asyncio.create_task(SocketWorkspace(short_path / "w.sock").run("echo up", timeout=10))
        accepted, _ = await asyncio.to_thread(dying.accept)
        accepted.close()
    async with server(short_path), asyncio.timeout(DEADLINE):
        assert (await calling).output == "up\n"
