"""What went through the proxy: exchanges, delivered watch events, and the watches that are open."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from support.faults.request import Request


@dataclass(slots=True)
class Exchange:
    """What became of a request. Times are `time.monotonic`."""

    request: Request
    came: float
    forwarded: int = 0
    """How often it was forwarded to the server."""
    code: int = 0
    """The server's answer; 0 where there is none (yet)."""
    answered: int = 0
    """What the operator was answered; 0 for no answer (yet)."""
    uid: str = ""
    """The UID of the object in the server's answer."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A watch event that the operator was given."""

    resource: str
    kind: str
    name: str
    uid: str
    version: int
    when: float


class Stream:
    """An open watch: lines of the server and of the test, in one queue. None ends it."""

    def __init__(self, resource: str, incoming: web.Request) -> None:
        self.resource, self._incoming = resource, incoming
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    @property
    def open(self) -> bool:
        transport = self._incoming.transport
        return transport is not None and not transport.is_closing()

    async def pump(self, content: aiohttp.StreamReader) -> None:
        """Cut the server's stream into lines of any length."""
        rest = b""
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async for chunk in content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self.lines.put_nowait(line)
        self.lines.put_nowait(None)
