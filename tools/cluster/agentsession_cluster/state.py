"""What is known of a cluster between two commands, and the identity of a process across them.

A process is its id, its start time and the machine's boot: an id alone may have been given to another process.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import ClusterError
from .machine.addresses import Family, Plan
from .progress import say


@dataclass(frozen=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    started: int  # clock ticks after boot, field 22 of /proc/<pid>/stat
    boot: str  # the kernel's boot id

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The identity of a running process, or None if there is none (a zombie counts as none)."""
        started = start_time(pid)
        return None if started is None else cls(pid, started, boot_id())

    def alive(self) -> bool:
        return self.boot == boot_id() and start_time(self.pid) == self.started


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks after boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name may hold spaces and parentheses
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True)
class State:
    """One cluster as recorded. `launcher` is unshare(1), `init` process 1 of the cluster's namespaces."""

    name: str
    index: int
    control_plane_only: bool
    phase: str  # "creating", then "ready"
    launcher: ProcessId | None = None
    init: ProcessId | None = None
    family: Family = "ipv4"

    @property
    def plan(self) -> Plan:
        return Plan(self.index, self.family)

    def running(self) -> bool:
        return self.init is not None and self.init.alive()


@dataclass(frozen=True)
class Layout:
    """The files of one cluster."""

    directory: Path

    @property
    def certificates(self) -> Path:
        return self.directory / "pki"

    @property
    def config(self) -> Path:
        return self.directory / "config"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def extra(self) -> Path:
        """Specifications put here are started by process 1 at once."""
        return self.run / "extra"

    @property
    def processes(self) -> Path:
        return self.run / "processes.json"

    @property
    def containerd_socket(self) -> Path:
        return self.directory / "containerd.sock"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.directory / "admin.kubeconfig"

    @property
    def state_file(self) -> Path:
        return self.directory / "state.json"


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Writes a file that is either the old or the new one, no matter what happens in between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)


def save(layout: Layout, state: State) -> None:
    write_atomically(layout.state_file, json.dumps(asdict(state), indent=1))


def load(layout: Layout) -> State | None:
    """The recorded state, or None if there is none or it cannot be read (a machine that crashed while writing)."""
    try:
        raw: dict[str, Any] = json.loads(layout.state_file.read_text())
        for key in ("launcher", "init"):
            raw[key] = ProcessId(**raw[key]) if raw.get(key) else None
        return State(**raw)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def names(root: Path) -> list[str]:
    """Clusters that have a directory, running or not."""
    try:
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError:
        return []


@contextmanager
def lock(path: Path, what: str, deadline: float) -> Iterator[None]:
    """Holds a lock that ends with this process; waits for another holder at most `deadline` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end, told = time.monotonic() + deadline, False
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise ClusterError(
                        f"another command is still {what} after {deadline:.0f} s",
                        f"Wait for it, or see who holds the lock: `fuser {path}`.",
                    ) from None
                if not told:
                    say(f" • another command is {what}; waiting for it ...")
                    told = True
                time.sleep(0.1)
        yield
