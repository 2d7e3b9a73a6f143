"""The processes of a command: what it started is found and killed, and what it left in the background can print."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Callable  # noqa: UP035 - Python 3.9

PR_SET_CHILD_SUBREAPER = 36

OOM_SCORE = b"1000"
"""Of commands: where a container has no memory left and the kernel ends one process, it is theirs and not the server."""

KILL_ROUNDS = 50
"""Looks for processes that are still there, at most; a fork bomb is left to the limit on processes."""


def _prctl() -> Callable[..., int] | None:
    """The system's prctl; None where there is none, or Python has been built without ctypes."""
    with contextlib.suppress(ImportError, AttributeError, OSError, TypeError):
        import ctypes  # here, because some builds of Python have none

        function: Callable[..., int] = ctypes.CDLL(None).prctl
        return function
    return None


PRCTL = _prctl()


def adopt_orphans() -> None:
    """Make this process, a shell to be, the parent of all processes that its descendants leave behind. Call it between
    fork and exec, which keeps the setting.

    So all that a command has started stays below its shell for as long as the shell lives, in any process group, session or
    environment: `timeout`, `setsid`, job control, a daemon.
    """
    if PRCTL is not None:
        PRCTL(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        handle = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(handle, OOM_SCORE)
        os.close(handle)


async def kill_all(process: asyncio.subprocess.Process) -> None:
    """Kill the command with all it started, and wait until it is reaped, even when this task is being cancelled."""
    _signal(process.pid, signal.SIGSTOP)  # it starts nothing more, and lives, so that it adopts what the others leave behind
    for _ in range(KILL_ROUNDS):
        # Again until there are none: one of them may start another between the look and the kill.
        found = descendants(process.pid)
        for pid in found:
            _signal(pid, signal.SIGKILL)
        if not found:
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # start_new_session made its pid the group's id
    reaped = asyncio.ensure_future(process.wait())
    try:
        await asyncio.shield(reaped)
    except asyncio.CancelledError:
        await reaped  # a killed process ends at once; a second cancellation may leave
        raise


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def descendants(ancestor: int) -> set[int]:
    """The living processes below this one. Empty where there is no /proc."""
    parents: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    fields = Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")[2].split()
                    if fields[0] not in "ZX":
                        parents[int(name)] = int(fields[1])
    found: set[int] = set()
    waiting = [ancestor]
    while waiting:
        parent = waiting.pop()
        below = {pid for pid, its_parent in parents.items() if its_parent == parent} - found
        found |= below
        waiting += below
    return found


def drain(transport: asyncio.ReadTransport) -> None:
    """Keep reading a pipe that processes in the background hold, and drop what comes: without a reader, their first output
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
