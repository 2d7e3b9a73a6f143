"""Sending reports to addresses that misbehave; a real server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from session_runtime.reporting.reporter import Refused, put

pytestmark = pytest.mark.anyio

DEADLINE = 30.0

NOT_HTTP = {
    "garbage": b"\x00\xff garbage\r\n\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "a bad status line": b"HTTP/1.1 banana\r\n\r\n",
    "no answer": b"",
    "huge headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
    "a bad Location": b"HTTP/1.1 302 Found\r\nLocation: http://[bad\r\nContent-Length: 0\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "an error": b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
}


@asynccontextmanager
async def answering(answer: bytes, byte_by_byte: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """The URL of a server that gives this answer to everything, and the requests that it has got."""
    requests: list[bytes] = []
    handlers: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            for at in range(len(answer)) if byte_by_byte else ():
                writer.write(answer[at : at + 1])
                await writer.drain()
                await asyncio.sleep(0.05)
            writer.write(b"" if byte_by_byte else answer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/report", requests
    for handler in handlers:
        assert handler is not None
        await handler


@pytest.mark.parametrize("kind", NOT_HTTP)
async def test_an_answer_that_is_not_a_success_is_worth_a_retry(kind: str, tmp_path: Path) -> None:
    async with asyncio.timeout(DEADLINE), answering(NOT_HTTP[kind]) as (url, _):
        with pytest.raises(OSError, match=r".+"):
            await put(url, tmp_path / "token", b"{}", 5.0)


async def test_the_timeout_is_for_the_whole_request(tmp_path: Path) -> None:
    endless = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000
    async with asyncio.timeout(DEADLINE), answering(endless, byte_by_byte=True) as (url, _):
        with pytest.raises(OSError, match=r"no complete answer within 0\.3 s"):
            await put(url, tmp_path / "token", b"{}", 0.3)


async def test_a_report_carries_the_token_and_a_rejection_is_final(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    async with asyncio.timeout(DEADLINE), answering(b"HTTP/1.1 200 OK\r\n\r\n") as (url, requests):
        await put(url, tmp_path / "token", b"{}", 5.0)
    assert b"authorization: bearer secret" in requests[0].lower()
    async with answering(b"HTTP/1.1 403 Forbidden\r\n\r\n") as (url, _):
        with pytest.raises(Refused, match="403 Forbidden"):
            await put(url, tmp_path / "token", b"{}", 5.0)


async def test_a_token_that_cannot_be_sent_is_worth_a_retry(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("two\nlines")
    async with asyncio.timeout(DEADLINE), answering(b"HTTP/1.1 200 OK\r\n\r\n") as (url, _):
        with pytest.raises(OSError, match=r".+"):
            await put(url, tmp_path / "token", b"{}", 5.0)
