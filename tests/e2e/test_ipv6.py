"""The main job on a cluster without IPv4: probes, reports, cluster DNS and the model's server all use IPv6."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterator

import pytest

from support.cluster import current_cluster, kind
from support.installation import SYSTEM, Kubectl, build_images, install, load_images
from support.sessions import Sessions

NAMESPACE = "e2e"

CONFIG = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  ipFamily: ipv6
"""

CLUSTER_SECONDS = 600
"""For a machine that has the programs and packages of the other end-to-end tests; a cluster takes 10 s on it."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """An IPv6-only cluster of this module's own, in place of the one that the other tests share."""
    if current_cluster() is not None:
        pytest.skip("this test makes an IPv6-only cluster of its own, and a person's cluster was asked for")
    folder = tmp_path_factory.mktemp("ipv6")
    name = f"ipv6-{uuid.uuid4().hex[:6]}"
    (folder / "kind.yaml").write_text(CONFIG)
    here = ("--name", name, "--kubeconfig", str(folder / "kubeconfig"))
    images = build_images()
    try:
        kind("create", "cluster", *here, "--config", str(folder / "kind.yaml"), timeout=CLUSTER_SECONDS)
        result = Kubectl(folder / "kubeconfig")
        load_images(name, images)
        install(result, images)
        result("create", "namespace", NAMESPACE)
        yield result
    finally:
        kind("delete", "cluster", *here, timeout=CLUSTER_SECONDS)


def addresses(kubectl: Kubectl, namespace: str) -> list[str]:
    """Every address of every pod in a namespace."""
    pods = kubectl.json("-n", namespace, "get", "pods")["items"]
    return [entry["ip"] for pod in pods for entry in pod["status"].get("podIPs", [])]


def test_the_local_model_answers_on_an_ipv6_only_cluster(sessions: Sessions, cluster: Kubectl) -> None:
    sessions.apply("capital", prompt="What is the capital of France?")
    done = sessions.wait_for_phase("capital", "Completed", within=90)
    assert "Paris" in done["status"]["lastMessage"]
    assert done["status"]["usage"]["outputTokens"] > 0
    assert "What is the capital of France?" in sessions.logs("capital")
    found = [*addresses(cluster, SYSTEM), *addresses(cluster, NAMESPACE)]
    assert len(found) >= 3  # the operator, the local model, the session
    assert {ipaddress.ip_address(address).version for address in found} == {6}
