"""A person at a terminal: `python -m session_runtime chat`, with a real runtime."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.testing import calls, says
from session_runtime.wire import AgentSettings, McpServerSettings
from support.agent.mcp_http import http, mcp_app
from support.runtime.harness import DEADLINE, ROOT, TOKEN, asking, eventually, runtime, runtime_process

pytestmark = pytest.mark.anyio


@dataclass
class Person:
    """Types, and reads what is printed."""

    process: asyncio.subprocess.Process
    printed: str = ""

    async def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def read(self) -> None:
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(4096):
            self.printed += data.decode()

    async def sees(self, text: str, times: int = 1) -> None:
        await eventually(lambda: self.printed.count(text) >= times)

    def press_ctrl_c(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def end(self) -> int:
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()


@asynccontextmanager
async def chat(url: str, token: str = TOKEN, *options: str) -> AsyncIterator[Person]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "session_runtime", "chat", url, *options),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "AGENTSESSION_TOKEN": token},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    person = Person(process)
    reading = asyncio.create_task(person.read())
    try:
        yield person
        await person.end()
        await reading
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_turn_is_shown_and_the_end_of_input_leaves(short_path: Path) -> None:
    script = (calls(("bash", {"command": "echo found"})), says("There it is."))
    async with runtime(short_path, *script) as run:
        async with chat(run.url) as person:
            assert person.process.stdin is not None
            for line in ("look", "/undo", "/nonsense"):
                await person.type(line)
            person.process.stdin.close()
            assert await person.end() == 0
        assert 'call      bash {"command": "echo found"}' in person.printed
        assert "output    found" in person.printed
        assert person.printed.count("There it is.") == 1
        assert "undo      4 messages taken back" in person.printed
        assert "Unknown command /nonsense." in person.printed
        assert TOKEN not in person.printed


async def test_a_call_that_needs_consent_is_shown_and_decided(short_path: Path) -> None:
    script = (
        {"calls": [["bash", {"command": "echo bought"}]]},
        {"calls": [["bash", {"command": "echo more"}]]},
        {"text": "That is all."},
    )
    async with runtime_process(short_path, *script, agent=asking("*")) as run:
        async with chat(run.url) as person:
            await person.type("shop")
            await person.sees('waiting for /approve or /deny: bash {"command": "echo bought"}')
            await person.type("/approve")
            await person.sees("output    bought")
            await person.sees('waiting for /approve or /deny: bash {"command": "echo more"}')
            person.press_ctrl_c()
            assert await person.end() == 130
        async with chat(run.url) as person:  # somebody else sees it too
            await person.sees('waiting for /approve or /deny: bash {"command": "echo more"}')
            await person.type("/deny that is enough")
            await person.sees("They said: that is enough")
            await person.sees("That is all.")
            await person.sees("> ", times=2)
            person.press_ctrl_c()


async def test_ctrl_c_interrupts_the_agent_and_at_the_prompt_leaves(short_path: Path) -> None:
    async with runtime(short_path, says("on and on", hangs=True), says("again", hangs=True)) as run:
        async with chat(run.url) as person:
            await person.type("talk")
            await person.sees("on and on")
            person.press_ctrl_c()
            await person.sees("stopped   by the user")
            await person.sees("> ", times=2)
            person.press_ctrl_c()
            assert await person.end() == 130
        assert "Traceback" not in person.printed
        async with run.client() as client:
            assert (await client.info())["is_active"] is True


async def test_ctrl_c_twice_leaves_though_the_session_does_not_answer(short_path: Path) -> None:
    async with runtime_process(short_path, {"text": "on and on", "hangs": True}) as run, chat(run.url) as person:
        await person.type("talk")
        await person.sees("on and on")
        await run.end(signal.SIGKILL)
        await person.sees("retrying")
        person.press_ctrl_c()
        await person.sees("Ctrl-C again leaves")
        person.press_ctrl_c()
        assert await person.end() == 130
        assert "Traceback" not in person.printed


async def test_a_runtime_that_is_killed_and_starts_again_is_talked_to_again(short_path: Path) -> None:
    script = ({"text": "word " * 20, "delay": 0.05}, {"text": "Goodbye."})
    async with runtime_process(short_path, *script) as run, chat(run.url) as person:
        await person.type("talk")
        await person.sees("word")
        await run.end(signal.SIGKILL)
        await person.sees("retrying")
        await run.start(keep_port=True)
        await person.sees("(the answer was cut off; requesting it again)")
        await person.sees("word " * 20)
        await person.sees("> ", times=2)
        await person.type("bye")
        await person.sees("Goodbye.")
        await person.type("/shutdown")
        assert await person.end() == 0
        assert "The session ends." in person.printed
        assert (await run.end())[0] == 0


@pytest.mark.parametrize(
    ("url", "token", "said"),
    [
        ("", TOKEN, "is not a session's address"),
        ("localhost", TOKEN, "is not a session's address"),
        ("http://127.0.0.1:1", TOKEN, "Cannot reach"),
        ("http://nowhere.invalid", TOKEN, "Cannot reach"),
        (None, "wrong", "this token is for a different session"),
        (None, "", "Set AGENTSESSION_TOKEN"),
    ],
)
async def test_what_cannot_be_talked_to_is_said_in_one_line(short_path: Path, url: str | None, token: str, said: str) -> None:
    async with runtime(short_path) as run, chat(run.url if url is None else url, token) as person:
        assert await person.end() in (1, 2)
    assert said in person.printed
    assert person.printed.count("\n") == 1


async def test_the_token_may_have_another_name(short_path: Path) -> None:
    async with runtime(short_path) as run, chat(run.url, TOKEN, "--token-env", "MINE") as person:
        assert await person.end() == 2
    assert person.printed.startswith("Set MINE to the session's token")


def trips(url: str) -> AgentSettings:
    return AgentSettings(model="scripted", mcp_servers=(McpServerSettings(name="trips", url=url),))


async def test_a_servers_question_is_answered_in_the_turn(short_path: Path) -> None:
    script = (calls(("trips__seat", {"where": "Rome"})), says("Booked."))
    async with http(mcp_app()) as url, runtime(short_path, *script, agent=trips(url)) as run, chat(run.url) as person:
        await person.type("book")
        await person.sees("? trips asks, for trips__seat: Which seat to Rome?")
        await person.sees("Seat [aisle]: ")
        await person.type("roof")
        await person.sees("Seat must be of: window, aisle")
        await person.type("window")
        await person.sees("answer    accept")
        await person.sees("output    Rome: accept {'seat': 'window'}")
        await person.sees("Booked.")
        await person.sees("> ", times=2)
        person.press_ctrl_c()


async def test_ctrl_c_ends_a_question_and_the_next_line_is_input(short_path: Path) -> None:
    script = (calls(("trips__seat", {"where": "Rome"})), says("Hello to you."))
    async with http(mcp_app()) as url, runtime(short_path, *script, agent=trips(url)) as run, chat(run.url) as person:
        await person.type("book")
        await person.sees("Seat [aisle]: ")
        person.press_ctrl_c()
        await person.sees("stopped   by the user")
        await person.sees("> ", times=2)
        await person.type("hello")
        await person.sees("Hello to you.")
        await person.sees("> ", times=3)
        person.press_ctrl_c()


async def test_a_servers_question_of_another_is_put_before_the_prompt(short_path: Path) -> None:
    script = (calls(("trips__seat", {"where": "Rome"})), says("Booked."))
    async with http(mcp_app()) as url, runtime(short_path, *script, agent=trips(url)) as run:
        await run.submit("user_input", text="book")
        await run.until("question")
        async with chat(run.url) as person:
            await person.sees("? trips asks, for trips__seat: Which seat to Rome?")
            await person.type("/decline")
            await person.sees("> ")
            assert (await run.until("tool_output")).data["output"] == "Rome: decline None"
            person.press_ctrl_c()


async def test_a_question_that_somebody_else_answers_is_no_longer_put(short_path: Path) -> None:
    script = (calls(("trips__seat", {"where": "Rome"})), says("Booked."))
    async with http(mcp_app()) as url, runtime(short_path, *script, agent=trips(url)) as run, chat(run.url) as person:
        await person.type("book")
        await person.sees("Seat [aisle]: ")
        (pending,) = (await run.http.get("/v1/session")).json()["pending_approval"]
        await run.submit("answer", question_id=pending["question"]["id"], action="cancel")
        await person.sees("answer    cancel")
        await person.sees("Booked.")
        await person.sees("> ", times=2)
        person.press_ctrl_c()


async def test_who_leaves_the_chat_leaves_a_servers_question_to_others(short_path: Path) -> None:
    script = (calls(("trips__seat", {"where": "Rome"})), says("Booked."))
    async with http(mcp_app()) as url, runtime(short_path, *script, agent=trips(url)) as run:
        for said in ("book", None):  # in the turn, and before the prompt
            async with chat(run.url) as person:
                if said is not None:
                    await person.type(said)
                await person.sees("Seat [aisle]: ")
                assert person.process.stdin is not None
                person.process.stdin.close()
                assert await person.end() == 0
            assert len((await run.http.get("/v1/session")).json()["pending_approval"]) == 1
        await run.submit("interrupt")
