"""The memory limit on commands. Python 3.9, standard library only.

What counts is memory that is in use. Limits on address space (RLIMIT_DATA, RLIMIT_AS) count what is reserved and never touched:
under one, Java does not start, a program with 228 threads does not, and neither does AddressSanitizer.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Callable, Iterable, Protocol  # noqa: UP035 - Python 3.9

MARGIN_SHARE = 0.1
"""The share of the container's memory that is left for what processes take between two looks, and for the kernel's own."""

MARGIN = 64_000_000
"""Bytes that are left at least, as long as they are no more than a quarter."""

GROWTH = 4_000_000_000
"""Bytes a second that processes are expected to take at most: the fewer are left, the sooner is the next look."""

SHORTEST_PAUSE = 0.005
"""Seconds."""

LONGEST_PAUSE = 0.1

DYING_SECONDS = 1.0
"""How long a process that was killed may still count before another one is killed."""

NO_LIMIT = 2**62
"""cgroup v1 writes no limit as one close to 2**63."""

MEGABYTE = 1_000_000

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container finds its memory limit: with cgroup v2, and with v1."""

_PAGE = os.sysconf("SC_PAGE_SIZE")

_PROC = Path("/proc")


class KillsOne(Protocol):
    """What the check needs of the guard."""

    def kill_one(self, pid: int, why: str) -> None:
        """Kill this process, and tell the command that runs."""
        ...


def container_memory(paths: Iterable[Path] = CGROUP_LIMITS) -> int | None:
    """Bytes of memory that the container may use; None when there is no limit, or it cannot be read."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            limit = int(path.read_text())
            return limit if limit < NO_LIMIT else None
    return None


def memory_for_processes(memory: int) -> int:
    """Bytes that all processes may take together in a container with so much memory."""
    return memory - max(int(memory * MARGIN_SHARE), min(MARGIN, memory // 4))


def resident(pid: int) -> int:
    """Bytes that the process has in memory, those included that it shares with others, and pages of files."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE


def proportional(pid: int) -> int:
    """Bytes that the process has in memory and that cannot be dropped. What it shares counts by its share (proc(5), PSS): after
    a fork, parent and child share all they have.
    """
    sizes: dict[str, int] = {}
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        sizes[name] = int(value.split()[0]) * 1024
    if "Pss_Anon" not in sizes:  # before Linux 5.4
        return sizes["Pss"]
    return sizes["Pss_Anon"] + sizes.get("Pss_Shmem", 0)


class MemoryCheck:
    """Kills the largest process when all together take more than the limit (bytes).

    A container that reaches its own limit is killed as a whole since Kubernetes 1.28 (memory.oom.group), without a word to the
    model.
    """

    def __init__(self, guard: KillsOne, limit: int) -> None:
        self._guard = guard
        self._limit = limit
        self._victim = 0
        self._victim_until = 0.0

    async def __call__(self) -> float:
        began = time.monotonic()
        used = sum(_of_each(resident).values())
        if used > self._limit:  # the exact count takes longer
            sizes = _of_each(proportional) or _of_each(resident)  # not every sandbox has the former
            used = sum(sizes.values())
            if used > self._limit and not (sizes.get(self._victim) and began < self._victim_until):
                self._kill_largest(sizes, used)
                return SHORTEST_PAUSE
        took = time.monotonic() - began
        pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, (self._limit - used) / GROWTH))
        return max(pause, 2 * took)

    def _kill_largest(self, sizes: dict[int, int], used: int) -> None:
        victims = {pid: size for pid, size in sizes.items() if pid not in (1, os.getpid())}
        if victims:
            largest = max(victims, key=lambda pid: victims[pid])
            self._victim, self._victim_until = largest, time.monotonic() + DYING_SECONDS
            self._guard.kill_one(
                largest,
                f"all processes together took {used // MEGABYTE} MB of memory, and may take at most "
                f"{self._limit // MEGABYTE} MB",
            )


def _of_each(measure: Callable[[int], int]) -> dict[int, int]:
    """What this measures of each process."""
    found: dict[int, int] = {}
    for name in os.listdir(_PROC):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError, KeyError):  # it has ended, or ends right now
                found[int(name)] = measure(int(name))
    return found
