"""`make bench-runtime`: the session runtime measured, as a table. Prints; asserts no times.

Figures stand beside those of the bare libraries (`bare.py`), from the same run on the same machine: the ratios count, a busy
machine moves the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from agent.workspace.local import LocalWorkspace  # noqa: E402 - after the path
from bench.bare import BURST, EVENTS  # noqa: E402
from bench.table import row, title  # noqa: E402
from session_runtime.__main__ import bind  # noqa: E402
from session_runtime.agent_assembly import opener  # noqa: E402
from session_runtime.http.app import create_app  # noqa: E402
from session_runtime.http.server import http_server  # noqa: E402
from session_runtime.reporting.metrics import Metrics  # noqa: E402
from session_runtime.session.events import Frame  # noqa: E402
from session_runtime.session.journal import Change, Journal  # noqa: E402
from session_runtime.session.session import Session  # noqa: E402
from session_runtime.session.store import Commit, Store  # noqa: E402
from session_runtime.wire import AgentSettings, config_to_environment  # noqa: E402
from support.agent import openai_server  # noqa: E402
from support.runtime.harness import TOKEN, config, free_port, runtime_process  # noqa: E402
from support.runtime.sse import StuckFollower, request  # noqa: E402

STARTS = 10
TURNS = 100
FOLLOWERS = 900
STUCK = 100
ROUNDS = 3
WRITES = 24
"""Events of a latency measurement, four a second, which is how often a session that streams writes."""

FILLERS = 4
"""Events of 100 kB each that come before, so that those who take nothing are stuck by then."""


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    title("Start and memory")
    start_figures()
    asyncio.run(memory_figures())
    title("Events")
    asyncio.run(first_chunk_figures())
    asyncio.run(burst_figures())
    replay_figures()
    title(f"{FOLLOWERS} followers, and {STUCK} that are stuck")
    asyncio.run(crowd_figures())


def spread(times: list[float]) -> str:
    """Median and 99th percentile."""
    times = sorted(times)
    return f"{1000 * statistics.median(times):.1f} ms / {1000 * times[int(len(times) * 0.99)]:.1f} ms"


def times_as_much(mine: float, theirs: float) -> str:
    return f"{mine / theirs:.2f} times as much"


# -- start and memory ----------------------------------------------------------------------------------------------


def start_figures() -> None:
    importing = "import gc; gc.disable(); import session_runtime.process"
    kinds: dict[str, Callable[[], None]] = {
        "python": lambda: run([sys.executable, "-c", "pass"]),
        "imports": lambda: run([sys.executable, "-c", importing]),
        "ready": lambda: start(None),
        "bare": lambda: start("fastapi"),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    cpu = dict.fromkeys(kinds, 0.0)
    for _ in range(STARTS):  # in turn, so that all see the same machine
        for kind, do in kinds.items():
            used, began = cpu_of_children(), time.perf_counter()
            do()
            times[kind].append(time.perf_counter() - began)
            cpu[kind] += (cpu_of_children() - used) / STARTS
    at = {kind: statistics.median(values) for kind, values in times.items()}
    row("process start to ready, at most 1 s (median / CPU time)", f"{at['ready']:.2f} s / {cpu['ready']:.2f} s")
    row("  of that: Python", f"{at['python']:.2f} s / {cpu['python']:.2f} s")
    row("  of that: imports", f"{at['imports'] - at['python']:.2f} s / {cpu['imports'] - cpu['python']:.2f} s")
    row("  of that: the rest", f"{at['ready'] - at['imports']:.2f} s / {cpu['ready'] - cpu['imports']:.2f} s")
    row("a bare FastAPI application to ready", f"{at['bare']:.2f} s / {cpu['bare']:.2f} s")
    row("  the runtime beside it", times_as_much(at["ready"], at["bare"]))


def cpu_of_children() -> float:
    """Seconds that ended child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


def start(bare: str | None) -> None:
    with tempfile.TemporaryDirectory(prefix="as-") as folder, served(Path(folder), bare):
        pass


@contextmanager
def served(folder: Path, bare: str | None, **fields: object) -> Iterator[tuple[int, str]]:
    """A server that is ready, the runtime or a bare one; its pid and its URL."""
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **config_to_environment(config(**fields))}
    environment["AGENTSESSION_CREDENTIAL_OPENAI_API_KEY"] = "sk-none"
    runtime = ["-m", "session_runtime", "--port", str(port), "--state-dir", str(folder / "state")]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/bench/bare.py"), bare, str(port)]
        if bare
        else [sys.executable, *runtime, "--workspace-socket", str(folder / "w.sock")],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url) as http:
            while not _ready(http):
                time.sleep(0.002)
        yield process.pid, url
    finally:
        process.kill()
        process.wait()


