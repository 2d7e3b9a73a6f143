"""Uninstalling, with Helm and without: no session pod keeps the operator's finalizer, and nothing is wedged.

On a cluster of the tests' own, because they remove what the other tests need. No kubelet runs the uninstaller's pod, so the
test does: with the command, the arguments and the service account that the pod names.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentsession_operator.api.meta import SESSION_FINALIZER
from support.api import JSON, Api, Refused, pods_path
from support.cluster import ROOT, control_plane, current_cluster, kind
from support.operator_account import account_kubeconfig, as_account, marked_pod
from support.operator_process import NAMESPACE
from support.waiting import eventually

CLUSTER = "agentsession-uninstall"
THEIRS = "example.org/theirs"
TEAM = "team"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    if current_cluster() is not None:
        pytest.skip("uninstalling is not tried on a cluster of yours")
    with control_plane(CLUSTER, tmp_path_factory.mktemp("uninstall")) as path:
        yield Api(path)


def environment(api: Api) -> dict[str, str]:
    """For commands as the documentation writes them: kubectl and helm are on the PATH, and KUBECONFIG names the cluster."""
    folders = [str(Path(kind("bin", tool)).parent) for tool in ("kubectl", "helm")]
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")}
    return {**kept, "PATH": path, "KUBECONFIG": str(api.kubeconfig)}


def shell(api: Api, script: str) -> int:
    """Run shell lines; each must succeed. Returns the exit status, which is 0."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=environment(api), capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.returncode


def documented(heading: str) -> str:
    """The commands under a heading of docs/uninstall.md."""
    text = (ROOT / "docs" / "uninstall.md").read_text()
    section = re.split(r"^## ", text.split(f"## {heading}\n", 1)[1], flags=re.MULTILINE)[0]
    return "\n".join(line.strip() for line in section.splitlines() if line.startswith("    "))


def make_session_pods(api: Api) -> None:
    """Session pods in a user's namespace; one is being deleted."""
    try:
        api.create("/api/v1/namespaces", {"metadata": {"name": TEAM}})
    except Refused as refused:
        assert refused.code == 409
    eventually(lambda: api.get(f"/api/v1/namespaces/{TEAM}/serviceaccounts/default"), what="the default service account")
    operator = as_account(api)
    eventually(lambda: operator.create(pods_path(TEAM), marked_pod("plain")), what="the operator's rights")
    operator.create(pods_path(TEAM), marked_pod("shared", THEIRS))
    operator.create(pods_path(TEAM), marked_pod("deleted"))
    api.delete(pods_path(TEAM, "deleted"))


@contextlib.contextmanager
def running(api: Api, script: str) -> Iterator[subprocess.Popen[str]]:
    """The commands, while they run."""
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment(api),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_uninstaller(api: Api, folder: Path, script: str) -> None:
    """Run the documented commands, and meanwhile be the kubelet of the uninstaller's pod."""
    with running(api, script) as commands:
        pod = eventually(lambda: _job_pod(api), within=60, what="the uninstaller's pod")
        (container,) = pod["spec"]["containers"]
        assert container["command"] == ["python3", "-m", "agentsession_operator"]
        account = account_kubeconfig(api, pod["spec"]["serviceAccountName"], folder / "account")
        command = [sys.executable, *container["command"][1:], "--kubeconfig", str(account), *container["args"]]
        done = subprocess.run(
            command, env={**os.environ, "POD_NAMESPACE": NAMESPACE}, capture_output=True, text=True, timeout=150
        )
        assert done.returncode == 0, done.stdout + done.stderr
        _ended(api, pod, "Succeeded")
        output, _ = commands.communicate(timeout=120)
        assert commands.returncode == 0, output


def fail_uninstaller(api: Api, script: str) -> None:
    """Run the documented commands, and let each try of the uninstaller fail."""

    def ended() -> bool:
        if (pod := _job_pod(api)) is not None:
            _ended(api, pod, "Failed")
        return commands.poll() is not None

    with running(api, script) as commands:
        eventually(ended, within=90, what="the end of the commands")
        assert commands.returncode != 0
        output, _ = commands.communicate()
        assert "agentsession-uninstall failed" in output


def _job_pod(api: Api) -> JSON | None:
    """The pod of the Job's present try."""
    selector = "batch.kubernetes.io/job-name=agentsession-uninstall"
    pods = api.get(pods_path(NAMESPACE), labelSelector=selector)["items"]
    pending = [pod for pod in pods if pod["status"]["phase"] == "Pending" and "deletionTimestamp" not in pod["metadata"]]
    return next(iter(pending), None)


