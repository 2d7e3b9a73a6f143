"""The person's kubeconfig: the cluster's entry is added to the file, and taken out again, as kind does it."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

from .errors import ClusterError
from .machine.addresses import Plan


def context_name(cluster: str) -> str:
    """The name of the context, the cluster and the user, as kind forms it."""
    return f"kind-{cluster}"


def default_path() -> Path:
    """$KUBECONFIG's first file, else ~/.kube/config."""
    first = next((entry for entry in os.environ.get("KUBECONFIG", "").split(os.pathsep) if entry), None)
    return Path(first) if first else Path.home() / ".kube" / "config"


def render(cluster: str, plan: Plan, certificates: Path) -> str:
    """A kubeconfig with this cluster alone, certificates included."""
    name = context_name(cluster)
    authority, certificate, key = (
        base64.b64encode((certificates / file).read_bytes()).decode() for file in ("ca.crt", "admin.crt", "admin.key")
    )
    return f"""apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster:
    server: {plan.server}
    certificate-authority-data: {authority}
users:
- name: {name}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}
current-context: {name}
preferences: {{}}
"""


def add(path: Path, cluster: str, text: str, kubectl: Path) -> None:
    """Makes this cluster the file's current context, keeping every other entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text().strip():
        text = _merged(path, cluster, text, kubectl)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(path.resolve())  # a link stays a link


def _merged(path: Path, cluster: str, text: str, kubectl: Path) -> str:
    """Both files' entries; the new file comes first, because kubectl keeps the first of two of one name."""
    new = path.with_name(f".{path.name}.{cluster}.{os.getpid()}")
    new.touch(mode=0o600)
    try:
        new.write_text(text)
        result = subprocess.run(
            [str(kubectl), "config", "view", "--raw", "--flatten"],
            env=os.environ | {"KUBECONFIG": f"{new}{os.pathsep}{path}"},
            capture_output=True,
            text=True,
            timeout=30,
        )
    finally:
        new.unlink(missing_ok=True)
    if result.returncode:
        raise ClusterError(
            f"cannot add the cluster to {path}: {result.stderr.strip()}", "Repair that file, or name another with --kubeconfig."
        )
    return result.stdout


def remove(path: Path, cluster: str, kubectl: Path) -> None:
    """Takes the cluster's entries out of the file, if they are there."""
    name = context_name(cluster)
    if not path.exists() or name not in path.read_text():
        return

    def config(*arguments: str) -> str:
        command = [str(kubectl), "config", f"--kubeconfig={path}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()

    if config("current-context") == name:
        config("unset", "current-context")
    for kind in ("context", "cluster", "user"):
        config(f"delete-{kind}", name)
