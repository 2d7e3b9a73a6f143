"""Sessions whose conversation and files outlive their pods, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.api import GROUP, JSON, Api, condition, pods_path, session, sessions_path
from support.kubelet import Kubelet
from support.operator_process import OperatorProcess
from support.waiting import eventually, wait_for

STORAGE = {"type": "Persistent", "size": "1Gi", "storageClassName": "by-hand"}


def claims_path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/persistentvolumeclaims" + (f"/{name}" if name else "")


@pytest.fixture
def persistent(api: Api, namespace: str) -> Iterator[str]:
    """A class with a persistent workspace, and volumes for it: nobody provisions any here."""
    meta = {"name": f"kept-{namespace}"[:63].rstrip("-")}
    body = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "AgentSessionClass", "metadata": meta}
    spec = {"agent": {"model": "openai/none"}, "tolerations": [{"operator": "Exists"}], "workspace": STORAGE}
    api.create(f"{GROUP}/agentsessionclasses", {**body, "spec": spec})
    volumes = [f"{meta['name']}-{number}" for number in range(3)]
    for name in volumes:
        api.create(
            "/api/v1/persistentvolumes",
            {
                "metadata": {"name": name},
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "by-hand",
                    "hostPath": {"path": f"/nowhere/{name}"},
                },
            },
        )
    yield meta["name"]
    api.delete(f"{GROUP}/agentsessionclasses/{meta['name']}")
    for name in volumes:
        api.delete(f"/api/v1/persistentvolumes/{name}")


def started(api: Api, namespace: str, class_name: str, name: str = "kept", **spec: object) -> tuple[JSON, JSON]:
    """A session that is ready, and its pod."""
    body = api.create(sessions_path(namespace), session(name, className=class_name, mode="Interactive", **spec))
    kubelet = Kubelet(api, namespace)
    pod = kubelet.pod_of(body)
    kubelet.scheduled(pod)
    kubelet.ready(pod)
    return wait_for(api, body, "Ready", "True", "PodReady"), pod


def test_from_apply_to_ready_with_a_volume(api: Api, operator: OperatorProcess, namespace: str, persistent: str) -> None:
    before = operator.writes()
    body, pod = started(api, namespace, persistent)
    after = operator.writes()
    written = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    written.pop(("PATCH", "sessionquotas/status"), 0)
    assert written == {
        ("PATCH", "agentsessions/status"): 2,
        ("POST", "persistentvolumeclaims"): 1,
        ("POST", "pods"): 1,
    }
    claim = api.get(claims_path(namespace, body["status"]["workspace"]["claimName"]))
    assert claim["metadata"]["ownerReferences"][0]["uid"] == body["metadata"]["uid"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    mounted = [volume for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume]
    assert [volume["persistentVolumeClaim"]["claimName"] for volume in mounted] == [claim["metadata"]["name"]]


def test_a_claim_goes_with_its_session(api: Api, operator: OperatorProcess, namespace: str, persistent: str) -> None:
    body, pod = started(api, namespace, persistent)
    api.delete(sessions_path(namespace, "kept"))
    Kubelet(api, namespace).gone(pod)
    path = claims_path(namespace, body["status"]["workspace"]["claimName"])

    def going() -> bool:
        items = api.get(claims_path(namespace))["items"]
        return not items or "deletionTimestamp" in items[0]["metadata"]

    eventually(going, within=60, what=f"the deletion of {path}")


def test_a_claim_that_the_api_server_refuses(api: Api, operator: OperatorProcess, namespace: str, persistent: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    api.create(path, {"metadata": {"name": "none"}, "spec": {"hard": {"persistentvolumeclaims": "0"}}})
    eventually(lambda: api.get(f"{path}/none").get("status", {}).get("hard"), what="the resource quota to be counted")
    body = api.create(sessions_path(namespace), session("kept", className=persistent))
    found = wait_for(api, body, "PodReady", "False", "CreateFailed")
    message = condition(found, "PodReady")["message"]
    assert "PersistentVolumeClaim" in message
    assert "exceeded quota" in message
    assert not api.get(pods_path(namespace))["items"], "no pod without its claim"
    api.delete(f"{path}/none")
    Kubelet(api, namespace).pod_of(body, within=60)
