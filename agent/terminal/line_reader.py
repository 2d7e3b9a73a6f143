"""What a person types: lines that can be waited for and interrupted, and text from their editor."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import Any


class InputInterrupted(Exception):
    """The person pressed Ctrl-C instead of an answer."""


class LineReader:
    """Lines from a file descriptor, waited for on the event loop.

    A thread in `readline` could not be ended by Ctrl-C, and asyncio's own pipe reader makes the terminal non-blocking,
    for standard output as well.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self._ended = False
        self._waiting: asyncio.Future[None] | None = None

    async def readline(self) -> str | None:
        """The next line, None when there is none any more. Raises InputInterrupted."""
        while b"\n" not in self._buffer and not self._ended:
            await self._readable()
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:  # the terminal is gone
                data = b""
            self._buffer += data
            self._ended = not data
        line, newline, self._buffer = self._buffer.partition(b"\n")
        return (line + newline).decode(errors="replace") or None

    def interrupt(self) -> bool:
        """End the wait for a line; False when nobody waits."""
        if self._waiting is None or self._waiting.done():
            return False
        self._waiting.set_exception(InputInterrupted())
        return True

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiting.done():
                waiting.set_result(None)

        try:
            loop.add_reader(self._descriptor, wake)
        except PermissionError:  # a regular file is always readable, and epoll does not take it
            return
        self._waiting = waiting
        try:
            await waiting
        finally:
            loop.remove_reader(self._descriptor)


async def edit(arguments: dict[str, Any], editor: str) -> str:
    """The arguments of a call as JSON, as the person leaves them in their editor. Raises OSError without one."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arguments.json"
        file.write_text(json.dumps(arguments, ensure_ascii=False, indent=2))
        process = await asyncio.create_subprocess_exec(*shlex.split(editor), str(file))
        if status := await process.wait():
            raise OSError(f"it ended with exit status {status}")
        return file.read_text()
