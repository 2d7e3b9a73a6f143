"""Sessions whose conversation and files outlive their pods, on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from support.api import GROUP, JSON, Api, condition, pods_path, session, sessions_path
from support.kubelet import Kubelet
from support.operator_process import OperatorProcess
from support.quota import Quota, watching
from support.waiting import eventually, read, wait_for

DONE = {"sequence": 9, "activity": "Idle", "outcome": "Completed"}
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


def started(api: Api, namespace: str, class_name: str, name: str = "kept", **spec: Any) -> tuple[JSON, JSON]:
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
    # One status; one more where Ready takes longer than a second.
    assert written.pop(("PATCH", "agentsessions/status")) in (1, 2)
    assert written == {("POST", "persistentvolumeclaims"): 1, ("POST", "pods"): 1}
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


def test_a_lost_pod_is_replaced_and_nobody_else_gets_its_slot_meanwhile(
    api: Api, operator: OperatorProcess, namespace: str, persistent: str, quota: Quota
) -> None:
    quota.set(1, 1)
    body, pod = started(api, namespace, persistent)
    other = api.create(sessions_path(namespace), session("other", user="bob"))
    wait_for(api, other, "Admitted", "False", "GlobalLimitReached")
    kubelet = Kubelet(api, namespace)
    with watching(api, namespace, 1, 1) as broken:
        api.delete(pods_path(namespace, pod["metadata"]["name"]))
        going = wait_for(api, body, "PodReady", "False", "PodGone")
        assert condition(going, "Admitted")["status"] == "True"
        assert "lostPods" not in going["status"], "it counts when it has ended"
        kubelet.gone(pod)
        second = kubelet.pod_of(body, after=pod)
        assert second["metadata"]["name"] == pod["metadata"]["name"]
        kubelet.scheduled(second)
        kubelet.ready(second)
        again = wait_for(api, body, "Ready", "True", "PodReady")
        assert again["status"]["lostPods"]["count"] == 1
    assert not broken, broken[:5]
    before, after = condition(body, "Admitted"), condition(again, "Admitted")
    assert after["lastTransitionTime"] == before["lastTransitionTime"], "the slot was never given up"
    assert again["status"]["startTime"] == body["status"]["startTime"]
    assert condition(wait_for(api, other, "Admitted", "False", "GlobalLimitReached"), "Admitted")
    assert len(api.get(claims_path(namespace))["items"]) == 1
    warned = [event for event in api.get(f"/api/v1/namespaces/{namespace}/events")["items"] if event["reason"] == "PodGone"]
    assert warned, "kubectl describe tells it"


def test_an_evicted_pod_is_replaced_by_an_operator_that_was_away(
    api: Api, operator: OperatorProcess, namespace: str, persistent: str
) -> None:
    body, pod = started(api, namespace, persistent)
    kubelet = Kubelet(api, namespace)
    operator.kill()
    kubelet.evicted(pod, "The node was low on resource: memory.")
    operator.start(ready=False)
    second = kubelet.pod_of(body, after=pod)
    # Killed right after the pod was created: the loss was counted before.
    operator.kill()
    assert read(api, body)["status"]["lostPods"]["count"] == 1
    kubelet.scheduled(second)
    kubelet.ready(second)
    operator.start(ready=False)
    again = wait_for(api, body, "Ready", "True", "PodReady", within=30)
    assert again["status"]["lostPods"]["count"] == 1
    assert kubelet.pod_of(body)["metadata"]["uid"] == second["metadata"]["uid"]


def test_a_pod_that_is_evicted_again_is_not_replaced_at_once(
    api: Api, operator: OperatorProcess, namespace: str, persistent: str
) -> None:
    body, pod = started(api, namespace, persistent)
    kubelet = Kubelet(api, namespace)
    kubelet.evicted(pod, "The node was low on resource: memory.")
    second = kubelet.pod_of(body, after=pod)
    wait_for(api, body, "PodReady", "False", "Creating")
    kubelet.evicted(second, "The node was low on resource: memory.")

    def lost_twice() -> JSON | None:
        current = read(api, body)
        return current if current["status"]["lostPods"]["count"] == 2 else None

    found = eventually(lost_twice, what="the second loss")
    assert condition(found, "PodReady")["reason"] == "Evicted"
    assert "low on resource" in condition(found, "PodReady")["message"]
    third = kubelet.pod_of(body, after=second)
    lost = datetime.fromisoformat(found["status"]["lostPods"]["lastTime"])
    assert datetime.fromisoformat(third["metadata"]["creationTimestamp"]) - lost >= timedelta(seconds=4)


def want(api: Api, namespace: str, name: str, *, suspend: bool) -> None:
    api.patch(sessions_path(namespace, name), {"spec": {"suspend": suspend}})


def test_a_suspended_session_gives_its_slot_away_and_queues_again(
    api: Api, operator: OperatorProcess, namespace: str, persistent: str, quota: Quota
) -> None:
    quota.set(1, 1)
    body, pod = started(api, namespace, persistent)
    other = api.create(sessions_path(namespace), session("other", user="bob"))
    wait_for(api, other, "Admitted", "False", "GlobalLimitReached")
    kubelet = Kubelet(api, namespace)
    with watching(api, namespace, 1, 1) as broken:
        want(api, namespace, "kept", suspend=True)
        stopping = wait_for(api, body, "Suspended", "False", "Suspending")
        assert stopping["status"]["phase"] == "Suspending"
        assert condition(stopping, "Admitted")["status"] == "True", "its pod has not ended yet"
        assert condition(read(api, other), "Admitted")["reason"] == "GlobalLimitReached"
        kubelet.gone(pod)
        resting = wait_for(api, body, "Suspended", "True", "UserRequested")
        assert resting["status"]["phase"] == "Suspended"
        assert condition(resting, "Admitted")["reason"] == "Released"
        wait_for(api, other, "Admitted", "True", "Admitted")

        want(api, namespace, "kept", suspend=False)
        waiting = wait_for(api, body, "Admitted", "False", "GlobalLimitReached")
        assert waiting["status"]["phase"] == "Queued"
        assert condition(waiting, "Suspended")["reason"] == "Resuming"
        kubelet.ended(kubelet.pod_of(other), report=json.dumps(DONE | {"session_uid": other["metadata"]["uid"]}))
        second = kubelet.pod_of(body)
        kubelet.scheduled(second)
        kubelet.ready(second)
        back = wait_for(api, body, "Ready", "True", "PodReady")
    assert not broken, broken[:5]
    assert condition(back, "Suspended")["reason"] == "NotSuspended"
    assert back["status"]["workspace"] == body["status"]["workspace"]
    assert "lostPods" not in back["status"]
    assert len(api.get(claims_path(namespace))["items"]) == 1


def test_an_operator_that_dies_midway_suspends_and_resumes(
    api: Api, operator: OperatorProcess, namespace: str, persistent: str
) -> None:
    body, pod = started(api, namespace, persistent)
    kubelet = Kubelet(api, namespace)
    want(api, namespace, "kept", suspend=True)
    wait_for(api, body, "Suspended", "False", "Suspending")
    operator.kill()
    kubelet.gone(pod)
    operator.start(ready=False)
    wait_for(api, body, "Suspended", "True", "UserRequested", within=30)
    operator.kill()
    want(api, namespace, "kept", suspend=False)
    operator.start(ready=False)
    second = kubelet.pod_of(body, within=30, after=pod)
    operator.kill()
    kubelet.scheduled(second)
    kubelet.ready(second)
    operator.start(ready=False)
    back = wait_for(api, body, "Suspended", "False", "NotSuspended", within=30)
    assert condition(back, "Ready")["status"] == "True"
    assert kubelet.pod_of(body)["metadata"]["uid"] == second["metadata"]["uid"]


def test_a_session_that_is_created_suspended_waits_for_nothing(
    api: Api, operator: OperatorProcess, namespace: str, persistent: str
) -> None:
    body = api.create(sessions_path(namespace), session("kept", className=persistent, suspend=True))
    resting = wait_for(api, body, "Suspended", "True", "UserRequested")
    assert resting["status"]["phase"] == "Suspended"
    assert "queue" not in resting["status"]
    want(api, namespace, "kept", suspend=False)
    Kubelet(api, namespace).pod_of(body)


def test_a_session_whose_work_would_be_lost_is_not_suspended(api: Api, operator: OperatorProcess, namespace: str) -> None:
    body = api.create(sessions_path(namespace), session("fleeting", mode="Interactive"))
    kubelet = Kubelet(api, namespace)
    pod = kubelet.pod_of(body)
    kubelet.scheduled(pod)
    kubelet.ready(pod)
    wait_for(api, body, "Ready", "True", "PodReady")
    want(api, namespace, "fleeting", suspend=True)
    refused = wait_for(api, body, "Suspended", "False", "NotPersistent")
    assert condition(refused, "Ready")["status"] == "True"
    assert "deletionTimestamp" not in kubelet.pod_of(body)["metadata"]
    assert refused["status"]["observedGeneration"] == refused["metadata"]["generation"]
