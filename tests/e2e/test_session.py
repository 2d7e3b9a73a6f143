"""A session on a real cluster: real pods, and a real model."""

from __future__ import annotations

import json

from support.api import condition
from support.installation import Kubectl
from support.quota import Quota
from support.sessions import Sessions
from support.waiting import eventually

NAMESPACE = "e2e"


def test_the_local_model_answers(sessions: Sessions) -> None:
    sessions.apply("capital", prompt="What is the capital of France?")
    done = sessions.wait_for_phase("capital", "Completed", within=90)
    assert "Paris" in done["status"]["lastMessage"]
    assert done["status"]["usage"]["outputTokens"] > 0
    log = sessions.logs("capital")
    assert "What is the capital of France?" in log
    assert "Paris" in log


def test_a_tool_call_runs_in_the_workspace_and_answers_the_model(sessions: Sessions) -> None:
    sessions.apply("tools", model="tool")
    done = sessions.wait_for_phase("tools", "Completed")
    assert done["status"]["lastMessage"] == "The tool has spoken."
    assert done["status"]["usage"]["toolCalls"] == 1
    results = [message for message in sessions.requests("tool")[-1]["messages"] if message["role"] == "tool"]
    assert len(results) == 1
    assert "made-in-workspace" in results[0]["content"]
    assert "65532" in results[0]["content"]


def test_a_prompt_cannot_ask_the_kubelet_for_a_credential(sessions: Sessions, cluster: Kubectl) -> None:
    """The kubelet expands $(NAME) in environment values; the prompt travels in one."""
    secret = "sk-very-secret-9876543210"
    cluster("-n", NAMESPACE, "delete", "secret", "keys", "--ignore-not-found")
    cluster("-n", NAMESPACE, "create", "secret", "generic", "keys", f"--from-literal=OPENAI_API_KEY={secret}")
    prompt = "$(OPENAI_API_KEY) $(AGENTSESSION_CREDENTIAL_OPENAI_API_KEY) $$ $(HOME) \u20ac " + "long " * 13_000
    sessions.apply("dollar", model="quick", prompt=prompt, credentials={"secretName": "keys"})
    sessions.wait_for_phase("dollar", "Completed")
    asked = json.dumps(sessions.requests("quick")[-1], ensure_ascii=False)
    assert secret not in asked
    assert "$(OPENAI_API_KEY) $(AGENTSESSION_CREDENTIAL_OPENAI_API_KEY) $$ $(HOME) \u20ac long long" in asked


def test_a_missing_secret_is_named(sessions: Sessions) -> None:
    sessions.apply("keyless", model="quick", credentials={"secretName": "nowhere"})

    def named() -> bool:
        found = condition(sessions.read("keyless"), "PodReady")
        assert found.get("reason") == "ContainerError", found
        return "nowhere" in found["message"]

    eventually(named, within=30, what="the kubelet's message in the condition")


def test_an_image_that_cannot_be_pulled_is_named(sessions: Sessions, cluster: Kubectl) -> None:
    body = {
        "apiVersion": "agentsession.dev/v1alpha1",
        "kind": "AgentSessionClass",
        "metadata": {"name": "no-image"},
        "spec": {"image": "agentsession/does-not-exist:1", "imagePullPolicy": "Never", "agent": {"model": "openai/quick"}},
    }
    cluster("apply", "-f", "-", text=json.dumps(body))
    sessions.apply("imageless", className="no-image")

    def named() -> bool:
        found = condition(sessions.read("imageless"), "PodReady")
        assert found.get("reason") == "ImageError", found
        return "does-not-exist" in found["message"]

    eventually(named, within=30, what="the kubelet's message in the condition")


def test_a_model_that_refuses_fails_the_session_and_says_so(sessions: Sessions) -> None:
    sessions.apply("unknown", model="no-such-script")
    done = sessions.wait_for_phase("unknown", "Failed")
    message = condition(done, "Finished")["message"]
    assert "no-such-script" in message
    assert condition(done, "Admitted")["reason"] == "Released"


def test_a_quota_of_one(sessions: Sessions, quota: Quota) -> None:
    quota.set(1, 1)
    sessions.apply("one", user="alice", model="slow")
    sessions.wait_for_phase("one", "Running", "Idle")
    sessions.apply("two", user="bob", model="quick")
    waiting = sessions.wait_for_phase("two", "Queued")
    assert condition(waiting, "Admitted")["reason"] == "GlobalLimitReached"
    assert waiting["status"]["queue"]["position"] == 1
    sessions.wait_for_phase("one", "Completed")
    sessions.wait_for_phase("two", "Completed", within=30)


def test_an_interactive_session_is_talked_to(sessions: Sessions) -> None:
    """With the token from the operator."""
    sessions.apply("chat", model="quick", mode="Interactive", prompt="Hello")
    sessions.wait_for_phase("chat", "Idle")
    answer = sessions.ask("chat", "/v1/session")
    assert answer["user"] == "alice"
    assert answer["is_processing"] is False
    assert answer["message_count"] >= 2


def test_the_pods_are_restricted(sessions: Sessions, cluster: Kubectl) -> None:
    """The API server itself says so: a namespace that enforces the restricted profile takes the pod."""
    cluster("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    try:
        sessions.apply("restricted", model="quick")
        sessions.wait_for_phase("restricted", "Completed")
    finally:
        cluster("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce-")
