"""What the API server refuses, and that its message names the field. A bad object never reaches the operator."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentsession_operator.api.size import MAX_CHARACTERS
from support.api import GROUP, Api, Refused, condition, session, sessions_path
from support.operator_process import OperatorProcess
from support.waiting import eventually

SECRET = {"secretKeyRef": {"name": "keys", "key": "docs"}}
CLIENT = {"issuer": "https://login.example", "clientID": {"value": "me"}, "clientSecret": SECRET}


def with_oauth(**fields: Any) -> dict[str, Any]:
    """A session whose MCP server has this OAuth client; a field that is None is left out."""
    client = {name: value for name, value in {**CLIENT, **fields}.items() if value is not None}
    return {"agent": {"mcpServers": [{"name": "docs", "url": "https://d", "oauth": client}]}}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"user": None}, "spec.user"),
        ({"user": ""}, "spec.user"),
        ({"user": 7}, "spec.user"),
        ({"mode": "Batch"}, "spec.mode"),
        ({"mode": "Task", "prompt": None}, "spec.prompt"),
        ({"prompt": "x" * 65_537}, "spec.prompt"),
        ({"agent": "gpt"}, "spec.agent"),
        ({"agent": {"model": ""}}, "spec.agent.model"),
        ({"agent": {"maxIterations": 0}}, "spec.agent.maxIterations"),
        ({"agent": {"tools": {"allow": "bash"}}}, "spec.agent.tools.allow"),
        ({"agent": {"tools": {"allow": ["bash, read"]}}}, "spec.agent.tools.allow[0]"),
        ({"credentials": {}}, "spec.credentials.secretName"),
        ({"agent": {"mcpServers": [{"name": "docs"}]}}, "spec.agent.mcpServers[0].url"),
        ({"agent": {"mcpServers": [{"name": "Docs", "url": "https://d"}]}}, "spec.agent.mcpServers[0].name"),
        ({"agent": {"mcpServers": [{"name": "docs", "url": "docs.example"}]}}, "spec.agent.mcpServers[0].url"),
        ({"agent": {"mcpServers": [{"name": "docs", "url": "https://me:secret@d/mcp"}]}}, "spec.agent.mcpServers[0].url"),
        ({"agent": {"mcpServers": [{"name": "docs", "url": "https://d"}] * 2}}, "spec.agent.mcpServers[1]"),
        (
            {"agent": {"mcpServers": [{"name": "docs", "url": "https://d", "headers": [{"name": "X", "value": "y"}]}]}},
            "spec.agent.mcpServers[0].headers[0].secretKeyRef",
        ),
        (with_oauth(issuer=None), "spec.agent.mcpServers[0].oauth.issuer"),
        (with_oauth(issuer="login.example"), "spec.agent.mcpServers[0].oauth.issuer"),
        (with_oauth(clientID=None), "spec.agent.mcpServers[0].oauth.clientID"),
        (with_oauth(clientID={}), "spec.agent.mcpServers[0].oauth.clientID"),
        (with_oauth(clientID={"value": "me", **SECRET}), "spec.agent.mcpServers[0].oauth.clientID"),
        (with_oauth(clientSecret=None), "spec.agent.mcpServers[0].oauth"),
        (with_oauth(privateKey=SECRET), "spec.agent.mcpServers[0].oauth"),
        (with_oauth(clientSecret={"value": "s3cret"}), "spec.agent.mcpServers[0].oauth.clientSecret.secretKeyRef"),
        (with_oauth(scopes=["read write"]), "spec.agent.mcpServers[0].oauth.scopes[0]"),
        (
            {
                "agent": {
                    "mcpServers": [
                        {"name": "docs", "url": "https://d", "oauth": CLIENT, "headers": [{"name": "authorization", **SECRET}]}
                    ]
                }
            },
            "spec.agent.mcpServers[0]",
        ),
        ({"agent": {"approvalPolicy": [{"tool": "bash", "action": "Maybe"}]}}, "spec.agent.approvalPolicy[0].action"),
        ({"agent": {"approvalPolicy": [{"tool": "", "action": "Ask"}]}}, "spec.agent.approvalPolicy[0].tool"),
        ({"agent": {"approvalPolicy": [{"tool": ["bash"], "action": "Ask"}]}}, "spec.agent.approvalPolicy[0].tool"),
        (
            {"agent": {"approvalPolicy": [{"tool": "bash", "action": "Ask", "arguments": {"command": 7}}]}},
            "spec.agent.approvalPolicy[0].arguments.command",
        ),
        ({"agent": {"autoApproveCostUSD": "-1"}}, "spec.agent.autoApproveCostUSD"),
        ({"agent": {"reasoningEffort": "hard"}}, "spec.agent.reasoningEffort"),
        ({"budget": {"tokens": "many"}}, "spec.budget.tokens"),
        ({"budget": {"tokens": 0}}, "spec.budget.tokens"),
        ({"budget": {"costUSD": 2.5}}, "spec.budget.costUSD"),
        ({"budget": {"costUSD": "2 dollars"}}, "spec.budget.costUSD"),
    ],
)
def test_a_bad_session_is_refused_by_field(api: Api, namespace: str, spec: dict[str, Any], field: str) -> None:
    body = session("bad", **spec)
    body["spec"] = {key: value for key, value in body["spec"].items() if value is not None}
    with pytest.raises(Refused) as refused:
        api.create(sessions_path(namespace), body)
    assert refused.value.code == 422
    assert field in refused.value.message


@pytest.mark.parametrize(
    "client", [CLIENT, {**CLIENT, "clientID": SECRET}, {"issuer": "http://a/b", "clientID": SECRET, "privateKey": SECRET}]
)
def test_an_oauth_client_is_accepted(api: Api, namespace: str, client: dict[str, Any]) -> None:
    headers = [{"name": "X-Team", **SECRET}]
    server = {
        "name": "docs",
        "url": "https://d",
        "oauth": {**client, "scopes": ["read", "api://x/.default"]},
        "headers": headers,
    }
    stored = api.create(sessions_path(namespace), session("good", agent={"mcpServers": [server]}))
    assert stored["spec"]["agent"]["mcpServers"] == [server]


def test_the_texts_of_a_session_have_a_bound_together(api: Api, namespace: str) -> None:
    """Every text alone is within its bound. In the server's JSON each of these characters takes six bytes."""
    rest = MAX_CHARACTERS - 60_000 - len("alice")
    body = session("long", prompt="<" * 60_000, agent={"instructions": "<" * rest})
    stored = api.create(sessions_path(namespace), body)
    assert len(json.dumps(stored["spec"])) > MAX_CHARACTERS
    api.patch(f"{sessions_path(namespace, 'long')}/status", {"status": {"phase": "Queued"}})
    body = session("longer", prompt="<" * 60_000, agent={"instructions": "<" * (rest + 1)})
    with pytest.raises(Refused) as refused:
        api.create(sessions_path(namespace), body)
    assert "spec: Invalid value" in refused.value.message
    assert "must be shorter: all its texts together have at most 78,000 characters" in refused.value.message


