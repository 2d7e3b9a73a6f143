"""The host's end of a cluster's network: one veth pair, its address, and the routes to pods and services."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import subprocess
import time
from pathlib import Path

from agentsession_cluster.errors import ClusterError

from .addresses import Plan, used_networks
from .node import INTERFACE


def networks_in_use() -> list[str]:
    """Destinations of the host's routes, of both families."""
    families = ("-4", "-6") if ipv6_available() else ("-4",)
    outputs = [_ip(family, "-json", "route", "show", "table", "all", "type", "unicast") for family in families]
    return [route["dst"] for output in outputs for route in json.loads(output or "[]")]


def ipv6_available() -> bool:
    """Whether the kernel has IPv6, and network interfaces may use it."""
    try:
        return Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text().strip() == "0"
    except OSError:  # ipv6.disable=1, or a kernel without it
        return False


def taken_interfaces() -> set[int]:
    """Indexes whose interface exists, no matter what created it."""
    taken = set()
    for path in Path("/sys/class/net").glob("asc*"):
        with contextlib.suppress(ValueError):
            taken.add(int(path.name.removeprefix("asc")))
    return taken


def connect(plan: Plan, pid: int) -> None:
    """Joins the host and the network namespace of process `pid`."""
    _ip("link", "add", plan.host_interface, "type", "veth", "peer", "name", INTERFACE, "netns", str(pid))
    nodad = ("nodad",) if plan.ipv6 else ()  # usable at once; nobody else is on the link
    _ip("addr", "add", f"{plan.host_ip}/{plan.prefix_length}", "dev", plan.host_interface, *nodad)
    _ip("link", "set", plan.host_interface, "up")
    for cidr in (plan.pod_cidr, plan.service_cidr):
        _ip("-6" if plan.ipv6 else "-4", "route", "add", cidr, "via", plan.node_ip, "dev", plan.host_interface)


def disconnect(plan: Plan, deadline: float = 5.0) -> bool:
    """Removes the pair, and with it addresses and routes; False if it is still there at the deadline.

    The kernel removes it too when the namespace ends, but some time later.
    """
    end = time.monotonic() + deadline
    path = Path("/sys/class/net") / plan.host_interface
    while path.exists():
        subprocess.run(["ip", "link", "del", plan.host_interface], capture_output=True, timeout=10)
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def resolves(server: str, name: str, timeout: float = 0.5) -> bool:
    """Whether the DNS server at this address knows an address of the name, in the server's own family."""
    ipv6 = ":" in server
    query_id = random.randrange(65536)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack(">HHHHHH", query_id, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 28 if ipv6 else 1, 1)
    with socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        try:
            client.connect((server, 53))
            client.send(query)
            answer = client.recv(4096)
        except OSError:
            return False
    answer_id, flags, _, count = struct.unpack(">HHHH", answer[:8])
    return bool(answer_id == query_id and flags & 0x000F == 0 and count > 0)


def used() -> list[str]:
    """For messages and tests: the networks in use on this host, as text."""
    return [str(network) for network in used_networks(networks_in_use())]


def _ip(*arguments: str) -> str:
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=10)
    if result.returncode:
        raise ClusterError(
            f"`ip {' '.join(arguments)}` failed: {result.stderr.strip()}",
            "The cluster needs the right to make network interfaces (root with CAP_NET_ADMIN).",
        )
    return result.stdout
