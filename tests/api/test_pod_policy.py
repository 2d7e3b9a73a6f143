"""Only the operator sets, changes or removes its labels, annotations and finalizer on pods, on every path."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentsession_operator.api.meta import SESSION_FINALIZER, SESSION_NAME_ANNOTATION, SESSION_UID_LABEL, USER_ANNOTATION
from support.api import JSON, Api, Refused, pods_path
from support.cluster import ROOT, kind
from support.operator_account import account_kubeconfig, as_account, marked_pod, plain_spec
from support.operator_process import NAMESPACE
from support.waiting import eventually

THEIRS = "example.org/theirs"
POLICY = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/agentsession-pod"

MARKS: dict[str, JSON] = {
    "labels": {"labels": {SESSION_UID_LABEL: "forged"}},
    "annotations": {"annotations": {USER_ANNOTATION: "forged"}},
    "finalizers": {"finalizers": [SESSION_FINALIZER]},
}
CHANGES: dict[str, tuple[str, JSON]] = {
    "label-changed": ("labels", {"labels": {SESSION_UID_LABEL: "forged"}}),
    "label-removed": ("labels", {"labels": {SESSION_UID_LABEL: None}}),
    "label-added": ("labels", {"labels": {"agentsession.dev/other": "x"}}),
    "annotation-changed": ("annotations", {"annotations": {SESSION_NAME_ANNOTATION: "forged"}}),
    "annotation-removed": ("annotations", {"annotations": {USER_ANNOTATION: None}}),
    "annotation-added": ("annotations", {"annotations": {"agentsession.dev/mac": "00"}}),
    "finalizer-removed": ("finalizers", {"finalizers": [THEIRS]}),
    "finalizer-added": ("finalizers", {"finalizers": [SESSION_FINALIZER, "agentsession.dev/other"]}),
}
ELSEWHERE: dict[str, JSON] = {
    "ephemeralcontainers": {"ephemeralContainers": [{"name": "debugger", "image": "debugger"}]},
    "resize": {"containers": [{"name": "agent", "image": "agent", "resources": {"requests": {"cpu": "20m"}}}]},
}
"""What each of these subresources is for."""


@pytest.fixture(scope="module")
def policy(api: Api) -> None:
    """The policy is in force some seconds after its creation."""
    path = "/api/v1/namespaces/default/pods"
    body = {"metadata": {"name": "probe", "labels": {SESSION_UID_LABEL: "forged"}}, "spec": plain_spec()}

    def refused() -> bool:
        try:
            api.call("POST", path, body, dryRun="All")
        except Refused as answer:
            return "agentsession-pod" in answer.message
        return False

    eventually(refused, within=30, what="the policy in force")


@pytest.fixture
def pod(api: Api, policy: None, namespace: str) -> Any:
    """A session's pod, as the operator makes it; it can go afterwards."""
    operator = as_account(api)
    yield operator.create(pods_path(namespace), marked_pod("marked", THEIRS))
    with contextlib.suppress(Refused):
        operator.patch(pods_path(namespace, "marked"), {"metadata": {"finalizers": []}})


def meta_of(api: Api, namespace: str, name: str) -> tuple[Any, Any, Any]:
    meta = api.get(pods_path(namespace, name))["metadata"]
    return meta["labels"], meta["annotations"], meta["finalizers"]


def test_the_api_server_finds_no_fault_with_the_expressions(api: Api, policy: None) -> None:
    def checked() -> JSON | None:
        status: JSON = api.get(POLICY).get("status", {})
        return status if "typeChecking" in status else None

    assert not eventually(checked, what="the type check")["typeChecking"].get("expressionWarnings")


@pytest.mark.parametrize("field", MARKS)
def test_nobody_else_creates_a_pod_with_our_keys(api: Api, policy: None, namespace: str, field: str) -> None:
    with pytest.raises(Refused) as refused:
        api.create(pods_path(namespace), {"metadata": {"name": "forged", **MARKS[field]}, "spec": plain_spec()})
    assert refused.value.code == 403
    assert f"metadata.{field}: agentsession.dev/" in refused.value.message
    assert "AgentSession operator" in refused.value.message


@pytest.mark.parametrize("subresource", ["", "/status"])
@pytest.mark.parametrize("change", CHANGES)
def test_nobody_else_changes_our_keys(api: Api, pod: JSON, namespace: str, change: str, subresource: str) -> None:
    field, meta = CHANGES[change]
    before = meta_of(api, namespace, "marked")
    with pytest.raises(Refused) as refused:
        api.patch(pods_path(namespace, "marked") + subresource, {"metadata": meta})
    assert refused.value.code == 403
    assert f"metadata.{field}: agentsession.dev/" in refused.value.message
    assert meta_of(api, namespace, "marked") == before


