"""A session's life, from apply to release, on a real API server."""

from __future__ import annotations

import json

from support.api import JSON, Api, condition, pods_path, session, sessions_path
from support.kubelet import Kubelet
from support.operator_process import OperatorProcess
from support.waiting import eventually, read, wait_for


def final_report(body: JSON, outcome: str = "Completed", **fields: object) -> str:
    uid = body["metadata"]["uid"]
    return json.dumps({"session_uid": uid, "sequence": 9, "activity": "Idle", "outcome": outcome, **fields})


def test_from_apply_to_release(api: Api, operator: OperatorProcess, namespace: str) -> None:
    before = operator.writes()
    body = api.create(sessions_path(namespace), session("hello"))
    kubelet = Kubelet(api, namespace)

    pod = kubelet.pod_of(body)
    admitted = wait_for(api, body, "Admitted", "True", "Admitted")
    assert admitted["status"]["phase"] == "Starting"
    assert admitted["status"]["podName"] == pod["metadata"]["name"]
    assert pod["metadata"]["ownerReferences"][0]["uid"] == body["metadata"]["uid"]

    kubelet.scheduled(pod)
    kubelet.ready(pod)
    ready = wait_for(api, body, "Ready", "True", "PodReady")
    assert ready["status"]["phase"] == "Running"
    assert ready["status"]["observedGeneration"] == ready["metadata"]["generation"]

    after = operator.writes()
    written = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert written.pop(("PATCH", "sessionquotas/status"), 0) <= 1  # not the session's
    assert written == {("PATCH", "agentsessions/status"): 2, ("POST", "pods"): 1}

    report = final_report(body, last_message="Hello!", message_count=2, usage={"input_tokens": 10, "output_tokens": 3})
    kubelet.ended(pod, report=report)
    done = wait_for(api, body, "Finished", "True", "Completed")
    assert done["status"]["phase"] == "Completed"
    assert done["status"]["lastMessage"] == "Hello!"
    assert done["status"]["usage"]["totalTokens"] == 13
    assert condition(done, "Admitted")["reason"] == "Released"
    assert condition(done, "Ready")["status"] == "True"
    assert api.get(pods_path(namespace, pod["metadata"]["name"])), "the pod stays, for its log"


def test_a_failed_session_is_stalled_and_says_why(api: Api, operator: OperatorProcess, namespace: str) -> None:
    body = api.create(sessions_path(namespace), session("fails"))
    kubelet = Kubelet(api, namespace)
    pod = kubelet.pod_of(body)
    kubelet.scheduled(pod)
    kubelet.ended(pod, report=final_report(body, "Failed", outcome_message="the model refused the key"))
    done = wait_for(api, body, "Finished", "True", "Failed")
    assert condition(done, "Finished")["message"] == "the model refused the key"
    assert condition(done, "Stalled")["status"] == "True"

    def warned() -> bool:
        events = api.get(f"/api/v1/namespaces/{namespace}/events")["items"]
        return any(event["reason"] == "Failed" and event["involvedObject"]["name"] == "fails" for event in events)

    eventually(warned, what="a Warning event for kubectl describe")


def test_the_cluster_says_why_a_pod_does_not_start(api: Api, operator: OperatorProcess, namespace: str) -> None:
    body = api.create(sessions_path(namespace), session("slow"))
    kubelet = Kubelet(api, namespace)
    pod = kubelet.pod_of(body)
    kubelet.unschedulable(pod, "0/3 nodes are available: 3 Insufficient memory.")
    # The cluster's own scheduler may say the same in its own words meanwhile.
    found = wait_for(api, body, "PodReady", "False", "Unschedulable")
    assert (
        "nodes are available" in condition(found, "PodReady")["message"]
        or "no nodes" in condition(found, "PodReady")["message"]
    )
    kubelet.scheduled(pod)
    kubelet.waiting(pod, "ImagePullBackOff", 'Back-off pulling image "example/none:1"')
    found = wait_for(api, body, "PodReady", "False", "ImageError")
    assert "example/none:1" in condition(found, "PodReady")["message"]
    assert condition(found, "Ready")["reason"] == "ImageError"
    kubelet.waiting(pod, "CreateContainerConfigError", 'secret "keys" not found')
    found = wait_for(api, body, "PodReady", "False", "ContainerError")
    assert 'secret "keys" not found' in condition(found, "PodReady")["message"]
    kubelet.crashed(pod, 137, "Traceback: out of memory")
    found = wait_for(api, body, "PodReady", "False", "Crashed")
    assert "exit code 137" in condition(found, "PodReady")["message"]
    assert "out of memory" in condition(found, "PodReady")["message"]
    kubelet.ready(pod)
    wait_for(api, body, "PodReady", "True", "PodReady")


