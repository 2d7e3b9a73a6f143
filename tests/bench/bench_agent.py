"""Figures of the agent loop: `make bench-agent`. Prints one table; asserts no times.

Every figure stands beside those of a bare litellm call and of the openai-agents loop, taken in turns in the same run, from
processes of their own, against one scripted server. openai-agents needs other versions than ours of the libraries below both,
so it lives in an environment of its own, whose Python is the one argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench import long_turns  # noqa: E402 - after the path

STARTS = 3
ROUNDS = 15
"""Many and short, so that within one of them the machine is the same for all."""
TALKS = 5
STEPS = 10
CHUNKS = 50
IDLE_SECONDS = 10
HISTORY_TOKENS = 200_000

BARE = "bare litellm"
"""What every ratio is a ratio to."""

SCRIPTS = {
    "talk": [{"content": "word " * CHUNKS}],
    "work": [
        *({"tools": [{"name": "echo", "arguments": {"text": "again"}}]} for _ in range(STEPS)),
        {"content": "word " * CHUNKS},
    ],
}
"""One model call; and as many more as `STEPS`, each with a tool call."""

SERVER = f"""
import json, sys
sys.path[:0] = [{str(ROOT / "tests" / "support")!r}]
from http.server import ThreadingHTTPServer
import scripted_openai
scripted_openai.REQUESTS = type("Forgetful", (list,), {{"append": lambda self, item: None}})()
scripted_openai.Handler.scripts = json.loads(sys.argv[1])
server = ThreadingHTTPServer(("127.0.0.1", 0), scripted_openai.Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""

IMPORT = "import resource, sys; sys.path[:0] = [{root!r}]; {code}; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"

SESSION = (
    "import agent.loop.agent, agent.model.model, agent.tools.mcp.connection, agent.tools.plan, agent.tools.web_fetch, "
    "agent.tools.workspace"
)
"""What the engine of the session runtime imports before the first turn."""

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
}


def main() -> None:
    table = Table()
    with server() as url:
        contenders = {BARE: sys.executable, "agentsession": sys.executable}
        if len(sys.argv) > 1:
            contenders |= {"openai-agents": sys.argv[1], "openai-agents+litellm": sys.argv[1]}
        loop_figures(table, contenders, url)
        start_figures(table)
        idle_figures(table, url)
    asyncio.run(history_figures(table))
    asyncio.run(long_turns.figures(table))
    print(table)


@dataclass
class Table:
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, name: str, *figures: str) -> None:
        self.rows.append((name, *figures))

    def title(self, name: str, *columns: str) -> None:
        if self.rows:
            self.rows.append(("",))
        self.rows.append((name, *columns))

    def __str__(self) -> str:
        first = max(len(row[0]) for row in self.rows)
        width = 2 + max(len(cell) for row in self.rows for cell in row[1:])
        return "\n".join((f"{row[0]:<{first}}" + "".join(f"{cell:>{width}}" for cell in row[1:])).rstrip() for row in self.rows)


# -- the loop ------------------------------------------------------------------------------------------------------


