"""kind's cluster configuration: what a native cluster takes of it, what it refuses, and what it leaves out."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ClusterError
from .machine.addresses import Family

_READ_SECONDS = 20


@dataclass(frozen=True)
class Config:
    """What is taken: the family of every address, and which fields have no effect."""

    family: Family = "ipv4"
    ignored: tuple[str, ...] = ()


def read(path: str, kubectl: Path) -> Config:
    """The configuration in a file (`-`: standard input). kubectl reads the YAML, because Python's standard library does not.

    Raises ClusterError for a file that is none, or that asks for what a native cluster cannot be."""
    command = [str(kubectl), "patch", "--local", "--type=merge", "--patch={}", "--output=json", f"--filename={path}"]
    # kubectl would look for a server's schema in the person's kubeconfig.
    result = subprocess.run(
        [*command, "--kubeconfig=/dev/null"],
        capture_output=True,
        text=True,
        timeout=_READ_SECONDS,
    )
    if result.returncode:
        raise ClusterError(
            f"cannot read {path}: {result.stderr.strip()[-300:]}",
            "Write kind's format: `kind: Cluster`, `apiVersion: kind.x-k8s.io/v1alpha4`, then its fields.",
            exit_code=2,
        )
    return parse(json.loads(result.stdout), path)


def parse(document: Any, where: str = "the configuration") -> Config:
    """What a document says. Raises ClusterError with the field that is wrong."""
    if not isinstance(document, dict) or document.get("kind") != "Cluster":
        raise ClusterError(f"{where}: kind must be Cluster", exit_code=2)
    if document.get("apiVersion") != "kind.x-k8s.io/v1alpha4":
        raise ClusterError(f"{where}: apiVersion must be kind.x-k8s.io/v1alpha4", exit_code=2)
    networking = document.get("networking") or {}
    if not isinstance(networking, dict):
        raise ClusterError(f"{where}: networking must be a map", exit_code=2)
    family = networking.get("ipFamily") or "ipv4"
    if family not in ("ipv4", "ipv6"):
        raise ClusterError(
            f"{where}: networking.ipFamily is {family!r}; a native cluster has one family, ipv4 or ipv6",
            "For `dual`, install Docker and kind; this command then uses them.",
            exit_code=2,
        )
    fields = [name for name in document if name not in ("kind", "apiVersion", "metadata", "name", "networking", "nodes")]
    fields += [f"networking.{name}" for name in networking if name != "ipFamily"]
    nodes = document.get("nodes") or [{"role": "control-plane"}]
    if nodes != [{"role": "control-plane"}]:
        fields.append("nodes")
    return Config("ipv6" if family == "ipv6" else "ipv4", tuple(sorted(fields)))
