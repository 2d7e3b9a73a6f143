"""Figures of the session runtime: `python tests/bench/bench_runtime.py`. Prints one table; asserts no times.

Every figure of the runtime stands beside one of the bare libraries under it, from the same run on the same machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from session_runtime.wire import config_to_environment  # noqa: E402
from unit.runtime.harness import TOKEN, config, free_port  # noqa: E402

STARTS = 10
EVENTS = 10_000
FOLLOWERS = 1000
STUCK = 100

BARE = """
import asyncio, json, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse, PlainTextResponse
from starlette.routing import Route
async def ready(request): return PlainTextResponse("ok")
async def events(request):
    async def stream():
        for seq in range(1, int(sys.argv[2]) + 1):
            body = {"seq": seq, "type": "usage", "time": "", "submission_id": None, "data": {"n": seq}}
            yield f"id: {seq}\\ndata: {json.dumps(body)}\\n\\n".encode()
    return StreamingResponse(stream(), media_type="text/event-stream")
app = Starlette(routes=[Route("/readyz", ready), Route("/v1/events", events)])
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", access_log=False)
"""

FASTAPI = """
import sys, uvicorn, fastapi
app = fastapi.FastAPI()
@app.get("/readyz")
async def ready(): return "ok"
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", access_log=False)
"""


def main() -> None:
    rows: list[tuple[str, str]] = []
    start_figures(rows)
    replay_figures(rows)
    asyncio.run(stream_figures(rows))
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {figure}" for name, figure in rows))


# -- start and memory ----------------------------------------------------------------------------------------------


def start_figures(rows: list[tuple[str, str]]) -> None:
    for name, command in (
        ("start to ready", None),
        ("  of that: Python alone", [sys.executable, "-c", "pass"]),
        ("  a bare FastAPI app", [sys.executable, "-c", FASTAPI]),
    ):
        times = []
        memory = 0
        for _ in range(STARTS):
            with tempfile.TemporaryDirectory(prefix="as-") as folder:
                started = time.perf_counter()
                if command is not None and command[-1] == "pass":
                    subprocess.run(command, check=True)
                    times.append(time.perf_counter() - started)
                    continue
                with served(Path(folder), command) as (pid, _):
                    times.append(time.perf_counter() - started)
                    time.sleep(1.0)  # the agent's modules are imported behind the ready server
                    memory = resident(pid)
        rows.append((f"{name} (p50 / max of {STARTS})", f"{statistics.median(times):.2f} s / {max(times):.2f} s"))
        if memory:
            rows.append(("  memory when idle (RSS)", f"{memory / 1024:.0f} MiB"))


@contextmanager
def served(folder: Path, command: list[str] | None = None) -> Iterator[tuple[int, int]]:
    """A server that is ready: the runtime, or another one that takes its port as an argument; its pid and its port."""
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **config_to_environment(config())}
    runtime = [sys.executable, "-m", "session_runtime", "--port", str(port), "--state-dir", str(folder / "state")]
    process = subprocess.Popen(
        [*command, str(port), str(EVENTS)] if command else [*runtime, "--workspace-socket", str(folder / "w.sock")],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not _ready(port):
            time.sleep(0.002)
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b" 200 " in client.recv(100)
    except OSError:
        return False


def resident(pid: int) -> int:
    """KiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


# -- replay --------------------------------------------------------------------------------------------------------


def replay_figures(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory(prefix="as-") as folder:
        _fill(Path(folder) / "state")
        with served(Path(folder)) as (_, port):
            mine = min(_read_events(port) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), [sys.executable, "-c", BARE]) as (_, port):
        bare = min(_read_events(port) for _ in range(3))
    rows.append((f"replay of {EVENTS} events", f"{mine:.2f} s ({EVENTS / mine:,.0f} a second)"))
    rows.append(("  a bare Starlette stream of the same", f"{bare:.2f} s ({EVENTS / bare:,.0f} a second)"))


