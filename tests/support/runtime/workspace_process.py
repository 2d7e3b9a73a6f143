"""A workspace server in a process of its own, for tests: alone, or as process 1 of a namespace as in its container."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from session_runtime.workspace.client import SocketWorkspace

ROOT = Path(__file__).parents[3]

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""What runs a program as process 1 of a process namespace."""


def _can_unshare() -> bool:
    return subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


needs_namespace = pytest.mark.skipif(not _can_unshare(), reason="needs the right to make a process namespace")


@asynccontextmanager
async def server(
    folder: Path,
    *before: str,
    options: tuple[str, ...] = (),
    program: tuple[str, ...] = (sys.executable, "-m", "session_runtime.workspace.server"),
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A workspace server on `w.sock`, working in `work`; `before` is the command that runs its program."""
    (folder / "work").mkdir(exist_ok=True)
    module = [*before, *program]
    paths = ["--socket", str(folder / "w.sock"), "--end", str(folder / "ended"), "--root", str(folder / "work"), "--scratch"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AGENTSESSION_SECRET": "not for commands", "JAVA_HOME": "/opt/java"}
    process = await asyncio.create_subprocess_exec(*module, *paths, *options, env=environment, cwd=folder)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def process_1(unshared: asyncio.subprocess.Process) -> int:
    """The id, as it is outside, of the process 1 of a server that runs in a process namespace."""
    return int(Path(f"/proc/{unshared.pid}/task/{unshared.pid}/children").read_text())


def client_of(folder: Path) -> SocketWorkspace:
    """A client of the server in that folder, which can end it."""
    return SocketWorkspace(folder / "w.sock", folder / "ended")


@asynccontextmanager
async def contained(folder: Path, *options: str) -> AsyncIterator[SocketWorkspace]:
    """A client of a server that is process 1 of a process namespace, as in its container."""
    async with server(folder, *NAMESPACE, options=options):
        yield client_of(folder)
