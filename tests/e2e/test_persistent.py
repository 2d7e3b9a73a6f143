"""What outlives a session's pod, on a real cluster with real volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.api import condition
from support.installation import Kubectl
from support.waiting import eventually

if TYPE_CHECKING:
    from conftest import Sessions

NAMESPACE = "e2e"


def begin(sessions: Sessions, name: str) -> dict[str, Any]:
    """A session that has written its diary."""
    sessions.apply(name, className="kept", agent={"model": "openai/diary"}, mode="Interactive", prompt="Write into your diary.")
    return sessions.wait_for_phase(name, "Idle")


def pod_uid(cluster: Kubectl, body: dict[str, Any]) -> str:
    return str(cluster.json("-n", NAMESPACE, "get", "pod", body["status"]["podName"])["metadata"]["uid"])


def went_on(before: dict[str, Any], after: dict[str, Any]) -> None:
    """The conversation and the events begin as they were, and go on without a gap; the diary is there, and the database is
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
