"""An OpenAI-compatible server on loopback that answers with a script, down to the bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: server-sent chunks, or an error status with a body."""

    deltas: tuple[dict[str, Any], ...] = ()
    finish_reason: str = "stop"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)
    breaks: bool = False
    """The connection is cut after the deltas."""
    hangs: bool = False
    raw: str | bytes = ""
    """In place of all that, the body as it is."""
    content_type: str = "text/event-stream"
    """Of a raw body."""
    stays_open: bool = False
    """The connection of a raw body is not closed, and nothing says where the body ends."""
    repeats: str = ""
    """Behind a raw body, this is sent again and again."""
    usage: Any = field(
        default_factory=lambda: {
            "prompt_tokens": 11,
            "completion_tokens": 7,
            "total_tokens": 18,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
    )
    """None sends no chunk with it."""


@dataclass
class OpenAIServer:
    answers: list[Answer] | Callable[[dict[str, Any]], Answer]
    """In order, or made for each request."""
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)

    tasks: set[asyncio.Task[None] | None] = field(default_factory=set)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        try:
            await self._answer(reader, writer)
            await writer.drain()
        except ConnectionError:
            pass  # the client has heard enough
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError as ended:
            if ended.partial:
                raise
            return  # a client that gave up before it had asked
        length = next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length"))
        self.requests.append(json.loads(await reader.readexactly(length)))
        self.headers.append(head)
        request = self.requests[-1]
        answer = self.answers(request) if callable(self.answers) else self.answers[len(self.requests) - 1]
        extra = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        if answer.raw:
            body = answer.raw.encode() if isinstance(answer.raw, str) else answer.raw
            head = f"HTTP/1.1 {answer.status} X\r\nContent-Type: {answer.content_type}\r\n{extra}Connection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            while answer.repeats:
                writer.write(answer.repeats.encode())
                await writer.drain()
                await asyncio.sleep(0.01)
            if answer.stays_open:
                await asyncio.get_running_loop().create_future()
        elif answer.status != 200:
            body = json.dumps({"error": answer.error}).encode()
            writer.write(
                f"HTTP/1.1 {answer.status} X\r\nContent-Type: application/json\r\n{extra}"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
        else:
            await self._stream(answer, writer)

    async def _stream(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        for delta in answer.deltas:
            self._event(writer, base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await writer.drain()
        if answer.hangs:
            await asyncio.get_running_loop().create_future()
        if answer.breaks:
            return
        self._event(writer, base | {"choices": [{"index": 0, "delta": {}, "finish_reason": answer.finish_reason}]})
        if answer.usage is not None:
            self._event(writer, base | {"choices": [], "usage": answer.usage})
        self._chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    def _event(self, writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        self._chunk(writer, f"data: {json.dumps(event)}\n\n".encode())

    def _chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@contextlib.asynccontextmanager
async def serve(
    *answers: Answer, by: Callable[[dict[str, Any]], Answer] | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[OpenAIServer]:
    script = OpenAIServer(by or list(answers))
    server = await asyncio.start_server(script.handle, host, port)
    script.url = f"http://{host}:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield script
    finally:
        server.close()
        open_tasks = [task for task in script.tasks if task is not None and not task.done()]
        for task in open_tasks:
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)


def anthropic(*blocks: list[dict[str, Any]], stop: str) -> Answer:
    """An answer in Anthropic's protocol: for each block its start, and then its deltas."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, (start, *deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage})
    events.append({"type": "message_stop"})
    return Answer(raw="".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events))