def test_a_name_that_is_no_label_is_refused(api: Api, namespace: str) -> None:
    """`kubectl logs -l agentsession.dev/session=NAME` could not find its pod."""
    api.create(sessions_path(namespace), session("n" * 63))
    with pytest.raises(Refused) as refused:
        api.create(sessions_path(namespace), session("n" * 64))
    assert refused.value.code == 422
    assert "metadata.name must be at most 63 characters" in refused.value.message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user": "mallory"}, "spec.user"),
        ({"prompt": "Something else."}, "spec.prompt"),
        ({"mode": "Interactive"}, "spec.mode"),
        ({"className": "other"}, "spec.className"),
        ({"agent": {"model": "openai/other"}}, "spec.agent"),
        ({"agent": {"approvalPolicy": [{"tool": "*", "action": "Allow"}]}}, "spec.agent"),
        ({"credentials": {"secretName": "other"}}, "spec.credentials"),
        ({"budget": {"tokens": 1_000_000}}, "spec.budget"),
    ],
)
def test_what_was_asked_for_cannot_be_changed(api: Api, namespace: str, change: dict[str, Any], field: str) -> None:
    api.create(sessions_path(namespace), session("fixed"))
    with pytest.raises(Refused) as refused:
        api.patch(sessions_path(namespace, "fixed"), {"spec": change})
    assert field in refused.value.message
    assert "immutable" in refused.value.message


