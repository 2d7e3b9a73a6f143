"""A cluster's cgroups: one directory per hierarchy, so that two kubelets never clean up each other's pods."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

PARENT = "agentsession-cluster"


def hierarchies(mountinfo: str) -> list[Path]:
    """Where cgroup hierarchies are mounted: one with cgroup v2, several with v1."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] in ("cgroup", "cgroup2"):
            found.append(Path(before.split(" ")[4]))
    return found


def available() -> bool:
    """Whether any hierarchy is mounted."""
    return bool(_here())


def create(name: str) -> None:
    """Makes the cluster's directory in every hierarchy; the kubelet refuses a root that does not exist."""
    for hierarchy in _here():
        directory = hierarchy / PARENT / name
        directory.mkdir(parents=True, exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # Version 1 starts a cpuset empty, and an empty one takes no process.
            source = hierarchy / setting
            if source.exists():
                for child in (directory.parent, directory):
                    (child / setting).write_text(source.read_text())


def path_of(name: str) -> str:
    """The cgroup's path within each hierarchy, for the kubelet's cgroupRoot."""
    return f"/{PARENT}/{name}"


def processes(name: str) -> set[int]:
    """Processes in the cluster's cgroups, as the host numbers them."""
    found: set[int] = set()
    for hierarchy in _here():
        for directory in _tree(hierarchy / PARENT / name):
            with contextlib.suppress(OSError):
                found.update(int(line) for line in (directory / "cgroup.procs").read_text().split())
    return found


def remove(name: str, deadline: float = 10.0) -> list[Path]:
    """Removes the cluster's cgroups; returns those that stayed because something still runs in them."""
    end = time.monotonic() + deadline
    while True:
        left = [directory for hierarchy in _here() for directory in _remove_tree(hierarchy / PARENT / name)]
        if not left or time.monotonic() > end:
            break
        time.sleep(0.05)  # a process that was killed leaves its cgroup only once it is reaped
    for hierarchy in _here():
        with contextlib.suppress(OSError):
            (hierarchy / PARENT).rmdir()  # stays while another cluster is below it
    return left


def _remove_tree(directory: Path) -> list[Path]:
    if not directory.exists():
        return []
    for path in sorted(_tree(directory), key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):
            path.rmdir()
    return [directory] if directory.exists() else []


def _tree(directory: Path) -> list[Path]:
    """The directory and all below it. `os.walk`, unlike `Path.rglob`, passes over what vanishes while it looks."""
    return [Path(found) for found, _, _ in os.walk(directory)]


def _here() -> list[Path]:
    return hierarchies(Path("/proc/self/mountinfo").read_text())