def test_a_pod_that_the_api_server_refuses(api: Api, operator: OperatorProcess, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    api.create(path, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    eventually(lambda: api.get(f"{path}/none").get("status", {}).get("hard"), what="the resource quota to be counted")
    body = api.create(sessions_path(namespace), session("refused"))
    found = wait_for(api, body, "PodReady", "False", "CreateFailed")
    assert "exceeded quota" in condition(found, "PodReady")["message"]
    api.delete(f"{path}/none")
    Kubelet(api, namespace).pod_of(body, within=60)


def test_a_deleted_sessions_pod_is_deleted_at_once(api: Api, operator: OperatorProcess, namespace: str) -> None:
    body = api.create(sessions_path(namespace), session("short"))
    kubelet = Kubelet(api, namespace)
    pod = kubelet.pod_of(body)
    kubelet.scheduled(pod)
    kubelet.ready(pod)
    wait_for(api, body, "Ready", "True", "PodReady")
    api.delete(sessions_path(namespace, "short"))

    def deleting() -> bool:
        return "deletionTimestamp" in api.get(pods_path(namespace, pod["metadata"]["name"]))["metadata"]

    eventually(deleting, within=5, what="the pod's deletion")
    kubelet.gone(pod)


def test_a_pod_lost_under_way_fails_its_session(api: Api, operator: OperatorProcess, namespace: str) -> None:
    body = api.create(sessions_path(namespace), session("lost"))
    kubelet = Kubelet(api, namespace)
    pod = kubelet.pod_of(body)
    kubelet.scheduled(pod)
    kubelet.ready(pod)
    wait_for(api, body, "Ready", "True", "PodReady")
    kubelet.gone(pod)
    found = wait_for(api, body, "Finished", "True", "Failed")
    assert condition(found, "PodReady")["reason"] == "PodGone"
    assert condition(found, "Admitted")["reason"] == "Released"


def test_an_unknown_class_waits_for_the_class(api: Api, operator: OperatorProcess, namespace: str) -> None:
    body = api.create(sessions_path(namespace), session("classy", className="later"))
    found = wait_for(api, body, "Admitted", "False", "Misconfigured")
    assert "spec.className" in condition(found, "Admitted")["message"]
    assert "'later'" in condition(found, "Admitted")["message"]
    path = "/apis/agentsession.dev/v1alpha1/agentsessionclasses"
    api.create(
        path,
        {
            "apiVersion": "agentsession.dev/v1alpha1",
            "kind": "AgentSessionClass",
            "metadata": {"name": "later"},
            "spec": {"agent": {"model": "openai/later"}},
        },
    )
    try:
        Kubelet(api, namespace).pod_of(body)
        assert wait_for(api, body, "Admitted", "True", "Admitted")["status"]["model"] == "openai/later"
    finally:
        api.delete(f"{path}/later")


def test_a_model_that_the_class_forbids(api: Api, operator: OperatorProcess, namespace: str) -> None:
    path = "/apis/agentsession.dev/v1alpha1/agentsessionclasses"
    spec = {"models": [{"match": "good/*"}]}
    meta = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "AgentSessionClass", "metadata": {"name": "strict"}}
    api.create(path, {**meta, "spec": spec})
    try:
        body = api.create(sessions_path(namespace), session("other", className="strict", agent={"model": "bad/one"}))

        def told() -> bool:
            """The class may be seen later than the session."""
            message = condition(read(api, body), "Admitted").get("message", "")
            return "spec.agent.model" in message and "good/*" in message

        eventually(told, what="the field and what it may be")
    finally:
        api.delete(f"{path}/strict")
