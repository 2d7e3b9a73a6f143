"""The operator dies at bad moments: nothing is lost, nothing is doubled."""

from __future__ import annotations

import json

from support.api import Api, condition, pods_path
from support.installation import SYSTEM, Kubectl
from support.sessions import Sessions
from support.waiting import eventually

NAMESPACE = "e2e"


def kill_operator(cluster: Kubectl) -> None:
    """SIGKILL to the operator's process, from inside its container's own process tree (PID 1 ignores it from inside, so by
    deleting the pod without grace: the kubelet sends SIGKILL)."""
    cluster(
        *("-n", SYSTEM, "delete", "pod", "-l", "app.kubernetes.io/component=operator"),
        *("--grace-period=0", "--force", "--wait=false"),
    )


def operator_ready(cluster: Kubectl) -> bool:
    deployment = cluster.json("-n", SYSTEM, "get", "deployment", "agentsession-operator")
    return bool(deployment.get("status", {}).get("readyReplicas") == 1)


def pods_of(api: Api, body: dict[str, object]) -> list[str]:
    uid = body["metadata"]["uid"]  # type: ignore[index]
    listed = api.get(pods_path(NAMESPACE), labelSelector=f"agentsession.dev/session-uid={uid}")["items"]
    return [pod["metadata"]["name"] for pod in listed]


def test_killed_while_the_namespace_refuses_the_pod(sessions: Sessions, cluster: Kubectl, api: Api) -> None:
    """The operator dies between two tries; the next one admits the session once the namespace lets its pod in."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "stop"}, "spec": {"hard": {"pods": "0"}}}
    cluster("-n", NAMESPACE, "apply", "-f", "-", text=json.dumps(quota))
    eventually(
        lambda: cluster.json("-n", NAMESPACE, "get", "resourcequota", "stop").get("status", {}).get("hard"),
        what="the resource quota to be counted",
    )
    try:
        body = sessions.apply("between", model="quick")
        refused = sessions.wait_for_phase("between", "Queued")
        assert condition(refused, "PodReady")["reason"] == "CreateFailed"
        assert "exceeded quota" in condition(refused, "Ready")["message"]
        kill_operator(cluster)
    finally:
        cluster("-n", NAMESPACE, "delete", "resourcequota", "stop")
    done = sessions.wait_for_phase("between", "Completed", within=90)
    assert done["status"]["lastMessage"] == "Quick as a flash."
    assert len(pods_of(api, body)) == 1
    assert len(sessions.requests("quick")) >= 1


def test_killed_while_a_session_runs(sessions: Sessions, cluster: Kubectl, api: Api) -> None:
    body = sessions.apply("running", model="hang")
    sessions.wait_for_phase("running", "Running")
    before = len(sessions.requests("hang"))
    kill_operator(cluster)
    done = sessions.wait_for_phase("running", "Completed", within=90)
    assert done["status"]["lastMessage"] == "Slept well."
    assert len(pods_of(api, body)) == 1
    assert len(sessions.requests("hang")) <= before + 2, "the turn was not run twice"
    pod = api.get(pods_path(NAMESPACE, done["status"]["podName"]))
    restarts = [container["restartCount"] for container in pod["status"]["containerStatuses"]]
    assert restarts == [0, 0], "the session never noticed"
    eventually(lambda: operator_ready(cluster), within=60, what="the operator to be back")
