"""`python -m agent` at a real terminal: a pseudo-terminal, with a person's hands and eyes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

ROOT = Path(__file__).parents[3]

TAKE_THE_TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C means this process
os.execv(sys.executable, [sys.executable, "-m", "agent", *sys.argv[1:]])
"""


class Console:
    """One run of the agent."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self._process = process
        self._terminal = terminal
        self._unread = ""
        self._more = asyncio.Event()
        self.screen = ""
        """All that was shown."""
        asyncio.get_running_loop().add_reader(terminal, self._read)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def press_ctrl_c(self) -> None:
        os.write(self._terminal, b"\x03")

    def send(self, end: signal.Signals) -> None:
        self._process.send_signal(end)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    async def shows(self, text: str) -> str:
        """Wait until this is shown, after all that was waited for before; what stood between."""
        try:
            async with asyncio.timeout(120):
                while text not in self._unread:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} was not shown, but {self._unread!r}") from None
        before, _, self._unread = self._unread.partition(text)
        return before

    async def exit_status(self) -> int:
        async with asyncio.timeout(60):
            return await self._process.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._terminal)
        os.close(self._terminal)

    def _read(self) -> None:
        try:
            data = os.read(self._terminal, 65536).decode(errors="replace").replace("\r\n", "\n")
        except OSError:  # nobody is on the other side any more
            asyncio.get_running_loop().remove_reader(self._terminal)
            return
        self.screen += data
        self._unread += data
        self._more.set()


@contextlib.asynccontextmanager
async def console(*options: str, **changes: str | None) -> AsyncIterator[Console]:
    """The agent with these options and changes to the environment (None: without it), killed at the end."""
    environment = {**os.environ, "EDITOR": "", "VISUAL": "", **changes}
    terminal, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TAKE_THE_TERMINAL, *options),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=ROOT,
        env={name: value for name, value in environment.items() if value is not None},
    )
    os.close(theirs)
    seen = Console(process, terminal)
    try:
        yield seen
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        seen.close()
