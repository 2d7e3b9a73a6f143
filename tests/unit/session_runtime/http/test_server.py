"""The process around the session: what it does when something in it breaks, and with clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import sqlite3
from pathlib import Path

import httpx
import pytest

from agent.testing import says
from session_runtime.__main__ import MAX_FILES
from session_runtime.client.client import SessionClient
from session_runtime.http import app, server
from session_runtime.process import FAILED
from support.runtime.harness import DEADLINE, TOKEN, Runtime, RuntimeProcess, eventually, runtime, runtime_process
from support.runtime.sse import Follower

pytestmark = pytest.mark.anyio


async def test_a_part_that_dies_is_named_and_ends_the_process(short_path: Path) -> None:
    async with runtime(short_path) as run:
        assert (await run.http.get("/readyz")).text == "ok\n"
        await run.until("ready")
        with sqlite3.connect(short_path / "state" / "session.db") as database:
            database.execute("DROP TABLE submissions")
        database.close()
        asking = asyncio.create_task(run.submit("undo"))
        answers: list[httpx.Response] = []

        async def not_ready() -> bool:
            answers.append(await run.http.get("/readyz"))
            return answers[-1].status_code == 503

        await eventually(not_ready)
        assert "journal: OperationalError: no such table: " in answers[-1].text
        assert (await asking).status_code == 500
        assert await run.ended() == FAILED
        assert run.termination_log.read_text() == ""


def _connect(run: Runtime) -> socket.socket:
    """A client that asks for the events and takes nothing."""
    url = httpx.URL(run.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((url.host, url.port))
    request = f"GET /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    client.sendall(request.encode())
    return client


async def _subscribers(run: Runtime) -> float:
    lines = (await run.http.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("agentsession_event_subscribers "))


async def test_a_stuck_client_is_dropped_and_holds_nobody_up(short_path: Path) -> None:
    answer = says("x" * 4_000_000, piece=100_000)
    async with runtime(short_path, answer, stuck_milliseconds=300) as run:
        stuck = [_connect(run) for _ in range(5)]
        for client in stuck:
            client.setblocking(False)

        async def all_follow() -> bool:
            return await _subscribers(run) == len(stuck)

        await eventually(all_follow)
        await run.submit("user_input", text="talk", id="talk")
        events = await run.events(submission="talk")
        assert sum(len(e.data["text"]) for e in events if e.type == "assistant_chunk") == 4_000_000

        async def none_follow() -> bool:
            return await _subscribers(run) == 0

        await eventually(none_follow)
        for client in stuck:
            client.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /healthz HT",  # and never the rest
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HT",  # a second request on the same connection
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",  # answered, and its body never comes
    ],
)
async def test_a_connection_whose_request_does_not_come_is_dropped(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    async with runtime(short_path) as run:
        reader, writer = await _open(run)
        writer.write(said)
        dribbling = asyncio.create_task(_dribble(writer))
        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(ConnectionError):
                await reader.read()  # up to the end of the connection
        dribbling.cancel()
        await asyncio.wait([dribbling])
        writer.close()
        assert (await run.http.get("/healthz")).status_code == 200


async def test_a_body_that_comes_too_slowly_is_refused(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.3)
    async with runtime(short_path) as run:
        reader, writer = await _open(run)
        head = f"POST /v1/submissions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n"
        writer.write(head.encode())
        dribbling = asyncio.create_task(_dribble(writer))
        async with asyncio.timeout(DEADLINE):
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408 ")
        dribbling.cancel()
        await asyncio.wait([dribbling])
        writer.close()


async def test_a_stream_is_not_taken_for_a_slow_request(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.1)
    monkeypatch.setattr(app, "BODY_SECONDS", 0.1)
    async with runtime(short_path, says("slow " * 10, delay=0.1)) as run, run.client() as client:
        follower = Follower(run.url)
        following = asyncio.create_task(follower.follow(until="turn_complete"))  # over one connection
        result = await client.run("talk")
        async with asyncio.timeout(DEADLINE):
            await following
        assert [json.loads(body)["seq"] for body in follower.bodies] == list(range(1, result.seq + 1))


async def _open(run: Runtime | RuntimeProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = httpx.URL(run.url)
    return await asyncio.open_connection(url.host, url.port)


async def _dribble(writer: asyncio.StreamWriter) -> None:
    """A byte now and then, which is what keeps most timeouts from coming."""
    while True:
        await asyncio.sleep(0.05)
        writer.write(b"x")


async def test_a_body_of_100_megabytes_is_refused_and_takes_no_memory(short_path: Path) -> None:
    head = f"POST /v1/submissions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    declared, undeclared = b"Content-Length: 100000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
    async with runtime_process(short_path, prompt=None) as run:
        await run.until("ready")
        before = run.memory()
        reader, writer = await _open(run)
        writer.write(head + declared)  # refused before anything of it is sent
        async with asyncio.timeout(DEADLINE):
            assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
        writer.close()
        for framing in (declared, undeclared):
            assert await _pour(run, head + framing, chunked=framing is undeclared) < 50_000_000
        assert (await run.get("/v1/session")).status_code == 200
        assert run.memory() - before < 16_000_000


async def _pour(run: RuntimeProcess, head: bytes, *, chunked: bool) -> int:
    """Send a body of 100 MB and ignore the answer. Returns the bytes taken until the connection was closed."""
    piece, taken = b" " * 100_000, 0
    _, writer = await _open(run)
    writer.write(head)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(DEADLINE):
            for _ in range(1000):
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
                taken += len(piece)
    writer.transport.abort()
    return taken


async def test_a_runtime_lets_itself_have_many_connections(short_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with runtime_process(short_path, prompt=None) as run:
            assert run.process is not None
            now, _ = resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert now == (MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard))


async def test_an_idle_runtime_sleeps(short_path: Path) -> None:
    """A hundred sessions on a node that wake ten times a second keep a core awake."""
    async with runtime_process(short_path, {"text": "hello"}) as run, run.client() as client, asyncio.timeout(2 * DEADLINE):
        await client.run("hi")
        assert run.process is not None
        status = Path(f"/proc/{run.process.pid}/status")

        def wakeups() -> int:
            lines = status.read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))

        await asyncio.sleep(2)  # what the turn left to do
        before = wakeups()
        await asyncio.sleep(10)
        assert wakeups() - before <= 20


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_a_session_answers_over_ipv4_and_ipv6(host: str, short_path: Path) -> None:
    async with runtime(short_path) as run:
        url = f"http://{host}:{httpx.URL(run.url).port}"
        async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(DEADLINE):
            assert (await http.get(f"{url}/healthz")).is_success
        async with SessionClient(url, TOKEN) as client, asyncio.timeout(DEADLINE):
            assert (await client.info())["is_active"]


async def test_connections_without_a_request_give_way(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_runtime.http.server.MAX_CONNECTIONS", 10)
    async with runtime(short_path) as run, asyncio.timeout(DEADLINE):
        port = int(run.url.rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        assert (await run.http.get("/v1/session")).status_code == 200

        def closed() -> int:
            return sum(reader.at_eof() or reader.exception() is not None for reader, _ in idle)

        await eventually(lambda: closed() >= 30)
        for _, writer in idle:
            writer.transport.abort()
