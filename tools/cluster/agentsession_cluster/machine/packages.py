"""Debian packages: installed only where something is missing, and never starting a service."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from agentsession_cluster.errors import ClusterError
from agentsession_cluster.progress import say, step

_POLICY = Path("/usr/sbin/policy-rc.d")
_CNI = Path("/usr/lib/cni")
_APT_SECONDS = 600


def is_static(program: Path) -> bool:
    """Whether an ELF program needs no loader: no segment of type PT_INTERP (3) in its 64-bit header."""
    try:
        with program.open("rb") as file:
            data = file.read(4096)
    except OSError:
        return False
    if data[:5] != b"\x7fELF\x02":
        return False
    order: Literal["little", "big"] = "little" if data[5] == 1 else "big"
    offset = int.from_bytes(data[32:40], order)
    size, count = (int.from_bytes(data[at : at + 2], order) for at in (54, 56))
    headers = (data[offset + size * index :][:4] for index in range(count))
    return all(int.from_bytes(header, order) != 3 for header in headers)


def static_busybox() -> Path | None:
    """A busybox that runs in an empty image, if one is installed."""
    found = shutil.which("busybox")
    return Path(found) if found and is_static(Path(found)) else None


def missing(control_plane_only: bool) -> list[str]:
    """Packages to install, by what is not there."""
    commands = {"ip": "iproute2", "openssl": "openssl", "unshare": "util-linux", "mount": "mount"}
    if not control_plane_only:
        commands |= {"containerd": "containerd", "ctr": "containerd", "runc": "runc", "iptables": "iptables"}
    wanted = {package for command, package in commands.items() if shutil.which(command, path=_path()) is None}
    if not control_plane_only:
        if not all((_CNI / plugin).exists() for plugin in ("ptp", "host-local", "portmap", "loopback")):
            wanted.add("containernetworking-plugins")
        if static_busybox() is None:
            wanted.add("busybox-static")
    return sorted(wanted)


def install(packages: list[str]) -> None:
    """Installs Debian packages, saying so first."""
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"missing, and there is no apt-get to install them: {', '.join(packages)}",
            "Install what these Debian packages hold in your system's way, or use a machine with Docker and kind.",
        )
    with step(f"apt-get install {' '.join(packages)}", "10-60 s"), _no_services():
        if _apt("install", *packages).returncode == 0:
            return
        say("   package lists are missing or old: apt-get update")  # the usual cause
        _apt("update")
        result = _apt("install", *packages)
        if result.returncode:
            lines = "\n  ".join((result.stderr or result.stdout).strip().splitlines()[-5:])
            raise ClusterError(f"apt-get install failed:\n  {lines}", f"Try: apt-get install {' '.join(packages)}")


def _apt(action: str, *packages: str) -> subprocess.CompletedProcess[str]:
    options = ["-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"] if packages else ["-q"]
    try:
        return subprocess.run(
            ["apt-get", action, *options, *packages],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_APT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"apt-get {action} took more than 10 minutes", "See whether the network is there.") from None


@contextmanager
def _no_services() -> Iterator[None]:
    """Keeps packages from starting daemons on the host; a policy that is there already is left as it is."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
