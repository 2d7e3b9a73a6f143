"""Putting AgentSession on a cluster: build and load the images, install the chart. For the demo, the tests and benchmarks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, cast

from support.cluster import ROOT, current_cluster, kind

SYSTEM = "agentsession-system"
IMAGES = {"operator": "operator", "runtime": "runtime", "local-model": "localModel"}
"""Images by name, and the chart's value that holds each."""


class Kubectl:
    """kubectl and helm against one cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.path = kind("bin", "kubectl")

    def __call__(self, *arguments: str, text: str | None = None, timeout: float = 120) -> str:
        """Standard output. Raises CalledProcessError, with kubectl's own words on it."""
        command = [self.path, "--kubeconfig", str(self.kubeconfig), *arguments]
        result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout)
        if result.returncode != 0:
            error = subprocess.CalledProcessError(result.returncode, command, result.stdout, result.stderr)
            error.add_note(result.stderr)
            raise error
        return result.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        """Standard output of `kubectl ... -o json`."""
        return cast(dict[str, Any], json.loads(self(*arguments, "-o", "json")))

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        """Standard output of helm."""
        command = [kind("bin", "helm"), "--kubeconfig", str(self.kubeconfig), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments[:3])}: {result.stderr.strip()}")
        return result.stdout


def build_images() -> dict[str, tuple[str, str]]:
    """Build what is not built yet: image name to its reference and its archive."""
    output = subprocess.run([ROOT / "tools/images/build"], stdout=subprocess.PIPE, text=True, check=True, timeout=3600).stdout
    built = {}
    for line in output.splitlines():
        reference, _, archive = line.partition(" ")
        built[reference.rsplit("/", 1)[-1].partition(":")[0]] = (reference, archive.strip())
    return built


def load_images(cluster: str, images: dict[str, tuple[str, str]]) -> None:
    """Bring the images to the cluster's node; a cluster that is not ours pulls them from where its nodes pull."""
    if current_cluster() is None:
        kind("load", "image-archive", *(archive for _, archive in images.values()), "--name", cluster)


def install(kubectl: Kubectl, images: dict[str, tuple[str, str]], *values: str) -> None:
    """Install or upgrade the chart, and wait until it runs."""
    arguments = [part for setting in ("localModel.enabled=true", *values) for part in ("--set", setting)]
    for name, value in IMAGES.items():
        repository, _, tag = images[name][0].rpartition(":")
        # As text: Helm takes a tag of nothing but digits for a number.
        arguments += ["--set-string", f"image.{value}.repository={repository},image.{value}.tag={tag}"]
    # Helm installs CRDs once and never updates them.
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "manifests" / "crds"))
    kubectl.helm(
        *("upgrade", "--install", "agentsession", str(ROOT / "charts/agentsession")),
        *("--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "180s", *arguments),
    )


def cluster_for(name: str, kubeconfig: Path) -> Path:
    """A cluster's kubeconfig: the person's own where they ask for it, else a local one of this name, made if need be."""
    existing = current_cluster()
    if existing is not None:
        return existing
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    kind("create", "cluster", "--name", name, "--kubeconfig", str(kubeconfig))
    return kubeconfig


def serve(kubectl: Kubectl, namespace: str, name: str, image: str, files: dict[str, str], *command: str) -> None:
    """Run a Python program of these files as a pod that serves port 8080, behind a Service of the same name."""
    meta = {"name": name, "namespace": namespace, "labels": {"app": name}}
    container = {
        "name": "server",
        "image": image,
        "command": ["python3", *command],
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    volume = {"name": "files", "configMap": {"name": name}}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": files},
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], "volumes": [volume]}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": meta["labels"], "ports": [{"port": 8080}]},
        },
    ]
    kubectl("-n", namespace, "delete", "pod", name, "--ignore-not-found", "--grace-period=0", "--force")
    kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    kubectl("-n", namespace, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
