"""Process 1 of a cluster: sets up its namespaces, starts its processes in order, reaps, and ends them all.

Runs inside new PID, mount and network namespaces (unshare(1) made them). It reads a specification (see `node.py`),
starts each process once the marker files it waits for exist, records what runs and what ended in `processes.json`,
and starts anything whose specification appears in the `extra` directory later. When it ends, the kernel ends
every other process of the cluster.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from agentsession_cluster.state import write_atomically

_TICK = 0.02  # while processes wait for their markers
_IDLE = 0.5  # afterwards: how soon an extra process starts


class Init:
    """The state of process 1: what is still to start, what runs, what ended."""

    def __init__(self, specification: dict[str, Any]) -> None:
        self._specification = specification
        self._pending: list[dict[str, Any]] = list(specification["processes"])
        self._known: dict[int, str] = {}
        self._report: dict[str, dict[str, Any]] = {}
        self._extra = Path(specification["extra"])
        self._seen: set[str] = set()
        self._log = Path(specification["logs"])

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        _limits()
        for command in self._specification["setup"]:
            subprocess.run(command, check=True, timeout=10)
        Path(self._specification["started_marker"]).touch()
        self._network()
        api_marker = Path(self._specification["api_marker"])
        while True:
            self._start_ready()
            if not api_marker.exists() and self._api_answers():
                api_marker.touch()
                continue
            busy = bool(self._pending) or not api_marker.exists()
            arrived = signal.sigtimedwait(
                {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}, _TICK if busy else _IDLE
            )
            if arrived is not None and arrived.si_signo != signal.SIGCHLD:
                return
            self._reap()
            self._find_extra()

    def _api_answers(self) -> bool:
        return _answers(self._specification["api"], self._specification["authority"])

    def _network(self) -> None:
        """Waits for the interface that the host puts into our namespace, and configures it."""
        network = self._specification["network"]
        end = time.monotonic() + 20
        while not Path(f"/proc/sys/net/ipv4/conf/{network['interface']}").exists():
            if time.monotonic() > end:
                raise TimeoutError(f"{network['interface']} did not appear in the cluster's network namespace")
            time.sleep(0.01)
        ipv6 = network["family"] == "ipv6"
        # nodad: nobody else is on the link, and an address that is still being checked for duplicates cannot be bound.
        nodad = ("nodad",) if ipv6 else ()
        for arguments in (
            ("link", "set", "lo", "up"),
            ("addr", "add", network["address"], "dev", network["interface"], *nodad),
            ("link", "set", network["interface"], "up"),
            ("route", "add", "default", "via", network["gateway"]),
        ):
            subprocess.run(["ip", "-6" if ipv6 else "-4", *arguments], check=True, timeout=10)
        forwarding = "ipv6/conf/all/forwarding" if ipv6 else "ipv4/ip_forward"
        (Path("/proc/sys/net") / forwarding).write_text("1")
        Path(self._specification["network_marker"]).touch()

    def _start_ready(self) -> None:
        for process in list(self._pending):
            if all(Path(marker).exists() for marker in process.get("after", [])):
                self._pending.remove(process)
                self._start(process)

    def _start(self, process: dict[str, Any]) -> None:
        with (self._log / f"{process['name']}.log").open("ab") as log:
            try:
                child = subprocess.Popen(
                    process["argv"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._specification["environment"] | process.get("environment", {}),
                    cwd="/",
                    preexec_fn=_unblock_signals,
                )
            except OSError as error:
                log.write(f"cannot start {process['argv'][0]}: {error}\n".encode())
                self._report[process["name"]] = {"pid": None, "exit": 127}
            else:
                self._known[child.pid] = process["name"]
                self._report[process["name"]] = {"pid": child.pid, "exit": None}
        self._write_report()

    def _reap(self) -> None:
        """Collects every ended child: ours, and the orphans that process 1 inherits (containerd's shims)."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self._known.pop(pid, None)
            if name is not None:
                self._report[name] = {"pid": pid, "exit": os.waitstatus_to_exitcode(status)}
                self._write_report()

    def _find_extra(self) -> None:
        for file in sorted(self._extra.glob("*.json")):
            if file.name not in self._seen:
                self._seen.add(file.name)
                self._pending.append(json.loads(file.read_text()))

    def _write_report(self) -> None:
        write_atomically(Path(self._specification["report"]), json.dumps(self._report, indent=1))


def _answers(url: str, authority: str) -> bool:
    """Whether the API server is ready; /readyz needs no credentials."""
    try:
        context = ssl.create_default_context(cafile=authority)  # made by the command that started us, a moment later
        with urllib.request.urlopen(url, timeout=2, context=context) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _limits() -> None:
    """As many open files as allowed, up to a million: far more makes programs slow that close every descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1_048_576 if hard == resource.RLIM_INFINITY else min(hard, 1_048_576)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def main(specification: Path) -> int:
    Init(json.loads(specification.read_text())).run()
    return 0
