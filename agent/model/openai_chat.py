"""The client for servers that speak OpenAI's chat API, as strict as it must be and as lenient as it can be.

litellm hides what such servers send: it makes up a finish reason for an answer that broke off, drops refusals and lists of
parts, follows redirects with the conversation, and reads an error page to its end. So these servers are spoken to without it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from agent.model.answer import ModelChunk, read_chunk
from agent.model.classify import http_error, is_error, other_content, reported_error
from agent.model.connection import connection_error
from agent.model.failure import ModelError, ModelUnavailableError, NoAnswerError, Where, with_words
from agent.model.sse import MAX_EVENT, EventDecoder, EventTooLong

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection, its TLS handshake included."""

LINGER = 5.0
"""Seconds that what may still come after the end of an answer (its usage) is waited for."""

MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error's body that are read."""

MAX_BODY = 64 * 1024 * 1024
"""Bytes of one answer, at most."""

MAX_REDIRECTS = 3


class OpenAIChat:
    """One model at one server."""

    def __init__(self, base_url: str, model: str, api_key: str) -> None:
        self._url = base_url
        self._key = api_key
        self.model = model
        self._where = Where(model, base_url)

    async def stream(self, body: Mapping[str, Any], messages: Sequence[str]) -> AsyncGenerator[ModelChunk, None]:
        """The answer to a request in pieces; the last one with content has a finish reason. Raises ModelError, also half way.
        `messages` are JSON already, because all but the last ones were sent before.

        Each call has a connection of its own: so the server's name is resolved again, and no call waits on a connection whose
        other end has gone meanwhile. A handshake takes little time beside an answer.
        """
        import httpx  # late: it imports slowly, and a start does not need it

        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT)
        finished = False
        try:
            async with httpx.AsyncClient(timeout=timeout, verify=_tls(), follow_redirects=False) as client:
                response = await self._post(client, _request_body(body, messages))
                try:
                    async for chunk in self._read(response):
                        finished = finished or chunk.finish_reason is not None
                        yield chunk
                finally:
                    await response.aclose()
        except (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL) as error:
            if not finished:
                raise connection_error(error, self._where) from error
        except EventTooLong as error:
            raise NoAnswerError(f"{self._where.sentence} sent an event of more than {MAX_EVENT} characters.") from error

    async def _post(self, client: httpx.AsyncClient, content: bytes) -> httpx.Response:
        import httpx

        url = httpx.URL(self._url)
        url = url.copy_with(path=url.path.rstrip("/") + "/chat/completions")
        headers = {"Authorization": f"Bearer {self._key}", "Accept": "text/event-stream, application/json"}
        headers["Content-Type"] = "application/json"
        for _ in range(MAX_REDIRECTS):
            response = await client.send(client.build_request("POST", url, content=content, headers=headers), stream=True)
            target = url.join(response.headers.get("location", "")) if response.status_code in (307, 308) else None
            if target is None or (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
                return response  # what is said here must not be carried to another server
            await response.aclose()
            url = target
        raise ModelError(f"{self._where.sentence} redirects requests in a circle. Check baseURL.")

    async def _read(self, response: httpx.Response) -> AsyncIterator[ModelChunk]:
        if response.status_code != 200:
            text = await _text(response, MAX_ERROR_BODY)
            if location := response.headers.get("location"):
                text = f"the new address is {location}"
            raise http_error(response.status_code, dict(response.headers), text, self._where, datetime.now(UTC))
        bytes_ = _bounded(response, self._where)
        begin = b""
        async for piece in bytes_:
            begin += piece
            if begin.lstrip(b"\xef\xbb\xbf \t\r\n"):
                break
        begin = begin.lstrip(b"\xef\xbb\xbf \t\r\n")
        if not begin:
            raise NoAnswerError(f"{self._where.sentence} sent an empty answer. Try again, or check the server's log.")
        if begin[:1] in b"{[<" or not _may_be_events(begin):
            async for piece in bytes_:
                begin += piece
                if begin[:1] not in b"{[" and len(begin) > MAX_ERROR_BODY:
                    break
            yield self._whole(response, begin.decode("utf-8", "replace"))
            return
        async for chunk in self._events(begin, bytes_):
            yield chunk

    def _whole(self, response: httpx.Response, text: str) -> ModelChunk:
        """An answer that came as one JSON document."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            if text[:1] in "{[":
                raise ModelUnavailableError(
                    with_words(f"{self._where.sentence} sent JSON that breaks off or is not valid.", text)
                ) from None
            raise other_content(response.headers.get("content-type", ""), text, self._where) from None
        chunk = self._chunk(data)
        if chunk.finish_reason is None and not chunk.has_content:
            raise NoAnswerError(
                with_words(
                    f"{self._where.sentence} answered with JSON that is no completion. Check that baseURL is the address of "
                    "an OpenAI-compatible API (it usually ends with /v1).",
                    text,
                )
            )
        # A complete document has ended, even if it names no finish reason.
        return chunk if chunk.finish_reason else _ended(chunk)

    async def _events(self, begin: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[ModelChunk]:
        """An answer that comes as a stream of events."""
        seen = _Seen()
        async for data in _documents(begin, rest, seen):
            chunk = self._chunk(data)
            seen.finished = seen.finished or chunk.finish_reason is not None
            seen.content = seen.content or chunk.has_content
            yield chunk
        if seen.finished:
            return
        if not seen.content:
            raise NoAnswerError(f"{self._where.sentence} ended its answer without any content.")
        if seen.done:
            raise NoAnswerError(f"{self._where.sentence} ended its answer without a finish reason, so a part may be missing.")
        raise ModelUnavailableError(f"The connection to {self._where.server} ended in the middle of the answer.")

    def _chunk(self, data: object) -> ModelChunk:
        if not isinstance(data, Mapping):
            return ModelChunk()
        if is_error(data):
            raise reported_error(data, self._where)
        return read_chunk(data, self.model)


@dataclass
class _Seen:
    """What of a stream has arrived."""

    finished: bool = False
    """A finish reason."""
    content: bool = False
    done: bool = False
    """`[DONE]`"""


async def _documents(begin: bytes, rest: AsyncIterator[bytes], seen: _Seen) -> AsyncIterator[object]:
    """The JSON of a stream's events, up to `[DONE]`, or its end, or until nothing follows a finished answer."""
    decoder = EventDecoder()
    piece: bytes | None = begin
    while piece is not None:
        for lines in decoder.feed(piece):
            for document in _parsed(lines):
                if document == "[DONE]":
                    seen.done = True
                    return
                yield document
        try:
            # The answer is whole when its finish reason is there; its usage may follow, or never.
            async with asyncio.timeout(LINGER if seen.finished else None):
                piece = await anext(rest, None)
        except TimeoutError:
            return
    for lines in decoder.end():
        for document in _parsed(lines):
            seen.done = seen.done or document == "[DONE]"
            yield document


def _parsed(lines: list[str]) -> list[object]:
    """The JSON documents in the data of an event: one, or one in each line. What is no JSON is left out."""
    text = "\n".join(lines)
    if text.strip() == "[DONE]":
        return ["[DONE]"]
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        return [document for line in lines for document in _parsed([line])] if len(lines) > 1 else []


def _ended(chunk: ModelChunk) -> ModelChunk:
    return replace(chunk, finish_reason="tool_calls" if chunk.tool_calls else "stop")


def _may_be_events(begin: bytes) -> bool:
    """Whether the first bytes of an answer can be those of a stream of events; not all servers declare it as one."""
    name = begin[:32].split(b":")[0]
    return begin[:1] == b":" or name in (b"data", b"event", b"id", b"retry") or b"data".startswith(name)


async def _bounded(response: httpx.Response, where: Where) -> AsyncIterator[bytes]:
    size = 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > MAX_BODY:
            raise NoAnswerError(f"{where.sentence} sent an answer of more than {MAX_BODY // 1024**2} MiB.")
        yield piece


async def _text(response: httpx.Response, most: int) -> str:
    """The beginning of a body."""
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) >= most:
            break
    return body[:most].decode("utf-8", "replace")


def _request_body(body: Mapping[str, Any], messages: Sequence[str]) -> bytes:
    head = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f'{head[:-1]},"messages":[{",".join(messages)}]}}'.encode("utf-8", "replace")


@cache
def _tls() -> ssl.SSLContext:
    """Made once: reading the certificates takes 20 ms."""
    import httpx

    return httpx.create_ssl_context()
