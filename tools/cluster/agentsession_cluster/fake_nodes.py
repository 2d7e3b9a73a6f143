"""Fake nodes for scale tests: kwok plays kubelets for node objects, and the pods on them run nowhere."""

from __future__ import annotations

import json
import time

from . import binaries
from .api import Api, ApiError
from .errors import ClusterError
from .lifecycle import node_of, running
from .machine.node import kwok
from .objects import fake_node
from .progress import step
from .report import ended_processes
from .state import write_atomically

_READY_SECONDS = 60


def create(name: str, count: int, pods: int) -> None:
    """Adds nodes fake-0 to fake-<count-1> with room for `pods` pods each; starts kwok the first time."""
    layout, state = running(name)
    if state.family == "ipv6":
        raise ClusterError(f"cluster '{name}' is IPv6-only, and fake nodes have IPv4 addresses", "Create a cluster without it.")
    binary = binaries.ensure("kwok")["kwok"]
    process = {"name": "kwok", "argv": kwok(node_of(layout, state), binary)}
    if not (layout.extra / "kwok.json").exists():
        write_atomically(layout.extra / "kwok.json", json.dumps(process))
    api = Api(state.plan.node_ip, state.plan.api_port, layout.certificates, "admin")
    try:
        with step(f"{count} fake nodes", "3 s"):
            for index in range(count):
                try:
                    api.request("POST", "/api/v1/nodes", fake_node(index, pods, tainted=not state.control_plane_only))
                except ApiError as error:
                    if error.status != 409:
                        raise
            end = time.monotonic() + _READY_SECONDS
            while _ready(api) < count:
                if ended_processes(layout) or time.monotonic() > end:
                    raise ClusterError("fake nodes did not become Ready", f"See {layout.logs / 'kwok.log'}.")
                time.sleep(0.1)
    finally:
        api.close()


def _ready(api: Api) -> int:
    nodes = api.request("GET", "/api/v1/nodes?labelSelector=type%3Dkwok")["items"]
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", []))
        for node in nodes
    )
