"""Limits on what commands may use in the workspace's container: processes, memory, disk. Python 3.9, standard library only.

The cluster's own limits do not fit, or end more than the command: RLIMIT_NPROC counts the processes of a user id on the
whole node, that is, of all sessions together; a container that reaches its memory limit is killed as a whole (`memory.py`); and
a pod that fills its disk is evicted, and its session lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Awaitable, Callable, Iterable  # noqa: UP035 - Python 3.9

from session_runtime.workspace.memory import MemoryCheck

MAX_PROCESSES = 512
"""Processes in the container, this server and process 1 included."""

CHECK_SECONDS = 0.1
"""How often processes are counted while there are some."""

REAP_SECONDS = 1.0
"""Time for process 1 to reap what was killed; until then it still counts."""

DISK_CHECK_SECONDS = 10.0
"""How often files are counted at least, while there are processes, though little seems to be written: what the node's other
pods remove hides it."""

DISK_CHECK_SOONEST = 0.5

DISK_CHECK_COST = 20
"""How much longer than a count the pause behind it is, between these two: few files are counted more often."""

DISK_SHARE = 0.9
"""The share of the given disk space that files may take: what is written between two looks needs some of it too."""

FILE_SHARE = 0.8
"""The share of it that one file may take: less, so that one that is too large fails alone."""

DATABASE_SHARE = 0.15
"""The share of a volume that is left to the session's database, which lies on the same file system."""

ENTRY_BYTES = 4096
"""What an entry takes at least. An empty file takes no block, but an inode, and those can run out as well."""

MEGABYTE = 1_000_000