def _ended(api: Api, pod: JSON, phase: str) -> None:
    moment = "2026-01-01T00:00:00Z"
    code = 0 if phase == "Succeeded" else 1
    terminated = {"exitCode": code, "reason": "Ended", "startedAt": moment, "finishedAt": moment}
    container = {"name": "release-pods", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    status = {"phase": phase, "containerStatuses": [{**container, "state": {"terminated": terminated}}]}
    api.patch(f"{pods_path(NAMESPACE, pod['metadata']['name'])}/status", {"status": status})


def assert_uninstalled(api: Api) -> None:
    """Nothing of the installation is left but what is meant to stay."""
    leftovers = {
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
        f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    }
    for path in sorted(leftovers):
        names = [item["metadata"]["name"] for item in api.get(path)["items"]]
        assert not [name for name in names if name.startswith("agentsession-")], path


def pods_of_the_team(api: Api) -> dict[str, list[str]]:
    """The session pods that are left, and their finalizers. The one that was being deleted is gone."""
    return {item["metadata"]["name"]: item["metadata"].get("finalizers", []) for item in api.get(pods_path(TEAM))["items"]}


def assert_nothing_is_wedged(api: Api) -> None:
    """Anyone may delete what is left, and the namespace goes."""
    for name in ("plain", "shared"):
        api.delete(pods_path(TEAM, name))
    for item in api.get(pods_path(TEAM))["items"]:
        assert item["metadata"]["finalizers"] == [THEIRS]
        api.patch(pods_path(TEAM, item["metadata"]["name"]), {"metadata": {"finalizers": []}})
    api.delete(f"/api/v1/namespaces/{TEAM}")

    def gone() -> bool:
        return TEAM not in [item["metadata"]["name"] for item in api.get("/api/v1/namespaces")["items"]]

    eventually(gone, within=60, what="the end of the namespace")


def definitions(api: Api) -> list[str]:
    items = api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
    return [item["metadata"]["name"] for item in items if item["spec"]["group"] == "agentsession.dev"]


INSTALL = """
kubectl apply --server-side --force-conflicts -f manifests/install.yaml
kubectl wait --for=condition=Established crd/agentsessionclasses.agentsession.dev
kubectl apply --server-side --force-conflicts -f manifests/defaults.yaml
"""


@pytest.mark.parametrize(("heading", "kept"), [("Without Helm, keeping the sessions", 3), ("Without Helm", 0)])
def test_the_plain_manifests_are_deleted_as_documented(cluster: Api, tmp_path: Path, heading: str, kept: int) -> None:
    shell(cluster, INSTALL)
    make_session_pods(cluster)
    run_uninstaller(cluster, tmp_path, documented(heading))
    assert_uninstalled(cluster)
    assert len(definitions(cluster)) == kept
    assert pods_of_the_team(cluster) == {"plain": [], "shared": [THEIRS]}
    assert_nothing_is_wedged(cluster)


def test_helm_deletes_nothing_before_the_pods_are_released(cluster: Api, tmp_path: Path) -> None:
    shell(cluster, f"helm install agentsession charts/agentsession --namespace {NAMESPACE} --create-namespace")
    make_session_pods(cluster)
    fail_uninstaller(cluster, documented("With Helm"))
    deployment = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/agentsession-operator"
    assert cluster.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")["items"], "it stays for its log"
    cluster.patch(deployment, {"spec": {"replicas": 0}})  # as the uninstaller did
    shell(cluster, documented("If the Job fails"))
    assert cluster.get(deployment)["spec"]["replicas"] == 1
    run_uninstaller(cluster, tmp_path, documented("With Helm"))
    assert_uninstalled(cluster)
    assert len(definitions(cluster)) == 3, "the sessions stay"
    assert pods_of_the_team(cluster) == {"plain": [], "shared": [THEIRS]}
    assert_nothing_is_wedged(cluster)


def test_pods_that_were_not_released_are_freed_afterwards_as_documented(cluster: Api) -> None:
    """The installation was deleted without its uninstaller."""
    shell(cluster, f"helm upgrade --install agentsession charts/agentsession --namespace {NAMESPACE} --create-namespace")
    make_session_pods(cluster)
    shell(cluster, f"helm uninstall agentsession --namespace {NAMESPACE} --no-hooks")
    assert SESSION_FINALIZER in cluster.get(pods_path(TEAM, "plain"))["metadata"]["finalizers"]
    eventually(lambda: not shell(cluster, documented("Afterwards")), within=30, what="the end of the policy")
    assert_nothing_is_wedged(cluster)
