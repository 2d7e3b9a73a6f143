"""The HTTP client for MCP servers: bounds what a server sends, mends it, and says what its refusals mean."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import httpx2
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND

from agent.tools.mcp import wire
from agent.tools.mcp.wire import repaired_in_a_thread

MAX_ERROR: Final = 64 << 10
"""Bytes of an error's body that are read."""

EXCERPT: Final = 300
"""Characters of an error's body that are quoted."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for connecting."""

STREAM_WAITS: Final = (1.0, 5.0, 15.0, 60.0)
"""Seconds before each further try to open a stream of a server's own messages; the last one repeats."""

_MEANINGS: Final = {
    401: "it asks for credentials, or does not accept those that it got: check the token",
    403: "it refuses these credentials: check what they are allowed to do",
    404: "there is no MCP server at this path: check the url",
    405: "this path does not take MCP requests: check the url",
    407: "a proxy asks for credentials",
    408: "it has waited too long for the request",
    413: "the request is too large for it",
    429: "it gets too many requests: try again later",
    502: "a proxy cannot reach it",
    503: "it is overloaded or being restarted: try again later",
    504: "a proxy got no answer from it in time",
}


class AuthorizationError(httpx2.TransportError):
    """No access token. The message holds no secret that was not known before."""


class AnswerTooLargeError(httpx2.StreamError):
    """A server's answer is larger than MAX_ANSWER. The official client reports a StreamError as the call's error."""


class McpHttpClient(httpx2.AsyncClient):
    """One server's HTTP client. `stream_opened` is called when a stream of the server's own messages has been opened."""

    def __init__(self, headers: Mapping[str, str], stream_opened: Callable[[], None], auth: httpx2.Auth | None = None) -> None:
        # No limit for reading: a stream of changes is silent for as long as nothing changes, and the official client would
        # give it up for good after two such limits. What waits for an answer has a limit of its own.
        timeout = httpx2.Timeout(30, connect=CONNECT_TIMEOUT, read=None)
        # A hook, because the requests of `auth` go through it as well.
        super().__init__(headers=dict(headers), timeout=timeout, auth=auth, event_hooks={"response": [_bound]})
        self.headers["accept-encoding"] = "identity"
        self._stream_opened = stream_opened

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """As the base class does it, but a stream of the server's own messages is asked for until there is one: the
        official client gives up for good when it was refused twice, and no change of the tools would be noticed any more.
        """
        if request.method != "GET" or "text/event-stream" not in request.headers.get("accept", ""):
            return await self._send(request, **options)
        failures = 0
        while True:
            try:
                response = await super().send(request, **options)
            except httpx2.TransportError:
                pass
            else:
                if response.status_code < 400:
                    self._stream_opened()
                    return response
                if response.status_code in (404, 405, 501):  # it has no such stream, or has forgotten the session
                    return response
                await response.aclose()
            await asyncio.sleep(STREAM_WAITS[min(failures, len(STREAM_WAITS) - 1)])
            failures += 1

    async def _send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send. A connection that cannot be made is an error answer that says that the server has not seen the request, and a
        token that cannot be got is one, too: an exception would end the connection, and all calls with it.
        """
        try:
            return await super().send(request, **options)
        except AuthorizationError as failure:
            return _made_up(request, 401, str(failure))
        except httpx2.TransportError as failure:
            if failure.request is not request:  # it is one of `auth`
                said = f"{type(failure).__name__}: {failure}".removesuffix(": ")
                return _made_up(request, 401, f"no access token, as {failure.request.url.host} does not answer: {said}")
            if not isinstance(failure, httpx2.ConnectError | httpx2.ConnectTimeout) or _request(request) is None:
                raise
            said = f"no connection: {failure}" if str(failure) else f"no connection within {CONNECT_TIMEOUT:g} s"
            return _made_up(request, 502, said, wire.NOT_SENT)


def _made_up(request: httpx2.Request, status: int, message: str, data: str | None = None) -> httpx2.Response:
    """An answer in the place of the server's."""
    asked = _request(request) or {"id": None}
    error = {"code": INTERNAL_ERROR, "message": message, **({} if data is None else {"data": data})}
    body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}).encode()
    return httpx2.Response(status, headers={"content-type": "application/json"}, content=body, request=request)


