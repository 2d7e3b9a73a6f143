"""The processes of a command: what it started is found and killed, and what it left in the background can print.

Python 3.9, standard library only, as `workspace.py`, beside which it is copied into other images.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

CALL_MARK = "AGENTSESSION_CALL"
"""Environment variable that says which call started a process."""

KILL_ROUNDS = 50
"""Looks for processes that are still there, at most; a fork bomb is left to the limit on processes."""


async def kill_all(process: asyncio.subprocess.Process, mark: str) -> None:
    """Kill the command with all it started, and wait until it is reaped, even when this task is being cancelled."""
    # Again until there are none: one of them may start another between the look and the kill.
    for _ in range(KILL_ROUNDS):
        found = processes_of(process.pid, mark)
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # start_new_session made its pid the group's id
        if not found:
            break
    reaped = asyncio.ensure_future(process.wait())
    try:
        await asyncio.shield(reaped)
    except asyncio.CancelledError:
        await reaped  # a killed process ends at once; a second cancellation may leave
        raise


def processes_of(shell: int, mark: str) -> set[int]:
    """The processes that a command started and that live: those below its shell, in its session, or with its mark in their
    environment. `timeout`, `setsid` and job control give processes groups of their own, and a process whose parent has ended
    belongs to process 1. Empty where there is no /proc.
    """
    parents: dict[int, int] = {}
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    fields = Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")[2].split()
                    if fields[0] in "ZX":
                        continue
                    parents[int(name)] = int(fields[1])
                    if int(fields[3]) == shell or mark.encode() in Path("/proc", name, "environ").read_bytes():
                        found.add(int(name))
    found &= parents.keys()
    waiting = [shell, *found]
    while waiting:
        parent = waiting.pop()
        below = {pid for pid, its_parent in parents.items() if its_parent == parent} - found
        found |= below
        waiting += below
    return found - {os.getpid()}


def drain(transport: asyncio.ReadTransport) -> None:
    """Go on reading a pipe that processes in the background hold, and drop what comes: without a reader, their first output
    would end them."""
    pipe = transport.get_extra_info("pipe")
    handle = os.dup(pipe.fileno())
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            if os.read(handle, 1 << 16):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        loop.remove_reader(handle)
        os.close(handle)

    loop.add_reader(handle, read)
