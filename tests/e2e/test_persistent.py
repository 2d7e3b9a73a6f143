"""What outlives a session's pod, on a real cluster with real volumes."""

from __future__ import annotations

import json
from typing import Any

from support.api import condition
from support.installation import Kubectl
from support.sessions import Sessions
from support.waiting import eventually

NAMESPACE = "e2e"
UID = "agentsession.dev/session-uid"


def want(cluster: Kubectl, name: str, *, suspend: bool) -> None:
    """As a person does."""
    patch = json.dumps({"spec": {"suspend": suspend}})
    cluster("-n", NAMESPACE, "patch", "agentsession", name, "--type=merge", "-p", patch)


def begin(sessions: Sessions, name: str) -> dict[str, Any]:
    """A session that has written its diary."""
    sessions.apply(name, className="kept", agent={"model": "openai/diary"}, mode="Interactive", prompt="Write into your diary.")
    return sessions.wait_for_phase(name, "Idle")


def pod_uid(cluster: Kubectl, body: dict[str, Any]) -> str:
    return str(cluster.json("-n", NAMESPACE, "get", "pod", body["status"]["podName"])["metadata"]["uid"])


def went_on(before: dict[str, Any], after: dict[str, Any]) -> None:
    """The conversation and the events begin as they were, and continue without a gap; the diary is there, and the database is
    not to be seen from where the model's commands run."""
    assert after["messages"][: len(before["messages"])] == before["messages"]
    assert after["events"][: len(before["events"])] == before["events"]
    assert [seq for seq, _ in after["events"]] == list(range(1, len(after["events"]) + 1))
    assert after["messages"][-1]["content"] == "It is read."
    seen = after["messages"][-2]["content"]
    assert "dear diary" in seen
    assert "600 private.txt" in seen, "nobody has changed the files' modes"
    assert "LOOKED" in seen
    assert "session.db" not in seen
    assert "lost+found" not in seen


def test_a_lost_pod_takes_neither_the_conversation_nor_the_files(sessions: Sessions, cluster: Kubectl) -> None:
    body = begin(sessions, "lost")
    before, pod = sessions.talk("lost"), pod_uid(cluster, body)
    cluster("-n", NAMESPACE, "delete", "pod", body["status"]["podName"], "--wait=false")

    def back() -> dict[str, Any] | None:
        current = sessions.read("lost")
        return current if condition(current, "Ready")["status"] == "True" and pod_uid(cluster, current) != pod else None

    current = eventually(back, within=60, what="another pod")
    assert current["status"]["lostPods"]["count"] == 1
    assert condition(current, "Admitted") == condition(body, "Admitted"), "the slot was never given up"
    went_on(before, sessions.talk("lost", "What did you write?"))


def test_a_session_that_was_suspended_goes_on_where_it_was(sessions: Sessions, cluster: Kubectl) -> None:
    body = begin(sessions, "rest")
    before = sessions.talk("rest")
    want(cluster, "rest", suspend=True)
    resting = sessions.wait_for_phase("rest", "Suspended")
    assert condition(resting, "Admitted")["reason"] == "Released"
    pods = cluster.json("-n", NAMESPACE, "get", "pods", "-l", f"{UID}={body['metadata']['uid']}")["items"]
    assert all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in pods), (
        "at most one that has ended is on its way out"
    )
    want(cluster, "rest", suspend=False)
    sessions.wait_for_phase("rest", "Idle")
    went_on(before, sessions.talk("rest", "What did you write?"))


def test_suspension_cuts_a_running_command_off_and_reports_it(sessions: Sessions, cluster: Kubectl) -> None:
    """After the suspension the turn continues: the model learns that the command was cut off; the prompt is not repeated."""
    sessions.apply("cut", className="kept", agent={"model": "openai/hang"}, mode="Interactive", prompt="Sleep.")
    sessions.wait_for_phase("cut", "Running")
    eventually(lambda: len(sessions.requests("hang")), what="the command's call")
    want(cluster, "cut", suspend=True)
    sessions.wait_for_phase("cut", "Suspended")
    want(cluster, "cut", suspend=False)
    sessions.wait_for_phase("cut", "Idle")
    messages = sessions.talk("cut")["messages"]
    assert [message["role"] for message in messages].count("user") == 1
    assert [seq for seq, _ in sessions.talk("cut")["events"]] == list(range(1, len(sessions.talk("cut")["events"]) + 1))
    assert messages[-1]["content"] == "Slept well."


def test_a_claim_goes_with_its_session(sessions: Sessions, cluster: Kubectl) -> None:
    body = begin(sessions, "going")
    claim = body["status"]["workspace"]["claimName"]
    cluster("-n", NAMESPACE, "delete", "agentsession", "going")
    cluster("-n", NAMESPACE, "wait", "--for=delete", f"persistentvolumeclaim/{claim}", "--timeout=60s")