async def _bound(response: httpx2.Response) -> None:
    """Put a bounded, repaired body in the place of the response's own, before anybody reads it."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - an async client has no others
    encoding = response.headers.pop("content-encoding", "identity").strip().lower()
    response.headers.pop("content-length", None)
    request = _request(response.request)
    content_type = response.headers.get("content-type", "").lower()
    if response.status_code >= 400 and request is not None:
        said = await _beginning(_Unpacked(response.stream, encoding))
        response.headers["content-type"] = "application/json"
        lost = response.status_code == 404 and "mcp-session-id" in response.request.headers
        response.stream = _Whole(response.stream, _error(request, response.status_code, said, lost))
    elif content_type.startswith("text/event-stream"):
        response.stream = _Events(_Unpacked(response.stream, encoding), endless=response.request.method == "GET")
    else:
        repair = content_type.startswith("application/json") and request is not None
        response.stream = _Bounded(_Unpacked(response.stream, encoding), repair=repair)


def _request(request: httpx2.Request) -> Mapping[str, Any] | None:
    """The JSON-RPC request that is sent; None for anything else, as what an authorization server is asked."""
    if request.method != "POST" or not request.headers.get("content-type", "").startswith("application/json"):
        return None
    try:
        message = json.loads(request.content)
    except (ValueError, httpx2.RequestNotRead):
        return None
    return message if isinstance(message, dict) and {"jsonrpc", "id", "method"} <= message.keys() else None


def _error(request: Mapping[str, Any], status: int, body: bytes, lost: bool) -> bytes:
    """The JSON-RPC error that stands for a refusal: the server's own if it sent one, else what the status means."""
    own = _own_error(body)
    code = own.get("code") if own is not None else None
    if lost and code != METHOD_NOT_FOUND:
        error: Mapping[str, Any] = {"code": INVALID_REQUEST, "message": "the session was not found", "data": wire.SESSION_LOST}
    elif own is not None:
        error = own
    else:
        codes = {404: METHOD_NOT_FOUND}  # an older server does not know the method at this path
        error = {"code": codes.get(status, INTERNAL_ERROR), "message": _meaning(status, body)}
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode()


def _own_error(body: bytes) -> dict[str, Any] | None:
    try:
        error = json.loads(body).get("error")
    except (ValueError, AttributeError, RecursionError):
        return None
    well_formed = isinstance(error, dict) and type(error.get("code")) is int and isinstance(error.get("message"), str)
    return error if well_formed else None


def _meaning(status: int, body: bytes) -> str:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    meaning = _MEANINGS.get(status, "the server itself failed" if status >= 500 else "it does not accept the request")
    said = " ".join(body.decode("utf-8", "replace").split())[:EXCERPT]
    return f"HTTP {status}{phrase}: {meaning}" + (f". It says: {said}" if said and not said.startswith("<") else "")


async def _beginning(stream: httpx2.AsyncByteStream) -> bytes:
    """At most MAX_ERROR bytes of an error's body; what breaks off counts as well."""
    said = bytearray()
    try:
        async for chunk in stream:
            said += chunk
            if len(said) >= MAX_ERROR:
                break
    except (httpx2.TransportError, httpx2.StreamError):
        pass
    finally:
        await stream.aclose()
    return bytes(said[:MAX_ERROR])


# -- bodies ------------------------------------------------------------------------------------------------------------


class _Body(httpx2.AsyncByteStream):
    """A body made of another one."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Whole(_Body):
    def __init__(self, inner: httpx2.AsyncByteStream, content: bytes) -> None:
        super().__init__(inner)
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


class _Unpacked(_Body):
    """A body in pieces of at most 64 KiB. No server is asked to compress, and some do all the same."""

    def __init__(self, inner: httpx2.AsyncByteStream, encoding: str) -> None:
        super().__init__(inner)
        self._encoding = encoding

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._encoding in ("", "identity"):
            async for chunk in self._inner:
                yield chunk
            return
        if self._encoding not in ("gzip", "x-gzip", "deflate"):
            raise httpx2.StreamError(f"its answer is compressed in a way that it was not asked for: {self._encoding[:40]}")
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            async for chunk in self._inner:
                while chunk and not unpacker.eof:
                    yield unpacker.decompress(chunk, 64 << 10)
                    chunk = unpacker.unconsumed_tail
        except zlib.error as error:
            raise httpx2.StreamError(f"its compressed answer cannot be read: {error}") from None


class _Bounded(_Body):
    """A body of at most MAX_ANSWER bytes; repaired when it is a JSON-RPC message."""

    def __init__(self, inner: httpx2.AsyncByteStream, repair: bool) -> None:
        super().__init__(inner)
        self._repair = repair

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = bytearray()
        async for chunk in self._inner:
            content += chunk
            if len(content) > wire.MAX_ANSWER:
                await self.aclose()
                raise AnswerTooLargeError(f"its answer is larger than {wire.MAX_ANSWER} bytes")
        yield await repaired_in_a_thread(bytes(content)) if self._repair else bytes(content)


class _Events(_Body):
    """An event stream whose messages are repaired, line by line. An event that is too large is left to who reads it."""

    def __init__(self, inner: httpx2.AsyncByteStream, endless: bool) -> None:
        super().__init__(inner)
        self._endless = endless

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest = bytearray()
        try:
            async for chunk in self._inner:
                rest += chunk
                *lines, last = rest.split(b"\n") if b"\n" in chunk else [rest]
                for line in lines:
                    yield await _mended_line(bytes(line)) + b"\n"
                rest = bytearray(last)
                if len(rest) > wire.MAX_ANSWER:
                    yield bytes(rest)
                    rest.clear()
        except httpx2.TransportError:
            # The official client opens a stream again for good when it ended, but only once when it broke.
            if not self._endless:
                raise
        if rest:
            yield bytes(rest)


async def _mended_line(line: bytes) -> bytes:
    if not line.startswith(b"data:"):
        return line
    said = line[5:].strip()
    return b"data: " + await repaired_in_a_thread(said) if said.startswith(b"{") else line
