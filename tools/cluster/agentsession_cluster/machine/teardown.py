"""Deletes a cluster in any state: running, half created, killed, or left over by a restart.

Process 1 of the cluster is enough to kill, because the kernel ends its PID namespace with it. The rest is for what
outlives processes: cgroups, the host's interface (for a moment), and files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from agentsession_cluster.errors import ClusterError
from agentsession_cluster.state import Layout, ProcessId, load, lock, names

from . import cgroups, network
from .node import PRIVATE_DIRECTORIES

_KILL_SECONDS = 30.0
_MADE = ".made-directories"  # those that this command made on the host as mount points


def specification_file(layout: Layout) -> Path:
    """What process 1 was started with; its full path in a command line identifies the cluster's processes."""
    return layout.config / "node.json"


def remove(layout: Layout, name: str) -> None:
    """Ends the cluster's processes and removes all that it left. Works without a readable state file."""
    state = load(layout)
    recorded = [process for process in (state.launcher, state.init) if process] if state else []
    _kill({process for process in recorded if process.alive()} | set(_launched(layout)), name)
    if state:
        network.disconnect(state.plan)
    _unmount(layout.directory)
    left = cgroups.remove(name)
    if left:
        raise ClusterError(
            f"cgroups could not be removed: {', '.join(map(str, left))}",
            "Something still runs in them: `cat <cgroup>/cgroup.procs`; end it and delete the cluster again.",
        )
    _remove_directory(layout.directory)
    _remove_host_directories(layout.directory.parent)


def child_of(pid: int) -> int | None:
    """The first child of a process."""
    return next((child for child, parent in _parents() if parent == pid), None)


def make_host_directories(root: Path) -> None:
    """Makes the mount points that nodes need on the host, and notes which were not there."""
    record = root / _MADE
    made = record.read_text().splitlines() if record.exists() else []
    for path in PRIVATE_DIRECTORIES:
        if not Path(path).exists():
            Path(path).mkdir(parents=True)
            made.append(path)
    record.write_text("".join(f"{path}\n" for path in made))


def _remove_host_directories(root: Path) -> None:
    """Removes the mount points again with the last cluster: removing one would unmount it in another cluster."""
    with lock(root / ".locks" / ".addresses.lock", "taking addresses", 30):
        record = root / _MADE
        if names(root) or not record.exists():
            return
        for path in record.read_text().splitlines():
            with contextlib.suppress(OSError):
                Path(path).rmdir()  # only an empty one
        record.unlink()


def _launched(layout: Layout) -> Iterator[ProcessId]:
    """unshare(1) and process 1 of this cluster, by the specification file in their arguments."""
    wanted = os.fsencode(specification_file(layout))
    for pid in _pids():
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"_node" in arguments and wanted in arguments:
            identity = ProcessId.of(pid)
            if identity:
                yield identity


def _kill(processes: set[ProcessId], name: str) -> None:
    """Kills, and waits until these and everything in the cluster's cgroups are gone."""
    end = time.monotonic() + _KILL_SECONDS
    while True:
        left = {process for process in processes if process.alive()}
        # Containers end with the PID namespace. Killing what is still in a cgroup of this cluster is for a
        # namespace whose process 1 ended before we came and whose members the kernel is still ending.
        members = {identity for pid in cgroups.processes(name) if (identity := ProcessId.of(pid))}
        if not left and not members:
            return
        if time.monotonic() > end:
            pids = ", ".join(str(process.pid) for process in left | members)
            raise ClusterError(
                f"processes {pids} did not end within {_KILL_SECONDS:.0f} s of SIGKILL",
                "They hang in the kernel (a dead network file system, say); restart the machine, then delete again.",
            )
        for process in left | members:
            if process.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.02)


def _unmount(directory: Path) -> None:
    """Unmounts what is mounted below a directory in the host's namespace; deepest first."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].encode().decode("unicode_escape")
        if Path(point).is_relative_to(directory):
            mounts.append(point)
    for point in sorted(mounts, key=len, reverse=True):
        subprocess.run(["umount", "--lazy", point], capture_output=True, timeout=30)


def _remove_directory(directory: Path) -> None:
    """Removes the files; a second try is for mounts that the kernel was still ending with their namespace."""
    for _ in range(50):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)
    raise ClusterError(f"{directory} could not be removed", f"See what uses it: `fuser -vm {directory}`.")


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _parents() -> Iterator[tuple[int, int]]:
    for pid in _pids():
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            yield pid, int(stat.rpartition(")")[2].split()[1])
