"""The process around the session: what it does when something in it breaks, and with clients that misbehave."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from pathlib import Path

import httpx
import pytest

from agent.testing import says
from session_runtime import server
from session_runtime.server import FAILED
from unit.runtime.harness import DEADLINE, TOKEN, Runtime, eventually, runtime

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


async def test_a_connection_that_says_nothing_is_dropped(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    async with runtime(short_path) as run:
        url = httpx.URL(run.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET /healthz HT")  # and never the rest
        async with asyncio.timeout(DEADLINE):
            assert await reader.read() == b""
        writer.close()
        assert (await run.http.get("/healthz")).status_code == 200
