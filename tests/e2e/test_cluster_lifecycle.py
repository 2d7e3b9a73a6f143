"""The native cluster leaves nothing behind, regardless of what happened to it before it was deleted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentsession_cluster import backend, binaries, images, lifecycle
from agentsession_cluster.machine import packages
from agentsession_cluster.settings import ENTRY_POINT
from agentsession_cluster.state import Layout, load
from support.waiting import eventually

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="a native cluster needs root"),
    pytest.mark.skipif(backend.kind_command() is not None, reason="here kind makes the clusters, in Docker"),
]


@dataclass(frozen=True)
class Cluster:
    """A cluster of one test."""

    name: str
    kubeconfig: Path

    @property
    def layout(self) -> Layout:
        return lifecycle.layout_of(self.name)

    def kind(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(ENTRY_POINT), *arguments, "--name", self.name]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    def create(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.kind("create", "cluster", "--kubeconfig", str(self.kubeconfig), *options)

    def delete(self) -> subprocess.CompletedProcess[str]:
        return self.kind("delete", "cluster", "--kubeconfig", str(self.kubeconfig))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        program = shutil.which("kubectl") or str(binaries.kubectl())
        command = [program, "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, check=True, input=stdin, capture_output=True, text=True, timeout=60).stdout

    def processes(self) -> dict[str, int]:
        """The cluster's processes by name, with the host's ids: the children of its process 1."""
        state = load(self.layout)
        assert state is not None
        assert state.init is not None
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    program = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
                except OSError:
                    continue
                if parent == state.init.pid:
                    found[Path(program).name] = int(entry.name)
        return found

    def traces(self) -> list[str]:
        """Everything on the machine that is of this cluster. Other clusters may come and go meanwhile."""
        directory = os.fsencode(self.layout.directory)
        found = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/agentsession-cluster/{self.name}")]
        found += [line for line in Path("/proc/mounts").read_text().splitlines() if os.fsdecode(directory) in line]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                    cgroup = (entry / "cgroup").read_text()
                except OSError:
                    continue
                if directory in command or f"/agentsession-cluster/{self.name}/" in cgroup:
                    found.append(f"process {entry.name}: {command!r}")
        if self.layout.directory.exists():
            found.append(str(self.layout.directory))
        return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    result = Cluster(f"life-{uuid.uuid4().hex[:6]}", tmp_path / "kubeconfig")
    yield result
    result.delete()


def host_network() -> set[str]:
    """Interfaces, routes and iptables rules of the host itself."""
    commands = (["ip", "-json", "addr"], ["ip", "-json", "route"], ["iptables-save"])
    outputs = [subprocess.run(command, capture_output=True, text=True, timeout=20).stdout for command in commands]
    lines = {json.dumps(entry.get("ifname") or entry) for output in outputs[:2] for entry in json.loads(output or "[]")}
    return lines | {line for line in outputs[2].splitlines() if line.startswith(("-", "*"))}


def pod(name: str) -> str:
    """A restricted pod that writes to a volume of the default class and serves it."""
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    script = "echo $HOSTNAME > /data/index.html; echo started; exec /bin/busybox httpd -f -p 8080 -h /data"
    container: dict[str, Any] = {
        "name": "main",
        "image": "localhost/lifecycle:1",
        "command": ["/bin/busybox", "sh", "-c", script],
        "securityContext": restricted,
        "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    security = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "securityContext": security, "volumes": [volume]},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [claim, service, manifest]})


def run_pod(cluster: Cluster, directory: Path, name: str) -> None:
    busybox = packages.static_busybox()
    assert busybox is not None
    archive = directory / "image.tar"
    images.write_sandbox_archive(archive, busybox, "localhost/lifecycle:1")
    loaded = cluster.kind("load", "image-archive", str(archive))
    assert loaded.returncode == 0, loaded.stderr
    assert "localhost/lifecycle:1" in loaded.stderr
    cluster.kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted")
    cluster.kubectl("apply", "-f", "-", stdin=pod(name))
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def test_a_cluster_runs_pods_and_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    before = host_network()
    created = cluster.create()
    assert created.returncode == 0, created.stderr
    run_pod(cluster, tmp_path, "web")
    assert cluster.kubectl("logs", "web") == "started\n"
    shell = ("exec", "web", "--", "/bin/busybox", "sh", "-c")
    assert cluster.kubectl(*shell, "/bin/busybox id -u") == "1000\n"
    assert "10." in cluster.kubectl(*shell, "/bin/busybox nslookup web.default.svc.cluster.local")
    assert "agentsession:admins" in cluster.kubectl("auth", "whoami", "-o", "json")
    assert cluster.traces()
    deleted = cluster.delete()
    assert deleted.returncode == 0, deleted.stderr
    assert cluster.traces() == []
    plan_lines = [line for line in host_network() - before if "asc" in line or "KUBE" in line or "172.30." in line]
    assert plan_lines == []
    assert cluster.name not in cluster.kubeconfig.read_text()


def test_creating_it_again_changes_nothing_and_says_so(cluster: Cluster) -> None:
    assert cluster.create("--control-plane-only").returncode == 0
    before = cluster.processes()
    again = cluster.create("--control-plane-only")
    assert again.returncode == 0
    assert "already exists and is healthy" in again.stderr
    assert cluster.processes() == before


def test_two_commands_at_once_make_one_cluster(cluster: Cluster) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: cluster.create("--control-plane-only"), range(2)))
    assert [result.returncode for result in results] == [0, 0], [result.stderr for result in results]
    assert sum("already exists" in result.stderr for result in results) == 1


def test_a_cluster_with_a_killed_node_is_reported_and_can_be_replaced(cluster: Cluster, tmp_path: Path) -> None:
    assert cluster.create().returncode == 0
    run_pod(cluster, tmp_path, "web")
    processes = cluster.processes()
    for name in ("containerd", "kubelet"):
        os.kill(processes[name], signal.SIGKILL)
    broken = eventually_fails(cluster)
    assert "containerd ended with -9" in broken
    assert "delete cluster" in broken
    assert cluster.delete().returncode == 0
    assert cluster.traces() == []
    assert cluster.create("--control-plane-only").returncode == 0


@pytest.mark.parametrize("damage", ["killed", "state lost"])
def test_the_rest_of_a_killed_cluster_is_removed(cluster: Cluster, damage: str) -> None:
    assert cluster.create("--control-plane-only").returncode == 0
    state = load(cluster.layout)
    assert state is not None
    assert state.init is not None
    if damage == "killed":
        os.kill(state.init.pid, signal.SIGKILL)
    else:
        cluster.layout.state_file.write_text("{")
    assert "broken" in cluster.create("--control-plane-only").stderr
    assert cluster.delete().returncode == 0
    assert cluster.traces() == []
    eventually(lambda: not (Path("/sys/class/net") / state.plan.host_interface).exists())


def eventually_fails(cluster: Cluster) -> str:
    """What `create` says once it has noticed that the cluster is broken."""
    said: list[str] = []

    def failed() -> bool:
        result = cluster.create()
        said.append(result.stderr)
        return result.returncode == 1

    eventually(failed)
    return said[-1]
