"""The client: nothing lost and nothing twice, over connections that break."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from agent.testing import calls, says
from session_runtime.client.client import SessionClient, SessionError
from support.runtime.harness import DEADLINE, TOKEN, runtime, runtime_process

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
            with pytest.raises(SessionError, match="for a different session"):
                await stranger.info()


async def test_a_session_that_is_gone_is_given_up() -> None:
    async with SessionClient("http://127.0.0.1:1", TOKEN, patience=0.2) as client, asyncio.timeout(DEADLINE):
        with pytest.raises(httpx.ConnectError):
            await client.submit("undo")


async def test_a_result_is_waited_for_whatever_was_submitted(short_path: Path) -> None:
    async with runtime(short_path, says("one"), says("on and on", hangs=True)) as run, run.client() as client:
        assert (await client.run("go")).type == "turn_complete"
        assert [message["content"] for message in await client.messages()] == ["go", "one"]
        assert (await client.result(await client.submit("undo"))).type == "undo_complete"
        assert (await client.result(await client.submit("compact"))).data["kind"] == "compaction"
        assert (await client.run("go")).type == "turn_complete"
        turn = await client.submit("user_input", text="more")
        await run.until("assistant_chunk", after=(await client.info())["last_seq"] - 1)
        interrupt = await client.submit("interrupt")
        assert (await client.result(turn)).type == "interrupted"
        with pytest.raises(ValueError, match="has no events"):
            await client.result(interrupt)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_client_waits_through_a_stop_and_a_start(short_path: Path, number: int) -> None:
    script = {"text": "word " * 30, "delay": 0.02}
    troubles: list[Exception] = []
    async with runtime_process(short_path, script) as run:
        client = SessionClient(run.url, TOKEN, on_trouble=troubles.append)
        async with client, asyncio.timeout(3 * DEADLINE):
            result = asyncio.create_task(client.run("talk"))
            await run.until("assistant_chunk")
            await run.end(number)
            asking = asyncio.create_task(client.info())
            await run.start(keep_port=True)
            assert (await asking)["is_active"]
            assert (await result).data["message"] == "word " * 30
            assert troubles


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://host", "http://", "http:///path"])
async def test_what_is_no_address_is_said_to_be_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (valid|session)"):
        SessionClient(url, TOKEN)


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "302 Found", "503 Service Unavailable"])
async def test_another_server_is_not_taken_for_a_session(status: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 6\r\nConnection: close\r\n\r\nHello!".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with SessionClient(url, TOKEN, patience=0.2) as client, asyncio.timeout(DEADLINE):
            with pytest.raises((SessionError, ConnectionError), match=r"not the API of a session|503 Service Unavailable"):
                await client.info()
