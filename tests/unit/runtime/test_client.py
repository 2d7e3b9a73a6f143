"""The client: nothing lost and nothing twice, over connections that break."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from agent.testing import calls, says
from session_runtime.client import SessionClient, SessionError
from unit.runtime.harness import DEADLINE, ROOT, TOKEN, runtime

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def flaky_proxy(target: str, lengths: list[int]) -> AsyncIterator[str]:
    """Passes bytes on, and cuts each connection after so many bytes of answer; the last length is repeated."""
    url = httpx.URL(target)

    tasks: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
        while length > 0 and (data := await reader.read(min(length, 65536))):
            length -= len(data)
            writer.write(data)
            await writer.drain()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = lengths.pop(0) if len(lengths) > 1 else lengths[0]
        up_reader, up_writer = await asyncio.open_connection(url.host, url.port)
        pipes = {asyncio.create_task(pipe(reader, up_writer, 10**9)), asyncio.create_task(pipe(up_reader, writer, length))}
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, up_writer):
                end.transport.abort()
            for task in pipes:
                task.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(connect(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("lengths", [[300, 400, 500, 10_000_000], [0, 1, 200, 10_000_000], [700, 10_000_000]])
async def test_a_stream_that_breaks_is_taken_up_where_it_broke(short_path: Path, lengths: list[int]) -> None:
    script = (calls(("bash", {"command": "echo a"})), says("word " * 30, delay=0.005))
    async with runtime(short_path, *script) as run:
        await run.submit("user_input", text="go", id="turn")
        async with flaky_proxy(run.url, lengths) as url, SessionClient(url, TOKEN) as client, asyncio.timeout(DEADLINE):
            seen = [event async for event in client.events(submission="turn")]
        assert seen == await run.events(submission="turn")
        assert seen[-1].type == "turn_complete"


async def test_a_submission_whose_answer_is_lost_is_sent_again_and_run_once(short_path: Path) -> None:
    async with (
        runtime(short_path, says("once"), says("twice")) as run,
        flaky_proxy(run.url, [0, 20, 10_000_000]) as url,
        SessionClient(url, TOKEN) as client,
    ):
        async with asyncio.timeout(DEADLINE):
            result = await client.run("go")
        assert (result.type, result.data["message"]) == ("turn_complete", "once")
        assert run.model.calls == 1


async def test_everything_until_the_session_ends(short_path: Path) -> None:
    async with runtime(short_path, says("bye"), mode="Task", prompt="hello") as run:
        events = await run.events()
        assert events[-1].type == "shutdown"
        assert [e.seq for e in events] == list(range(1, len(events) + 1))


async def test_refusals_carry_the_remedy(short_path: Path) -> None:
    async with runtime(short_path) as run, run.client() as client:
        with pytest.raises(SessionError, match=r"text: String should have at least 1 character") as caught:
            await client.submit("user_input", text="")
        assert caught.value.status == 422
        async with run.client(token="wrong") as stranger:
            with pytest.raises(SessionError, match="not the one of this session"):
                await stranger.info()


async def test_a_session_that_is_gone_is_given_up() -> None:
    async with SessionClient("http://127.0.0.1:1", TOKEN, patience=0.2) as client, asyncio.timeout(DEADLINE):
        with pytest.raises(httpx.ConnectError):
            await client.submit("undo")


async def test_chat_shows_the_turn_and_leaves_at_the_end_of_input(short_path: Path) -> None:
    script = (calls(("bash", {"command": "echo found"})), says("There it is."))
    async with runtime(short_path, *script) as run:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "session_runtime", "chat", run.url),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "AGENTSESSION_TOKEN": TOKEN},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(DEADLINE):
            printed, _ = await process.communicate(b"look\n/undo\n")
        text = printed.decode()
        assert process.returncode == 0, text
        assert 'call      bash {"command": "echo found"}' in text
        assert "output    found" in text
        assert text.count("There it is.") == 1
        assert "undo      4 messages taken back" in text
        assert TOKEN not in text


async def test_chat_with_a_wrong_token_says_so(short_path: Path) -> None:
    async with runtime(short_path) as run:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "session_runtime", "chat", run.url, "--token-env", "MINE"),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "MINE": "wrong"},
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(DEADLINE):
            _, complaint = await process.communicate()
        assert process.returncode == 1
        assert b"not the one of this session" in complaint
