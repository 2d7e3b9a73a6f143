"""Processes that a test waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path


def running(pid: int) -> bool:
    """A zombie that its new parent has not reaped yet does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def gone(pid: int) -> None:
    await until(lambda: not running(pid))


def pid_in(path: Path) -> int:
    return int(path.read_text())


async def read_pid(path: Path) -> int:
    await until(lambda: path.exists() and path.read_text().endswith("\n"))
    return pid_in(path)
