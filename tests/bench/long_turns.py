"""Figures of single steps in a long turn, for `bench_agent.py`: what a step costs, and how long the event loop stands still.

Interrupts, health checks and followers of a session wait while it does. The servers run in a process of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

LENGTHS = (10, 500, 2000)
"""Messages in the history."""

STEPS = 10

WATCH_SECONDS = 0.001
"""How often the loop is asked whether it still turns."""

SERVER = f"""
import asyncio, sys
sys.path[:0] = [{str(ROOT / "tests")!r}]
from support.agent.openai_server import Answer, anthropic, serve
from itertools import repeat
call = {{"index": 0, "id": "", "type": "function", "function": {{"name": "echo", "arguments": '{{"text": "again"}}'}}}}
openai = Answer(({{"tool_calls": [call]}},), "tool_calls", usage=None)
start = {{"type": "tool_use", "id": "", "name": "echo", "input": {{}}}}
delta = {{"type": "input_json_delta", "partial_json": '{{"text": "again"}}'}}
class Forgetful(list):
    def append(self, item): super().append(None)
class Endless(list):
    def __getitem__(self, at): return super().__getitem__(0)
async def main():
    async with serve(openai) as one, serve(anthropic([start, delta], stop="tool_use")) as two:
        for server in (one, two):
            server.requests, server.answers = Forgetful(), Endless(server.answers)
        print(one.url, two.url, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@dataclass(frozen=True)
class Step:
    """Figures of one step, in seconds."""

    cpu: float
    """Of the whole process."""
    still: float
    """The longest time that the event loop did not turn."""


async def figures(table: Any) -> None:
    """Add rows with these figures to the table of `bench_agent.py`."""
    table.title("a step of a long turn: a model call and a tool call", *(f"{length} messages" for length in LENGTHS))
    with servers() as (openai_url, anthropic_url):
        for name, model, url in (
            ("an OpenAI-compatible server", "step", openai_url),
            ("Anthropic's API", "anthropic/claude-sonnet-4-5", anthropic_url.removesuffix("/v1")),
        ):
            measured = [await steps(model, url, length) for length in LENGTHS]
            for title, pick in (("CPU", "cpu"), ("loop stands still", "still")):
                medians = (1000 * statistics.median(getattr(step, pick) for step in found) for found in measured)
                table.add(f"{name}: {title}", *(f"{median:.1f} ms" for median in medians))


async def steps(model: str, url: str, length: int) -> list[Step]:
    """One turn behind a history of so many messages; its first step is left out, because it loads what is loaded once."""
    from agent.config import AgentConfig
    from agent.conversation import Conversation
    from agent.events import Event
    from agent.loop.agent import Agent
    from agent.model.model import LiteLLMModel
    from agent.tools.router import ToolRouter
    from agent.tools.tool import Tool, parameters

    found: list[Step] = []
    stills: list[float] = []
    began = [time.process_time()]

    async def emit(event: Event) -> None:
        if event.type == "tool_output":
            found.append(Step(time.process_time() - began[0], max(stills, default=0)))
            began[0] = time.process_time()
            stills.clear()

    async def echo(arguments: dict[str, Any]) -> str:
        return str(arguments["text"])

    tool = Tool("echo", "Say it again.", parameters("text", text={"type": "string"}), echo)
    client = LiteLLMModel(model, base_url=url, api_key="none")
    config = AgentConfig(model, max_iterations=STEPS + 1, context_window=10_000_000)
    agent = Agent(config, client, ToolRouter((tool,)), emit, Conversation(tuple(history(length))))
    async with watched(stills):
        await agent.run_turn("go on")
    return found[1:]


def history(length: int) -> Iterator[Any]:
    """Messages as a turn of many tool calls leaves them: 2,000 characters for each result."""
    from agent.messages import Message, ToolCall

    yield Message("user", "Look at all the files.")
    for number in range((length - 1) // 2):
        call = ToolCall(f"call_{number}", "bash", json.dumps({"command": f"cat file_{number}.py"}))
        yield Message("assistant", "", (call,))
        yield Message("tool", f"line of file {number:6}\n" * 100, tool_call_id=call.id)
    yield Message("assistant", "All seen.")


@contextlib.asynccontextmanager
async def watched(stills: list[float]) -> AsyncIterator[None]:
    """Note for how long the event loop did something else each time."""

    async def watch() -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(WATCH_SECONDS)
            stills.append(time.perf_counter() - asked - WATCH_SECONDS)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """Addresses of servers that answer each request with a tool call: OpenAI's protocol and Anthropic's."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        one, two = process.stdout.readline().split()
        yield one, two
    finally:
        process.kill()
        process.communicate()
