"""A real API server and etcd, without a kubelet: pods' status is what the tests write."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from support.api import GROUP, JSON, Api, Refused
from support.cluster import ROOT, control_plane, kind
from support.operator_account import as_account
from support.operator_process import NAMESPACE, OperatorProcess
from support.quota import Quota
from support.scene import Scene
from support.waiting import eventually

CLUSTER = f"agentsession-api-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]}"
"""One for each checkout: two of them may be tested at the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/api/" in item.nodeid or item.nodeid.startswith("api/"):
            item.add_marker(pytest.mark.api)


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with control_plane(CLUSTER, tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Api:
    """The cluster with all that the plain manifests install, but the operator's Deployment: that runs as a process here."""
    admin = Api(kubeconfig)
    install = _documents("install.yaml")
    _apply(kubeconfig, [item for item in install if item["kind"] not in ("Deployment", "Service")])
    defaults = _documents("defaults.yaml")
    # A node that nobody runs: its taints come as soon as its heartbeat is missed.
    defaults[0]["spec"] |= {"agent": {"model": "openai/none"}, "tolerations": [{"operator": "Exists"}]}
    eventually(lambda: _apply(kubeconfig, defaults), within=30, what="the new kinds to be served")
    _make_node(admin)
    return admin


def _make_node(admin: Api) -> None:
    """A node for the scheduler, so that it has nothing to say about the tests' pods. No kubelet is behind it."""
    admin.delete("/api/v1/nodes/nowhere")
    admin.create("/api/v1/nodes", {"metadata": {"name": "nowhere"}})
    room = {"cpu": "1000", "memory": "1000Gi", "pods": "1000", "ephemeral-storage": "1000Gi"}
    status = {"capacity": room, "allocatable": room}
    admin.patch("/api/v1/nodes/nowhere/status", {"status": status})


def _documents(name: str) -> list[JSON]:
    return [item for item in yaml.safe_load_all((ROOT / "manifests" / name).read_text()) if item]


def _apply(kubeconfig: Path, objects: list[JSON]) -> bool:
    command = [kind("bin", "kubectl"), "--kubeconfig", str(kubeconfig), "apply", "--server-side", "-f", "-"]
    result = subprocess.run(command, input=yaml.safe_dump_all(objects), capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return True


@pytest.fixture(scope="session")
def operator_kubeconfig(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig of the operator's own service account: the tests run with the rights that the chart gives, and no more."""
    account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/agentsession-operator/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    token = eventually(lambda: api.create(account, request)["status"]["token"], what="a token for the operator")
    config = yaml.safe_load(api.kubeconfig.read_text())
    config["users"] = [{"name": "operator", "user": {"token": token}}]
    for context in config["contexts"]:
        context["context"]["user"] = "operator"
    path = tmp_path_factory.mktemp("operator") / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def operator(operator_kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """A running operator; ended afterwards, and its log shown when the test fails."""
    process = OperatorProcess(operator_kubeconfig, tmp_path / "operator.log")
    process.start()
    yield process
    process.stop()
    print(process.log.read_text()[-20_000:])


@pytest.fixture
def open_namespace(api: Api, request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Makes namespaces of the test's own; the argument tells them apart. Their sessions and pods are gone afterwards, so that
    the next test finds all slots free."""
    name = request.node.name.removeprefix("test_")
    # The hash tells those apart whose names begin alike: a namespace that is being deleted takes nothing new.
    base = "".join(c if c.isalnum() else "-" for c in name.lower())[:38].strip("-")
    base += f"-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    opened: list[str] = []

    def enter(suffix: str) -> str:
        name = f"test-{base}{suffix and f'-{suffix}'}"
        try:
            api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        except Refused as refused:
            assert refused.code == 409
        opened.append(name)
        eventually(lambda: api.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), what="the default service account")
        return name

    yield enter
    for name in opened:
        api.delete(f"{GROUP}/namespaces/{name}/agentsessions")
        api.delete(f"/api/v1/namespaces/{name}")
    eventually(lambda: not [pod for name in opened for pod in _sweep(api, name)], what=f"the end of all pods of {opened}")


def _sweep(api: Api, namespace: str) -> list[JSON]:
    """Remove its pods; those that were there. The operator may be about to create another one; it cannot any more once the
    namespace is being deleted."""
    pods = list(api.get(f"/api/v1/namespaces/{namespace}/pods")["items"])
    for pod in pods:
        path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
        with contextlib.suppress(Refused):  # the operator, if it still runs, releases it too
            as_account(api).patch(path, {"metadata": {"finalizers": None}})
        api.delete(path, grace=0)
    return pods


@pytest.fixture
def namespace(open_namespace: Callable[[str], str]) -> str:
    """A namespace of the test's own."""
    return open_namespace("")


@pytest.fixture
def scene(api: Api, operator: OperatorProcess, namespace: str, open_namespace: Callable[[str], str]) -> Iterator[Scene]:
    """A running operator, and a namespace of the test's own for sessions under its quotas."""
    result = Scene(api, operator, namespace, open_namespace)
    yield result
    result.close()


@pytest.fixture
def quota(api: Api) -> Iterator[Quota]:
    """A quota named default, once it is set; gone afterwards, so that the built-in limits hold."""
    result = Quota(api)
    yield result
    result.remove()