def _fill(state: Path) -> None:
    from session_runtime.events import Frame
    from session_runtime.store import Commit, Store

    store = Store(state)
    store.load()
    for start in range(1, EVENTS + 1, 1000):
        frames = []
        for seq in range(start, start + 1000):
            time_ = "2099-01-01T00:00:00.000Z"
            body = {"seq": seq, "type": "usage", "time": time_, "submission_id": None, "data": {"n": seq}}
            frames.append(Frame(seq, None, time_, json.dumps(body)))
        store.apply(Commit(tuple(frames)))
    store.close()


def _read_events(port: int) -> float:
    """Seconds until the last of the events has come."""
    started = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"GET /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        last = f"id: {EVENTS}\n".encode()
        tail = b""
        while last not in tail:
            tail = tail[-100:] + client.recv(1 << 20)
    return time.perf_counter() - started


# -- live ----------------------------------------------------------------------------------------------------------


async def stream_figures(rows: list[tuple[str, str]]) -> None:
    for followers, stuck in ((1, 0), (FOLLOWERS - STUCK, 0), (FOLLOWERS - STUCK, STUCK)):
        name = f"event to client, {followers} followers" + (f" beside {stuck} stuck ones" if stuck else "")
        rows.append((f"{name} (p50 / p99)", _milliseconds(await _latencies(followers, stuck))))


def _milliseconds(times: list[float]) -> str:
    times.sort()
    return f"{1000 * statistics.median(times):.1f} ms / {1000 * times[int(len(times) * 0.99)]:.1f} ms"


async def _latencies(followers: int, stuck: int) -> list[float]:
    """Seconds from the writing of an event to its arrival at one of the followers, for 100 events at 10 a second, which
    is how often a session that streams writes."""
    from datetime import UTC, datetime

    from agent.workspace import LocalWorkspace
    from session_runtime.app import create_app
    from session_runtime.engine import opener
    from session_runtime.journal import Change, Journal
    from session_runtime.metrics import Metrics
    from session_runtime.session import Session
    from session_runtime.store import Store

    def clock() -> datetime:
        return datetime.now(UTC)

    with tempfile.TemporaryDirectory(prefix="as-") as folder:
        store = Store(Path(folder))
        loaded = store.load()
        journal = Journal(store, 0, clock)
        # It never runs, so its agent is never opened.
        session = Session(config(), journal, loaded, opener(config(), LocalWorkspace(Path(folder))), clock)
        app = create_app(config(), session, journal, Metrics())
        running = asyncio.create_task(journal.run())
        async with _uvicorn(app) as port:
            crowd = [asyncio.create_task(_follow(port, None)) for _ in range(followers - 1)]
            idle = [await _open(port) for _ in range(stuck)]
            arrived: list[tuple[int, float]] = []
            first = asyncio.create_task(_follow(port, arrived))
            await asyncio.sleep(2.0)  # until all of them follow
            written: dict[int, float] = {}
            for n in range(100):
                now = time.perf_counter()
                commit = await journal.write(Change(journal.draft("usage", {"n": n, "padding": "x" * 1000})))
                written[commit.frames[-1].seq] = now
                await asyncio.sleep(0.1)
            await asyncio.sleep(1.0)
            for task in (first, *crowd):
                task.cancel()
            await asyncio.gather(first, *crowd, return_exceptions=True)
            for _, writer in idle:
                writer.transport.abort()
            journal.close()
        running.cancel()
        await asyncio.wait([running])
        await journal.release()
        assert len(arrived) == len(written)
        return [at - written[seq] for seq, at in arrived]


@asynccontextmanager
async def _uvicorn(app: Any) -> AsyncIterator[int]:
    from session_runtime.server import http_server

    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = http_server(app)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving


async def _open(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    return reader, writer


async def _follow(port: int, arrived: list[tuple[int, float]] | None) -> None:
    reader, writer = await _open(port)
    try:
        while line := await reader.readline():
            if arrived is not None and line.startswith(b"id: "):
                arrived.append((int(line[4:]), time.perf_counter()))
    finally:
        writer.transport.abort()


if __name__ == "__main__":
    main()
