"""The operator as a process of its own, against any API server, with the rights that the chart gives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from support.waiting import eventually

NAMESPACE = "agentsession-system"
RUNTIME_IMAGE = "agentsession/runtime:test"


def free_port() -> int:
    """A TCP port of the loopback address that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OperatorProcess:
    """Start it, kill it, ask it."""

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        *,
        identity: str = "operator-under-test",
        image: str = RUNTIME_IMAGE,
        profile: Path | None = None,
    ) -> None:
        """`profile` is where cProfile writes its statistics when the process ends."""
        self._profile = profile
        self._kubeconfig, self.log, self._identity, self._image = kubeconfig, log, identity, image
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        """How often the process was started."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, ready: bool = True) -> None:
        """Start, and wait until it is ready unless told otherwise."""
        profiled = [] if self._profile is None else ["-m", "cProfile", "-o", str(self._profile)]
        command = [sys.executable, *profiled, "-m", "agentsession_operator", "--kubeconfig", str(self._kubeconfig)]
        command += ["--namespace", NAMESPACE, "run", "--runtime-image", self._image, "--report-url", self.url]
        command += ["--http-host", "127.0.0.1", "--http-port", str(self.port), "--identity", self._identity]
        self.starts += 1
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env={**environment, "PYTHONWARNINGS": "default"})
        if ready:
            eventually(self.is_ready, within=60, what=f"the operator's readiness (log: {self.log})")

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the operator ended: {self.log.read_text()[-3000:]}"
        return self.get("/readyz")[0] == 200

    def get(self, path: str) -> tuple[int, str]:
        """HTTP status and body; status 0 where nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def writes(self) -> dict[tuple[str, str], int]:
        """Writes so far by method and resource, refused ones included; the lease is left out."""
        counted: dict[tuple[str, str], int] = {}
        for line in self.get("/metrics")[1].splitlines():
            if not line.startswith("agentsession_api_requests_total{"):
                continue
            labels, _, value = line.partition("} ")
            found = dict(item.split("=", 1) for item in labels.split("{", 1)[1].split(","))
            method, resource = found["method"].strip('"'), found["resource"].strip('"')
            if method != "GET" and resource != "leases":
                counted[method, resource] = counted.get((method, resource), 0) + int(float(value))
        return counted

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process = self._process  # another thread may start the next one meanwhile
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(timeout=20)
        finally:
            process.kill()
            process.wait()
