"""Which clusters are Docker's and which are ours: where Docker answers and kind is installed, kind does the work."""

from __future__ import annotations

import os
import shutil
import subprocess

from .errors import ClusterError

VARIABLE = "AGENTSESSION_CLUSTER_BACKEND"


def kind_command() -> str | None:
    """kind's path where it can work; None where clusters are native. AGENTSESSION_CLUSTER_BACKEND decides if set."""
    choice = os.environ.get(VARIABLE, "")
    if choice not in ("", "kind", "native"):
        raise ClusterError(f"{VARIABLE}={choice} is unknown", "Use kind or native.", exit_code=2)
    if choice == "native":
        return None
    found = shutil.which("kind")
    if found and docker_answers():
        return found
    if choice == "kind":
        raise ClusterError(f"{VARIABLE}=kind, but kind or Docker is not there", "Install both, or unset it.")
    return None


def docker_answers() -> bool:
    """Whether a Docker daemon answers; the client alone exits with 0 in some versions, so its answer is read."""
    if shutil.which("docker") is None:
        return False
    try:
        result = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True, timeout=15
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and bool(result.stdout.strip())