class Contender:
    """A process that runs turns when it is told to."""

    def __init__(self, python: str, name: str, url: str) -> None:
        self.talk: list[tuple[float, float]] = []
        self.work: list[tuple[float, float]] = []
        """Seconds and CPU seconds of a round."""
        self.starts: list[float] = []
        script = str(Path(__file__).with_name("contenders.py"))
        for _ in range(STARTS):
            began = time.perf_counter()
            self._process = subprocess.Popen(
                [python, script, name, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
            )
            first = self._read()
            self.first_memory, self.versions = first["memory"], first["versions"]
            self.starts.append(time.perf_counter() - began)
            if len(self.starts) < STARTS:
                self.close()
        self.memory = 0

    def run(self, script: str, times: int) -> tuple[float, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{script} {times}\n")
        self._process.stdin.flush()
        figures = self._read()
        self.memory = figures["memory"]
        return figures["wall"], figures["cpu"]

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a contender ended before its time; what it said is above")
        figures: dict[str, Any] = json.loads(line)
        return figures


def loop_figures(table: Table, pythons: dict[str, str], url: str) -> None:
    contenders = {name: Contender(python, name, url) for name, python in pythons.items()}
    for _ in range(ROUNDS):
        for contender in contenders.values():
            contender.talk.append(contender.run("talk", TALKS))
            contender.work.append(contender.run("work", 1))
    for contender in contenders.values():
        contender.close()
    table.title(f"the loop (median of {ROUNDS} rounds)", *contenders)
    for at, kind in enumerate(("time", "CPU")):
        calls = {name: [talk[at] / TALKS for talk in c.talk] for name, c in contenders.items()}
        steps = {
            name: [(work[at] - call) / STEPS for work, call in zip(c.work, calls[name], strict=True)]
            for name, c in contenders.items()
        }
        for name, figures in ((f"a model call, {CHUNKS} chunks", calls), ("a model call and a tool call", steps)):
            table.add(f"{name}: {kind}", *(f"{1000 * statistics.median(figures[c]):.2f} ms" for c in contenders))
            table.add("  ratio", *(f"{ratio(figures[c], figures[BARE]):.2f}" for c in contenders))
    for name, memory in (
        ("memory after the first turn", {n: c.first_memory for n, c in contenders.items()}),
        (f"memory after {ROUNDS * (TALKS + 1) + 1} turns", {n: c.memory for n, c in contenders.items()}),
    ):
        table.add(name, *(mebibytes(memory[c]) for c in contenders))
        table.add("  ratio", *(f"{memory[c] / memory[BARE]:.2f}" for c in contenders))
    starts = {name: min(c.starts) for name, c in contenders.items()}
    table.add(f"from nothing to the end of a turn (least of {STARTS})", *(f"{starts[c]:.2f} s" for c in contenders))
    table.add("  ratio", *(f"{starts[c] / starts[BARE]:.2f}" for c in contenders))
    for contender in contenders.values():
        table.add(f"  {contender.versions}")


def ratio(figures: list[float], bare: list[float]) -> float:
    """The median of the ratios of each round: what else the machine does, it does to both."""
    return statistics.median(mine / theirs for mine, theirs in zip(figures, bare, strict=True))


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The scripted server, in a process of its own; its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, json.dumps(SCRIPTS)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.kill()
        process.communicate()


# -- starting and waiting --------------------------------------------------------------------------------------------


def start_figures(table: Table) -> None:
    table.title(f"starting (median of {STARTS})", "time", "memory")
    for name, code in (
        ("Python alone", "pass"),
        ("import agent", "import agent"),
        ("what a session imports", SESSION),
        ("  and litellm, with the first model call", f"{SESSION}; agent.model.model.load_litellm()"),
        ("python -m agent, to its prompt", "import agent.__main__"),
        ("import litellm", "import litellm"),
    ):
        times, memory = [], []
        for _ in range(STARTS):
            began = time.perf_counter()
            command = [sys.executable, "-c", IMPORT.format(root=str(ROOT), code=code)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT, cwd="/")
            times.append(time.perf_counter() - began)
            memory.append(int(done.stdout))
        table.add(name, f"{statistics.median(times):.2f} s", mebibytes(int(statistics.median(memory))))


def idle_figures(table: Table, url: str) -> None:
    table.title(f"python -m agent idle ({IDLE_SECONDS} s)", "CPU", "wake-ups", "memory")
    command = [sys.executable, "-m", "agent", "--model", "talk", "--base-url", url, "--workdir", "/tmp"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for name, typed in (("before the first turn", b""), ("after it", b"hello\n")):
            process.stdin.write(typed)
            process.stdin.flush()
            shown = b""
            while not shown.endswith(b"\n> "):
                shown += os.read(process.stdout.fileno(), 65536)
            before = spent(process.pid)
            time.sleep(IDLE_SECONDS)
            cpu, wakes = (after - was for after, was in zip(spent(process.pid), before, strict=True))
            table.add(name, f"{1000 * cpu:.0f} ms", f"{wakes}", mebibytes(status(process.pid, "VmRSS")))
    finally:
        process.kill()
        process.communicate()


def spent(pid: int) -> tuple[float, int]:
    """CPU seconds, and how often it was woken."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"), status(pid, "voluntary_ctxt_switches")


def status(pid: int, name: str) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def mebibytes(kibibytes: int) -> str:
    return f"{kibibytes / 1024:.0f} MiB"


# -- a long history ------------------------------------------------------------------------------------------------


async def history_figures(table: Table) -> None:
    from agent.config import AgentConfig
    from agent.conversation import Conversation
    from agent.events import Event
    from agent.loop.agent import Agent
    from agent.loop.compaction import total_tokens
    from agent.messages import Message, ToolCall
    from agent.testing import ScriptedModel, says
    from agent.tools.router import ToolRouter

    async def emit(event: Event) -> None:
        events.append(event)

    def exchange(number: int) -> list[Message]:
        call = ToolCall(f"call_{number}", "bash", json.dumps({"command": f"cat file_{number}.py"}))
        result = Message("tool", f"line of file {number}\n" * 300, tool_call_id=call.id)
        return [
            Message("user", f"look at file {number}"),
            Message("assistant", "", (call,)),
            result,
            Message("assistant", "seen"),
        ]

    messages: list[Message] = []
    while total_tokens(messages) < HISTORY_TOKENS:
        messages.extend(exchange(len(messages)))
    events: list[Event] = []
    table.title(f"a history of {HISTORY_TOKENS:,} tokens, {len(messages)} messages", "time")

    model = ScriptedModel(*(says("word " * CHUNKS, piece=5) for _ in range(ROUNDS)), context_window=1_000_000)
    turns = []
    for _ in range(ROUNDS):
        agent = Agent(AgentConfig("scripted"), model, ToolRouter(()), emit, Conversation(tuple(messages)))
        began = time.perf_counter()
        await agent.run_turn("go on")
        turns.append(time.perf_counter() - began)
    table.add(f"the loop's own part of a model call, {CHUNKS} chunks", f"{1000 * min(turns):.1f} ms")

    times, sizes = [], {}
    for _ in range(ROUNDS):
        model = ScriptedModel(says("What was found: " + "word " * 400), context_window=HISTORY_TOKENS)
        agent = Agent(AgentConfig("scripted"), model, ToolRouter(()), emit, Conversation(tuple(messages)))
        began = time.perf_counter()
        await agent.compact()
        times.append(time.perf_counter() - began)
        sizes = next(event.data for event in reversed(events) if event.type == "compacted")
    table.add(f"compaction to {sizes['tokens_after']:,} tokens, without the model's time", f"{1000 * min(times):.1f} ms")

    conversation, times = Conversation(tuple(messages)), []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        text = conversation.to_json()
        times.append(time.perf_counter() - began)
    table.add(f"its state as JSON, {len(text) / 1024:.0f} KiB", f"{1000 * min(times):.1f} ms")


if __name__ == "__main__":
    main()
