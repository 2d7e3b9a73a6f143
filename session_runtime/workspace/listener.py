"""The socket of the workspace's server, in a folder that commands can write to. Runs under Python 3.9, as all of the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import Callable  # noqa: UP035 - Python 3.9

from session_runtime.workspace.limits import CHECK_SECONDS, Guard
from session_runtime.workspace.protocol import MESSAGE_LIMIT


class Listener:
    """The server's end of the socket, which commands can remove or replace: it lies in a folder that they can write to."""

    def __init__(self, socket: Path, accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]) -> None:
        self._socket = socket
        self._accept = accept
        self._server: asyncio.AbstractServer | None = None
        self._identity: tuple[int, ...] | None = None

    async def open(self) -> None:
        """Listen, replacing what was there before."""
        self.close()
        _remove(self._socket)  # left behind by an earlier process
        self._server = await asyncio.start_unix_server(self._accept, str(self._socket), limit=MESSAGE_LIMIT)
        os.chmod(self._socket, 0o660)
        self._identity = self._look()

    @property
    def in_place(self) -> bool:
        """Whether who connects to the socket's path still comes here."""
        return self._look() == self._identity

    def close(self) -> None:
        """Accept no more connections; existing ones continue."""
        if self._server is not None:
            self._server.close()
            _remove(self._socket)

    def _look(self) -> tuple[int, ...] | None:
        try:
            status = os.lstat(self._socket)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mode


class SocketCheck:
    """Takes the socket back when a command has removed or replaced it."""

    def __init__(self, guard: Guard, listener: Listener) -> None:
        self._guard = guard
        self._listener = listener

    async def __call__(self) -> float:
        if not self._listener.in_place:
            self._guard.kill("the socket of the workspace's server was removed or replaced; do not change its folder")
            await self._listener.open()
        return CHECK_SECONDS


def _remove(socket: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if socket.is_dir() and not socket.is_symlink():
            shutil.rmtree(socket)
        else:
            socket.unlink()
