"""What a command prints: read from a pipe and kept within bounds."""

from __future__ import annotations

import asyncio
import codecs
from collections import deque
from typing import Callable  # noqa: UP035 - Python 3.9

from agent.workspace import HEAD_LIMIT, TAIL_LIMIT
from agent.workspace.plain import Plain


class Output(asyncio.Protocol):
    """Collects what comes through the pipe, as a terminal would show it: the beginning and the end, at any length."""

    def __init__(self, on_output: Callable[[str], None] | None) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.dropped = 0
        """Characters that were not kept."""
        self._on_output = on_output
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._plain = Plain()
        self._head: list[str] = []
        self._head_size = 0
        self._tail: deque[str] = deque()
        self._tail_size = 0

    def data_received(self, data: bytes) -> None:
        self._add(self._plain.feed(self._decoder.decode(data)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._add(self._plain.feed(self._decoder.decode(b"", final=True)))
        if self._on_output is not None and (rest := self._plain.rest()):
            self._on_output(rest)
        if not self.ended.done():
            self.ended.set_result(None)

    def _add(self, text: str) -> None:
        if not text:
            return
        if self._on_output is not None:
            self._on_output(text)
        room = HEAD_LIMIT - self._head_size
        if room > 0:
            self._head.append(text[:room])
            self._head_size += len(self._head[-1])
            text = text[room:]
        if text:
            self._tail.append(text)
            self._tail_size += len(text)
        while self._tail_size - len(self._tail[0] if self._tail else "") >= TAIL_LIMIT:
            gone = self._tail.popleft()
            self._tail_size -= len(gone)
            self.dropped += len(gone)

    def text(self) -> str:
        """What was kept, with a note where the middle is missing."""
        note = f"\n[... {self.dropped} characters were not kept ...]\n" if self.dropped else ""
        return "".join(self._head) + note + "".join(self._tail) + self._plain.rest()