def _ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


async def memory_figures() -> None:
    answer = openai_server.Answer(deltas=({"content": "Hello."},))
    async with openai_server.serve(answer) as model:
        settings = AgentSettings(model="openai/some-model", base_url=model.url)
        with tempfile.TemporaryDirectory(prefix="as-") as folder, served(Path(folder), None, agent=settings) as (pid, url):
            async with client(url) as http:
                await arrival(http, "ready")  # the agent's modules are imported behind the server that is ready
                row("memory when idle, before the first turn (RSS)", f"{resident(pid):.0f} MiB")
                await http.post("/v1/submissions", json={"id": "a", "type": "user_input", "text": "Hello?"})
                await arrival(http, "turn_complete")
                row("memory when idle, after it (litellm is imported)", f"{resident(pid):.0f} MiB")
    with tempfile.TemporaryDirectory(prefix="as-") as folder, served(Path(folder), "fastapi") as (pid, _):
        row("memory of a bare FastAPI application", f"{resident(pid):.0f} MiB")


def resident(pid: int) -> float:
    """MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


# -- events --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        yield http


async def follow(http: httpx.AsyncClient, seen: Callable[[int, str, str | None], bool]) -> None:
    """Follow the events until `seen` says that it is enough; it is given the number, the type and the submission of each."""
    async with http.stream("GET", "/v1/events") as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                event = json.loads(line[6:])
                if seen(event["seq"], event["type"], event["submission_id"]):
                    return


async def arrival(http: httpx.AsyncClient, type_: str) -> None:
    await follow(http, lambda _, seen, __: seen == type_)


async def first_chunk_figures() -> None:
    with tempfile.TemporaryDirectory(prefix="as-") as folder:
        async with runtime_process(Path(folder), *[{"text": "Hello."}] * (TURNS + 1)) as run:
            mine = await first_chunks(run.url)
    with tempfile.TemporaryDirectory(prefix="as-") as folder, served(Path(folder), "live") as (_, url):
        theirs = await first_chunks(url)
    row("submit to first chunk (median / p99)", spread(mine))
    row("  a bare Starlette queue, nothing kept", spread(theirs))
    row("  the runtime beside it", times_as_much(statistics.median(mine), statistics.median(theirs)))


async def first_chunks(url: str) -> list[float]:
    """Seconds from a submission to the first piece of its answer, for so many turns one after the other."""
    chunks: dict[str | None, float] = {}
    ended = asyncio.Event()

    def seen(_: int, type_: str, submission: str | None) -> bool:
        if type_ == "assistant_chunk":
            chunks.setdefault(submission, time.perf_counter())
        if type_ == "turn_complete":
            ended.set()
        return False

    times = []
    async with client(url) as http:
        following = asyncio.create_task(follow(http, seen))
        for turn in range(TURNS + 1):
            started = time.perf_counter()
            await http.post("/v1/submissions", json={"id": f"turn-{turn}", "type": "user_input", "text": "Hello?"})
            await ended.wait()
            ended.clear()
            times.append(chunks[f"turn-{turn}"] - started)
        following.cancel()
        await asyncio.wait([following])
    return times[1:]  # the first one finds nothing warm


async def burst_figures() -> None:
    async with in_process() as (journal, url), client(url) as http:
        mine = await burst(http, lambda: _write_burst(journal))
    with tempfile.TemporaryDirectory(prefix="as-") as folder, served(Path(folder), "live") as (_, url):
        async with client(url) as http:
            theirs = await burst(http, lambda: http.post("/burst"))
    row(f"{BURST} events, written and followed", f"{BURST / mine:,.0f} a second")
    row("  a bare Starlette queue, nothing written", f"{BURST / theirs:,.0f} a second")


async def _write_burst(journal: Journal) -> object:
    return await asyncio.gather(*(journal.write(Change(journal.draft("usage", {"n": n}))) for n in range(BURST)))


async def burst(http: httpx.AsyncClient, write: Callable[[], Awaitable[object]]) -> float:
    """Seconds until a follower has the last of the events that `write` makes."""
    following = asyncio.create_task(follow(http, lambda seq, _, __: seq == BURST))
    await asyncio.sleep(0.5)  # until it follows
    started = time.perf_counter()
    await write()
    await following
    return time.perf_counter() - started


def replay_figures() -> None:
    with tempfile.TemporaryDirectory(prefix="as-") as folder:
        _fill(Path(folder) / "state")
        with served(Path(folder), None) as (_, url):
            mine = min(_read_events(url) for _ in range(5))
    with tempfile.TemporaryDirectory(prefix="as-") as folder, served(Path(folder), "events") as (_, url):
        theirs = min(_read_events(url) for _ in range(5))
    row(f"replay of {EVENTS} events from the disk", f"{mine:.2f} s, {EVENTS / mine:,.0f} a second")
    row("  a bare Starlette stream that makes them up", f"{theirs:.2f} s, {EVENTS / theirs:,.0f} a second")


def _fill(state: Path) -> None:
    store = Store(state)
    store.load()
    frames = []
    for seq in range(1, EVENTS + 1):
        when = "2099-01-01T00:00:00.000Z"
        body = {"seq": seq, "type": "usage", "time": when, "submission_id": None, "data": {"n": seq}}
        frames.append(Frame(seq, None, when, json.dumps(body)))
    store.apply(Commit(tuple(frames)))
    store.close()


def _read_events(url: str) -> float:
    """Seconds until the last of the events has come; the client only looks for its number."""
    last = f"id: {EVENTS}\n".encode()
    started = time.perf_counter()
    with httpx.stream("GET", f"{url}/v1/events", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        tail = b""
        for data in response.iter_raw():
            tail = tail[-100:] + data
            if last in tail:
                break
    return time.perf_counter() - started


# -- a crowd -------------------------------------------------------------------------------------------------------


async def crowd_figures() -> None:
    row("event to follower: one follower (median / p99)", spread(await latencies(1, 0)))
    without, beside = [], []
    for _ in range(ROUNDS):  # in turn, so that both see the same machine
        without += await latencies(FOLLOWERS, 0)
        beside += await latencies(FOLLOWERS, STUCK)
    row(f"event to follower: {FOLLOWERS}", spread(without))
    row(f"event to follower: {FOLLOWERS} beside {STUCK} stuck ones", spread(beside))
    row("  beside those without stuck ones", times_as_much(statistics.median(beside), statistics.median(without)))


@asynccontextmanager
async def in_process() -> AsyncIterator[tuple[Journal, str]]:
    """A journal behind the runtime's HTTP server, in this process; its session takes nothing."""

    def clock() -> datetime:
        return datetime.now(UTC)

    with tempfile.TemporaryDirectory(prefix="as-") as folder:
        store = Store(Path(folder))
        loaded = store.load()
        journal = Journal(store, 0, clock)
        session = Session(config(), journal, loaded, opener(config(), LocalWorkspace(Path(folder))), clock)
        writing = asyncio.create_task(journal.run())
        listener = bind(0, 60_000)
        server = http_server(create_app(config(), session, journal, Metrics()))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield journal, f"http://127.0.0.1:{listener.getsockname()[1]}"
        journal.close()
        server.should_exit = True
        await serving
        writing.cancel()
        await asyncio.wait([writing])
        await journal.release()