def test_an_unknown_field_is_named_when_the_client_asks_for_strictness(api: Api, namespace: str) -> None:
    """kubectl does."""
    with pytest.raises(Refused) as refused:
        api.call("POST", sessions_path(namespace), session("typo", promt="Hello"), fieldValidation="Strict")
    assert 'unknown field "spec.promt"' in refused.value.message


@pytest.mark.parametrize("spec", [{"maxSessions": -1}, {"maxSessionsPerUser": "many"}])
def test_a_bad_quota_is_refused(api: Api, spec: dict[str, Any]) -> None:
    body = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "SessionQuota", "metadata": {"name": "bad"}, "spec": spec}
    with pytest.raises(Refused) as refused:
        api.create(f"{GROUP}/sessionquotas", body)
    assert f"spec.{next(iter(spec))}" in refused.value.message


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"archive": {"huggingFaceRepository": "no-owner"}}, "spec.archive.huggingFaceRepository"),
        ({"webFetch": {"allowedNetworks": ["intranet"]}}, "spec.webFetch.allowedNetworks[0]"),
        ({"webFetch": {"allowedNetworks": ["10.0.0.1/8"]}}, "spec.webFetch.allowedNetworks[0]"),
        ({"allowMCPServers": "yes"}, "spec.allowMCPServers"),
        ({"budget": {"costUSD": "-1"}}, "spec.budget.costUSD"),
        ({"agent": {"mcpServers": [{"name": "docs", "url": "https://d"}] * 2}}, "spec.agent.mcpServers[1]"),
        ({"workspace": {"type": "Persistent"}}, "spec.workspace.size"),
        ({"workspace": {"type": "Persistent", "size": "much"}}, "spec.workspace.size"),
        ({"workspace": {"type": "Persistent", "size": "0"}}, "spec.workspace.size"),
        ({"workspace": {"size": "5Gi"}}, "spec.workspace.size"),
        ({"workspace": {"storageClassName": "fast"}}, "spec.workspace.storageClassName"),
        ({"workspace": {"type": "Lasting"}}, "spec.workspace.type"),
    ],
)
def test_a_bad_class_is_refused_by_field(api: Api, spec: dict[str, Any], field: str) -> None:
    body = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "AgentSessionClass", "metadata": {"name": "bad"}, "spec": spec}
    with pytest.raises(Refused) as refused:
        api.create(f"{GROUP}/agentsessionclasses", body)
    assert refused.value.code == 422
    assert field in refused.value.message


def test_a_class_that_does_not_allow_mcp_servers_makes_their_session_misconfigured(
    api: Api, operator: OperatorProcess, namespace: str
) -> None:
    servers = [{"name": "docs", "url": "https://docs.example/mcp"}]
    api.create(sessions_path(namespace), session("own-servers", agent={"mcpServers": servers}))

    def refused() -> bool:
        found = condition(api.get(sessions_path(namespace, "own-servers")), "Admitted")
        assert (found.get("status"), found.get("reason")) == ("False", "Misconfigured"), found
        return "spec.agent.mcpServers" in found["message"] and "allowMCPServers" in found["message"]

    eventually(refused, what="the refusal")


def test_a_session_in_somebody_elses_name_needs_the_verb_impersonate(api: Api, namespace: str) -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agentsession-user"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}],
    }
    api.create(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings", binding)
    alice = api.impersonating("alice")

    def refused() -> bool:
        """The policy is in force some seconds after its creation, and so are the rights."""
        try:
            alice.call("POST", sessions_path(namespace), session("theirs", user="bob"), dryRun="All")
        except Refused as answer:
            assert "spec.user" in answer.message, answer.message
            assert "impersonate" in answer.message
            return True
        raise AssertionError("a session in bob's name was accepted from alice")

    eventually(refused, within=15, what="the refusal")
    assert alice.create(sessions_path(namespace), session("mine", user="alice"))
    assert api.create(sessions_path(namespace), session("for-bob", user="bob")), "who may impersonate, may"