_FACTORS = {
    "m": 0.001,
    **{unit: 1000**power for power, unit in enumerate(("", "k", "M", "G", "T", "P", "E"))},
    **{unit: 1024**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def quantity(text: str) -> int:
    """Bytes, from a quantity as Kubernetes writes it (`512Mi`, `10G`, `1e9`). Raises ValueError."""
    match = re.fullmatch(r"([0-9.]+(?:[eE][0-9]+)?)([mkMGTPE]|[KMGTPE]i)?", text)
    if match is None:
        raise ValueError(f"{text!r} is not a size like 512Mi or 10G")
    return int(float(match[1]) * _FACTORS[match[2] or ""])


def limit_file_size(limit: int) -> None:
    """Bound each file: the kernel stops the commonest way to fill a disk, one file that grows, at the exact byte."""
    _lower(resource.RLIMIT_FSIZE, limit)


def _lower(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(kind, (limit, limit))


def count_processes() -> int:
    """Processes of this process namespace."""
    return sum(entry.isdigit() for entry in os.listdir("/proc"))


def disk_usage(paths: Iterable[Path]) -> int:
    """Bytes that these files and folders, with all below them, take on the disk, as `du` counts them.

    The file system's own count (statvfs) would be cheaper, but it is that of the node, for all of its pods.
    """
    used = 0
    linked: set[tuple[int, int]] = set()
    waiting = [str(path) for path in paths]
    while waiting:
        path = waiting.pop()
        with contextlib.suppress(OSError):  # a file may vanish while it is examined
            used += os.lstat(path).st_blocks * 512
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_nlink > 1:  # package managers link the files of their caches
                        if (status.st_dev, status.st_ino) in linked:
                            continue
                        linked.add((status.st_dev, status.st_ino))
                    used += max(status.st_blocks * 512, ENTRY_BYTES)
    return used


def disk_free(paths: Iterable[Path]) -> int:
    """Free bytes of the file systems of these paths, together."""
    free = 0
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.statvfs(path)
            free += status.f_bfree * status.f_frsize
    return free


def volume_for_files(size: int, root: Path) -> int:
    """Bytes of a volume that files may take, of the `size` that was asked for: no more than the file system has, which is less
    by its own tables, and without what is left to the session's database."""
    with contextlib.suppress(OSError):
        status = os.statvfs(root)
        size = min(size, status.f_blocks * status.f_frsize)
    return int(size * (1 - DATABASE_SHARE))


class DiskLimit:
    """What files may take: when to look, and what to make of it.

    What is there already when the limit is passed may stay, and may be deleted at leisure; it is growth that is stopped.
    """

    def __init__(self, limit: int, what: str = "the workspace") -> None:
        self.limit = limit
        """Bytes."""
        self._what = what
        self._used = 0
        self._tolerated = limit
        self._free = 0
        self._next_look = 0.0

    def is_due(self, free: int, now: float) -> bool:
        """Whether to count, given the free bytes of the file systems: half of the room that was left may be taken, or it
        was long ago. The node's other pods write there too, so that free bytes alone say nothing for certain."""
        room = max(0, self.limit - self._used)
        return self._free - free > room / 2 or now >= self._next_look

    def grown(self, used: int, free: int, now: float, pause: float = DISK_CHECK_SECONDS) -> bool:
        """Take note of a count, and of the free bytes before it; True when files take more than they may, and than they did.
        `pause` is the time to the next count, in seconds."""
        self._used, self._free, self._next_look = used, free, now + pause
        grown = used > self._tolerated
        self._tolerated = max(self.limit, used)
        return grown

    @property
    def problem(self) -> str | None:
        """Why nothing more should be written, in words; None while there is room."""
        if self._used <= self.limit:
            return None
        return (
            f"the files in {self._what} take {self._used // MEGABYTE} MB, and may take at most {self.limit // MEGABYTE} MB; "
            "remove some before you write more"
        )


Check = Callable[[], Awaitable[float]]
"""Looks at something; returns the seconds to the next time."""


@dataclass(frozen=True)
class Limits:
    """What all processes in the container may take together."""

    processes: int = MAX_PROCESSES
    memory: int | None = None
    """Bytes."""
    disks: tuple[tuple[int, tuple[Path, ...]], ...] = ()
    """Bytes of what is in some files and folders."""


class Guard:
    """Kills what commands have started when it has become too much: everything, or the largest process if memory is short.

    Only for a process namespace of its own, whose process 1 is this program: kill(-1) spares the caller and process 1,
    and reaches all others in one step, which a fork bomb cannot outrun.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._disks = [DiskCheck(self, limit, paths) for limit, paths in limits.disks]
        self._checks: list[tuple[asyncio.Event, Check]] = []
        self.kills: list[str] = []
        """What was killed and why, for each time that has happened."""
        self.add(self._check_processes)
        for disk in self._disks:
            self.add(disk)
        if limits.memory is not None:
            self.add(MemoryCheck(self, limits.memory))

    def add(self, check: Check) -> None:
        """Make this check too while there are processes of commands."""
        self._checks.append((asyncio.Event(), check))

    def command_begins(self) -> None:
        """Start checking; it ends by itself when no command's process is left."""
        for begun, _ in self._checks:
            begun.set()

    def kill(self, why: str) -> None:
        """Kill all processes but this one and process 1."""
        self.kills.append(f"all processes were killed: {why}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)

    def kill_one(self, pid: int, why: str) -> None:
        """Kill one process."""
        name = "a process"
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
        self.kills.append(f"{name} (process {pid}) was killed: {why}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def disk_problem(self) -> str | None:
        """Why nothing should be written now; None while there is room."""
        for disk in self._disks:
            if problem := await disk.problem():
                return problem
        return None

    async def run(self) -> None:
        """Check, until cancelled."""
        await asyncio.gather(*(self._keep_checking(begun, check) for begun, check in self._checks))

    async def _keep_checking(self, begun: asyncio.Event, check: Check) -> None:
        while True:
            await begun.wait()
            begun.clear()
            pause = CHECK_SECONDS
            while True:
                await asyncio.sleep(pause)
                pause = await check()
                if count_processes() <= 2:
                    break

    async def _check_processes(self) -> float:
        if count_processes() > self._limits.processes:
            self.kill(f"there were more than {self._limits.processes}")
            return REAP_SECONDS
        return CHECK_SECONDS


class DiskCheck:
    """Bounds what is in these files and folders."""

    def __init__(self, guard: Guard, limit: int, paths: tuple[Path, ...]) -> None:
        self._guard = guard
        self._limit = DiskLimit(limit, ", ".join(map(str, paths)))
        self._paths = paths

    async def __call__(self) -> float:
        began = time.monotonic()
        if not self._limit.is_due(disk_free(self._paths), began):
            return CHECK_SECONDS
        if await self._count():
            self._guard.kill(str(self._limit.problem))
            await asyncio.sleep(CHECK_SECONDS)
            await self._count()  # what they wrote until they were dead is there now, and no growth
        took = time.monotonic() - began
        return max(CHECK_SECONDS, 2 * took)  # a third of the time at most goes into counting

    async def problem(self) -> str | None:
        """Why nothing should be written now; None while there is room."""
        if self._limit.problem is not None:
            await self._count()  # something may have been removed since the last time
        return self._limit.problem

    async def _count(self) -> bool:
        free, began = disk_free(self._paths), time.monotonic()
        used = await asyncio.get_running_loop().run_in_executor(None, disk_usage, self._paths)
        now = time.monotonic()
        pause = min(DISK_CHECK_SECONDS, max(DISK_CHECK_SOONEST, DISK_CHECK_COST * (now - began)))
        return self._limit.grown(used, free, now, pause)
