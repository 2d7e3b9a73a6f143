"""Clusters for tests, by kind's command line."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KIND = ROOT / "tools" / "cluster" / "kind"


def kind(*arguments: str, timeout: float = 1500) -> str:
    """Run kind's command line and give its output; what it says of its progress goes to our standard error."""
    result = subprocess.run([str(KIND), *arguments], stdout=subprocess.PIPE, text=True, timeout=timeout, check=True)
    return result.stdout.strip()


@contextlib.contextmanager
def control_plane(name: str, directory: Path) -> Iterator[Path]:
    """The kubeconfig of an API server without a kubelet: a new one, or the cluster that the person asks for."""
    existing = current_cluster()
    if existing is not None:
        yield existing
        return
    path = directory / "kubeconfig"
    kind("delete", "cluster", "--name", name)  # what an interrupted run left behind
    kind("create", "cluster", "--name", name, "--control-plane-only", "--kubeconfig", str(path))
    try:
        yield path
    finally:
        kind("delete", "cluster", "--name", name)


def current_cluster() -> Path | None:
    """The kubeconfig of an existing cluster, where the person asks for it; never by accident."""
    if os.environ.get("AGENTSESSION_USE_CURRENT_CLUSTER") != "1":
        return None
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        raise RuntimeError("AGENTSESSION_USE_CURRENT_CLUSTER=1 needs KUBECONFIG to name the cluster's file")
    return Path(kubeconfig)