@pytest.mark.parametrize("subresource", ["ephemeralcontainers", "resize"])
def test_no_other_subresource_is_a_way_around(api: Api, pod: JSON, namespace: str, subresource: str) -> None:
    """Today the API server ignores the metadata of these two; a refusal would be as good."""
    before = meta_of(api, namespace, "marked")
    path = pods_path(namespace, "marked") + f"/{subresource}"
    for change, (_, meta) in CHANGES.items():
        with contextlib.suppress(Refused):
            api.patch(path, {"metadata": meta, "spec": ELSEWHERE[subresource]})
        assert meta_of(api, namespace, "marked") == before, change
    api.patch(path, {"spec": ELSEWHERE[subresource]})


@pytest.mark.parametrize("field", ["labels", "annotations"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_binding_brings_none_of_our_keys(api: Api, policy: None, namespace: str, field: str, legacy: bool) -> None:
    api.create(pods_path(namespace), {"metadata": {"name": "bound"}, "spec": plain_spec()})
    path = f"/api/v1/namespaces/{namespace}/bindings" if legacy else pods_path(namespace, "bound") + "/binding"
    target = {"apiVersion": "v1", "kind": "Node", "name": "nowhere"}
    with pytest.raises(Refused) as refused:
        api.create(path, {"metadata": {"name": "bound", **MARKS[field]}, "target": target})
    assert f"metadata.{field}: agentsession.dev/" in refused.value.message
    api.create(path, {"metadata": {"name": "bound", field: {THEIRS: "x"}}, "target": target})
    assert api.get(pods_path(namespace, "bound"))["spec"]["nodeName"] == "nowhere"


def test_the_operator_may_change_its_keys(api: Api, pod: JSON, namespace: str) -> None:
    operator = as_account(api)
    for _, meta in CHANGES.values():
        operator.patch(pods_path(namespace, "marked"), {"metadata": meta})


def test_what_leaves_our_keys_alone_is_not_refused(api: Api, pod: JSON, namespace: str) -> None:
    """Kubelets, schedulers, controllers and people write to session pods too."""
    path = pods_path(namespace, "marked")
    api.patch(path, {"metadata": {"labels": {"team": "a"}, "annotations": {THEIRS: "x"}}})
    api.patch(f"{path}/status", {"status": {"phase": "Running"}})
    api.patch(path, {"metadata": {"finalizers": [SESSION_FINALIZER]}})
    target = {"apiVersion": "v1", "kind": "Node", "name": "nowhere"}
    api.create(f"{path}/binding", {"metadata": {"name": "marked", "annotations": {THEIRS: "y"}}, "target": target})
    api.delete(path)
    assert "deletionTimestamp" in api.get(path)["metadata"], "it waits for the operator, and anyone may delete it"


def test_other_pods_are_not_concerned(api: Api, policy: None, namespace: str) -> None:
    path = pods_path(namespace, "plain")
    meta = {"name": "plain", "labels": {"app": "x", "agentsession.devs/x": "y"}, "finalizers": [THEIRS]}
    api.create(pods_path(namespace), {"metadata": meta, "spec": plain_spec()})
    api.patch(path, {"metadata": {"labels": {"app": "z"}, "annotations": {THEIRS: "x"}, "finalizers": []}})
    api.patch(f"{path}/status", {"metadata": {"labels": {"app": None}}, "status": {"phase": "Running"}})
    api.create(f"{path}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "plain"}})


def test_claims_are_protected_likewise(api: Api, policy: None, namespace: str) -> None:
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "by-hand"}
    with pytest.raises(Refused, match=r"metadata\.labels"):
        api.create(claims, {"metadata": {"name": "forged", **MARKS["labels"]}, "spec": spec})
    as_account(api).create(claims, {"metadata": {"name": "ours", **MARKS["labels"]}, "spec": spec})
    with pytest.raises(Refused, match=r"metadata\.labels"):
        api.patch(f"{claims}/ours", {"metadata": {"labels": {SESSION_UID_LABEL: None}}})
    with pytest.raises(Refused, match=r"metadata\.annotations"):
        api.patch(f"{claims}/ours/status", {"metadata": MARKS["annotations"]})
    api.patch(f"{claims}/ours", {"metadata": {"annotations": {THEIRS: "x"}}})
    api.create(claims, {"metadata": {"name": "plain"}, "spec": spec})


# Before uninstalling.


@pytest.fixture
def uninstaller(api: Api, policy: None, tmp_path: Path) -> Path:
    """A kubeconfig of the service account of manifests/uninstall.yaml, with its rights and no more."""
    documents = [item for item in yaml.safe_load_all((ROOT / "manifests" / "uninstall.yaml").read_text()) if item]
    command = [kind("bin", "kubectl"), "--kubeconfig", str(api.kubeconfig), "apply", "-f", "-"]
    text = yaml.safe_dump_all([item for item in documents if item["kind"] != "Job"])
    subprocess.run(command, input=text, text=True, check=True, capture_output=True, timeout=60)
    return account_kubeconfig(api, "agentsession-uninstall", tmp_path / "uninstall")


def release_pods(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentsession_operator", "--kubeconfig", str(kubeconfig), "--namespace", NAMESPACE]
    return subprocess.run([*command, "release-pods", *arguments], capture_output=True, text=True, timeout=120)


def test_the_uninstaller_may_remove_the_finalizer_and_nothing_else(
    api: Api, uninstaller: Path, pod: JSON, namespace: str
) -> None:
    path, allowed = pods_path(namespace, "marked"), as_account(api, "agentsession-uninstall")
    for change in set(CHANGES) - {"finalizer-removed"}:
        with pytest.raises(Refused, match=r"metadata\."):
            allowed.patch(path, {"metadata": CHANGES[change][1]})
    allowed.patch(path, {"metadata": {"finalizers": [THEIRS]}})
    with pytest.raises(Refused, match="finalizers"):
        allowed.patch(path, {"metadata": {"finalizers": [THEIRS, SESSION_FINALIZER]}})


def test_release_pods_stops_the_operator_and_strips_our_finalizer_alone(api: Api, uninstaller: Path, namespace: str) -> None:
    deployments = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
    labels = {"app.kubernetes.io/component": "operator-under-test"}
    template = {"metadata": {"labels": labels}, "spec": plain_spec()}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    api.delete(f"{deployments}/agentsession-operator")
    api.create(deployments, {"metadata": {"name": "agentsession-operator"}, "spec": spec})

    def operators() -> list[Any]:
        found = api.get(pods_path(NAMESPACE), labelSelector="app.kubernetes.io/component=operator-under-test")["items"]
        assert isinstance(found, list)
        return found

    operator = as_account(api)
    try:
        eventually(operators, what="the operator's pod")
        for number in range(30):
            operator.create(pods_path(namespace), marked_pod(f"pod-{number}", *([THEIRS] if number % 3 == 0 else [])))
        api.create(pods_path(namespace), {"metadata": {"name": "plain", "finalizers": [THEIRS]}, "spec": plain_spec()})
        api.delete(pods_path(namespace, "pod-1"))
        assert api.get(pods_path(namespace, "pod-1")), "the finalizer keeps it"

        done = release_pods(uninstaller)

        assert done.returncode == 0, done.stdout + done.stderr
        assert "30 released" in done.stdout
        assert not operators()
        assert api.get(f"{deployments}/agentsession-operator")["spec"]["replicas"] == 0
        pods = {item["metadata"]["name"]: item["metadata"] for item in api.get(pods_path(namespace))["items"]}
        assert "pod-1" not in pods, "it was being deleted, and waited for us alone"
        assert len(pods) == 30
        for name, meta in pods.items():
            theirs = name == "plain" or int(name.removeprefix("pod-")) % 3 == 0
            assert meta.get("finalizers", []) == ([THEIRS] if theirs else []), name
            assert name == "plain" or SESSION_UID_LABEL in meta["labels"], "its session still finds it"
    finally:
        api.delete(f"{deployments}/agentsession-operator")
        for item in api.get(pods_path(namespace))["items"]:
            operator.patch(pods_path(namespace, item["metadata"]["name"]), {"metadata": {"finalizers": []}})


def test_release_pods_without_its_rights_names_what_is_left(
    api: Api, uninstaller: Path, pod: JSON, namespace: str, tmp_path: Path
) -> None:
    """With the operator's own account it cannot stop the operator, and then it touches no pod."""
    done = release_pods(account_kubeconfig(api, "agentsession-operator", tmp_path / "operator"), "--timeout", "3")
    assert done.returncode == 1
    assert "deployments.apps" in done.stderr
    assert "Run this again" in done.stderr
    assert SESSION_FINALIZER in api.get(pods_path(namespace, "marked"))["metadata"]["finalizers"]