async def latencies(followers: int, stuck: int) -> list[float]:
    """Seconds from the beginning of an event's writing to its arrival at one of the followers."""
    async with in_process() as (journal, url):
        crowd = [asyncio.create_task(_take(url, None)) for _ in range(followers - 1)]
        idle = [StuckFollower(url) for _ in range(stuck)]
        arrived: list[tuple[int, float]] = []
        crowd.append(asyncio.create_task(_take(url, arrived)))
        await asyncio.sleep(3.0)  # until all of them follow
        for _ in range(FILLERS):
            await journal.write(Change(journal.draft("usage", {"padding": "x" * 100_000})))
        await asyncio.sleep(3.0)
        written: dict[int, float] = {}
        for n in range(WRITES):
            started = time.perf_counter()
            commit = await journal.write(Change(journal.draft("usage", {"n": n, "padding": "x" * 1000})))
            written[commit.frames[-1].seq] = started
            await asyncio.sleep(0.25)
        await asyncio.sleep(1.0)
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        for one in idle:
            one.close()
        return [at - written[seq] for seq, at in arrived if seq in written]


async def _take(url: str, arrived: list[tuple[int, float]] | None) -> None:
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=2**20)
    writer.write(request(0, ""))
    try:
        while line := await reader.readline():
            if arrived is not None and line.startswith(b"id: "):
                arrived.append((int(line[4:]), time.perf_counter()))
    finally:
        writer.transport.abort()


if __name__ == "__main__":
    main()
