"""Limits on what commands may use in the workspace's container: processes and memory. Python 3.9, standard library only.

The kernel's own limits do not fit: RLIMIT_NPROC counts the processes of a user id on the whole node, that is, of all
sessions together, and a container that reaches its memory limit is killed as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from pathlib import Path

MAX_PROCESSES = 512
"""Processes in the container, this server and process 1 included."""

CHECK_SECONDS = 0.25
"""How often processes are counted while there are some."""

MEMORY_SHARE = 0.9
"""One process's share of the container's memory."""

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def container_memory(path: Path = CGROUP_LIMIT) -> int | None:
    """Bytes of memory that the container may use; None when there is no limit, or it cannot be read."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # cgroup v1, or "max"
        return None


def limit_memory(limit: int) -> None:
    """Bound the memory of each process that this one starts: a command fails before the container does."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def count_processes() -> int:
    """Processes of this process namespace."""
    return sum(entry.isdigit() for entry in os.listdir("/proc"))


class ProcessGuard:
    """Kills everything that commands have started when it has become too much.

    Only for a process namespace of its own, whose process 1 is this program: kill(-1) spares the caller and process 1,
    and reaches all others in one step, which a fork bomb cannot outrun.
    """

    def __init__(self, limit: int = MAX_PROCESSES) -> None:
        self.limit = limit
        self.kills = 0
        """How often that has happened."""
        self._begun = asyncio.Event()

    def command_begins(self) -> None:
        """Start counting; it ends by itself when no command's process is left."""
        self._begun.set()

    async def run(self) -> None:
        """Watch, until cancelled."""
        while True:
            await self._begun.wait()
            self._begun.clear()
            await asyncio.sleep(CHECK_SECONDS)
            while (count := count_processes()) > 2:
                if count > self.limit:
                    self.kills += 1
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(-1, signal.SIGKILL)
                await asyncio.sleep(CHECK_SECONDS)
