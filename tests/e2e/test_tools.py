"""What a session can call beyond its workspace, and who has to agree, on a real cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.api import condition
from support.cluster import ROOT
from support.installation import Kubectl, serve
from support.sessions import Sessions
from support.waiting import eventually

NAMESPACE = "e2e"
TOKEN = "a-very-secret-token-0123456789"


@pytest.fixture(scope="module")
def notes(cluster: Kubectl) -> dict[str, Any]:
    """A session's words for an MCP server that runs in the cluster, with a header from a Secret."""
    image = cluster("-n", NAMESPACE, "get", "pod", "scripted", "-o", "jsonpath={.spec.containers[0].image}")
    serve(
        cluster,
        NAMESPACE,
        "notes",
        image,
        {"server.py": (ROOT / "tests/support/mcp_server.py").read_text()},
        "/files/server.py",
    )
    cluster("-n", NAMESPACE, "delete", "secret", "notes", "--ignore-not-found")
    cluster("-n", NAMESPACE, "create", "secret", "generic", "notes", f"--from-literal=value=Bearer {TOKEN}")
    header = {"name": "Authorization", "secretKeyRef": {"name": "notes", "key": "value"}}
    return {"name": "notes", "url": f"http://notes.{NAMESPACE}.svc:8080/mcp", "headers": [header]}


def test_a_task_waits_for_consent_to_a_call_of_an_mcp_server(sessions: Sessions, notes: dict[str, Any]) -> None:
    sessions.apply("asks", className="scripted", agent={"model": "openai/notes", "mcpServers": [notes]})
    waiting = sessions.wait_for_phase("asks", "AwaitingApproval")
    assert condition(waiting, "Finished")["status"] == "False"
    (pending,) = waiting["status"]["pendingApprovals"]
    assert pending["tool"] == "notes__authorization"
    assert "does not say that authorization only reads" in pending["reason"]

    decision = {"tool_call_id": pending["toolCallId"], "approved": True}
    sessions.ask("asks", "/v1/submissions", {"type": "approval", "decisions": [decision]})
    done = sessions.wait_for_phase("asks", "Completed")
    assert done["status"]["lastMessage"] == "I have asked."
    assert "pendingApprovals" not in done["status"] or not done["status"]["pendingApprovals"]
    (result,) = [message for message in sessions.requests("notes")[-1]["messages"] if message["role"] == "tool"]
    assert result["content"] == "[REDACTED]", "the server saw the header, and nobody else did"
    assert TOKEN not in json.dumps(done) + sessions.logs("asks")


def test_a_servers_question_is_in_the_status_until_it_is_answered(sessions: Sessions, notes: dict[str, Any]) -> None:
    sessions.script("seats", [{"tools": [{"name": "notes__seat", "arguments": {}}]}, {"content": "It is booked."}])
    agent = {"model": "openai/seats", "mcpServers": [notes]}
    sessions.apply("seated", className="scripted", mode="Interactive", prompt="Book a seat.", agent=agent)
    waiting = sessions.wait_for_phase("seated", "AwaitingApproval")
    (pending,) = waiting["status"]["pendingApprovals"]
    assert (pending["tool"], pending["reason"]) == ("notes__seat", "the MCP server notes asks: Which seat?")

    answer = {"type": "answer", "question_id": pending["questionId"], "action": "accept"}
    assert sessions.ask("seated", "/v1/submissions", answer)["state"] == "done"
    done = sessions.wait_for_phase("seated", "Idle")
    assert done["status"]["lastMessage"] == "It is booked."
    assert not done["status"].get("pendingApprovals")
    (result,) = [message for message in sessions.requests("seats")[-1]["messages"] if message["role"] == "tool"]
    assert result["content"] == "accept {'seat': 'aisle'}"


def test_a_header_without_its_secret_is_named(sessions: Sessions, notes: dict[str, Any]) -> None:
    header = {"name": "Authorization", "secretKeyRef": {"name": "nowhere", "key": "value"}}
    servers = [{**notes, "headers": [header]}]
    sessions.apply("headless", className="scripted", agent={"model": "openai/quick", "mcpServers": servers})

    def named() -> bool:
        found = condition(sessions.read("headless"), "PodReady")
        assert found.get("reason") == "ContainerError", found
        return "nowhere" in found["message"]

    eventually(named, within=30, what="the kubelet's message in the condition")


def test_a_task_without_budget_left_is_over_and_says_so(sessions: Sessions) -> None:
    sessions.apply("poor", model="tool", budget={"tokens": 10})
    done = sessions.wait_for_phase("poor", "Failed")
    found = condition(done, "Finished")
    assert found["reason"] == "BudgetExceeded"
    assert "spec.budget" in found["message"]
    assert condition(done, "Admitted")["reason"] == "Released"
