"""A client of the event stream down to the bytes: it can break off in the middle of one, or take nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

import httpx

from support.runtime.harness import TOKEN


class Follower:
    """Follows the events over one connection after the other, and keeps what came whole."""

    def __init__(self, url: str, submission: str | None = None) -> None:
        self._url = httpx.URL(url)
        self._query = "" if submission is None else f"?submission={submission}"
        self.bodies: list[bytes] = []
        """The events, as JSON."""

    @property
    def last(self) -> dict[str, Any]:
        last: dict[str, Any] = json.loads(self.bodies[-1])
        return last

    async def follow(self, until: str | None = None, limit: int = 10**12) -> None:
        """Take events from where the last connection broke, up to one of this type, or the stream's end, or so many bytes."""
        if self._has_seen(until):
            return
        after = self.last["seq"] if self.bodies else 0
        reader, writer = await asyncio.open_connection(self._url.host, self._url.port, limit=2**24)
        writer.write(request(after, self._query))
        try:
            await reader.readuntil(b"\r\n\r\n")
            rest = b""
            while limit > 0 and (data := await reader.read(min(limit, 2**16))):
                limit -= len(data)
                *whole, rest = (rest + data).split(b"\n\n")
                self._keep(whole)
                if self._has_seen(until):
                    return
        finally:
            writer.transport.abort()

    def _has_seen(self, type_: str | None) -> bool:
        return bool(self.bodies) and self.last["type"] == type_

    def _keep(self, events: list[bytes]) -> None:
        for event in events:
            if not event.startswith(b":"):
                number, data = event.split(b"\n")
                self.bodies.append(data.removeprefix(b"data: "))
                assert int(number.removeprefix(b"id: ")) == self.last["seq"]


class StuckFollower(Follower):
    """Asks for the events and takes nothing."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect((self._url.host, self._url.port))
        self._socket.sendall(request(0, ""))

    def close(self) -> None:
        self._socket.close()

    def take_what_came(self) -> None:
        """Read what is there, up to the point where the connection was dropped."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := self._socket.recv(2**16):
                received += data
        self.close()
        *whole, _ = received.partition(b"\r\n\r\n")[2].split(b"\n\n")
        self._keep(whole)


def request(after: int, query: str) -> bytes:
    """Of HTTP 1.0, whose answers are not cut into chunks."""
    lines = (f"GET /v1/events{query} HTTP/1.0", f"Authorization: Bearer {TOKEN}", f"Last-Event-ID: {after}", "", "")
    return "\r\n".join(lines).encode()
