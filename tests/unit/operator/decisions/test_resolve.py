"""What a session gets, of what it asks for and what its class allows."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tools.selection import ToolSelection as Selection
from agentsession_operator.api.objects import SessionClass, choose_class
from agentsession_operator.decisions.resolve import Misconfigured, Resolved, resolve
from session_runtime.wire import (
    AgentSettings,
    ApprovalRule,
    Budget,
    McpHeader,
    McpOAuth,
    McpServerSettings,
    ModelRetries,
    ToolSelection,
)
from support.control_plane.builders import classes, session, session_class

TOOLS = ("bash", "read", "write", "edit", "web_fetch", "hub__search")


def outcome(*of_classes: SessionClass, **spec: Any) -> Resolved | Misconfigured:
    return resolve(session(**spec).spec, classes(*of_classes))


def agent(*of_classes: SessionClass, **spec: Any) -> AgentSettings:
    found = outcome(*of_classes, **spec)
    assert isinstance(found, Resolved)
    return found.agent


def complaint(*of_classes: SessionClass, **spec: Any) -> str:
    found = outcome(*of_classes, **spec)
    assert isinstance(found, Misconfigured)
    return found.message


# The class.


def test_a_session_without_a_class_gets_the_default_one() -> None:
    assert (
        agent(session_class("a", default=False, agent={"model": "x/a"}), session_class("b", agent={"model": "x/b"})).model
        == "x/b"
    )


def test_of_several_defaults_the_newest_counts_as_with_storage_classes() -> None:
    old = session_class("a", created="2026-01-01T00:00:00Z", agent={"model": "x/old"})
    new = session_class("b", created="2026-02-01T00:00:00Z", agent={"model": "x/new"})
    assert agent(new, old).model == agent(old, new).model == "x/new"


def test_of_defaults_of_one_second_always_the_same_counts() -> None:
    first, second = session_class("a"), session_class("b")
    assert choose_class(classes(first, second), None) == choose_class(classes(second, first), None)


def test_a_named_class_counts_though_it_is_not_the_default() -> None:
    assert agent(session_class("a", default=False, agent={"model": "x/a"}), session_class("b"), className="a").model == "x/a"


def test_only_the_annotation_true_makes_a_default() -> None:
    assert not session_class(default=False).is_default
    assert session_class().is_default


def test_without_a_default_class_the_message_names_field_classes_and_remedy() -> None:
    message = complaint(session_class("b", default=False), session_class("a", default=False))
    assert message.startswith("spec.className is unset")
    assert "(there are: a, b)" in message
    assert "agentsession.dev/is-default-class=true" in message


def test_a_class_that_is_not_there_is_named_beside_those_that_are() -> None:
    message = complaint(session_class("a"), className="b")
    assert message.startswith("spec.className: ")
    assert "'b' (there are: a)" in message


def test_without_any_class_the_message_says_so() -> None:
    assert "(there are: none)" in resolve(session().spec, {}).message  # type: ignore[union-attr]


# The model.


def test_the_sessions_model_goes_before_the_classs() -> None:
    assert agent(agent={"model": "x/mine"}).model == "x/mine"


def test_without_any_model_the_message_names_the_field() -> None:
    assert complaint(session_class(agent={})).startswith("spec.agent.model is unset")


def test_a_class_without_rules_allows_every_model() -> None:
    assert agent(session_class(models=[]), agent={"model": "any/thing"}).base_url is None


def test_a_model_that_no_rule_allows_is_refused_with_what_is_allowed() -> None:
    message = complaint(session_class(models=[{"match": "openai/*"}, {"match": "acme/one"}]), agent={"model": "acme/two"})
    assert message.startswith("spec.agent.model: ")
    assert "'acme/two'" in message
    assert "openai/*, acme/one" in message


def test_the_classs_own_default_is_held_to_its_rules() -> None:
    assert complaint(session_class(agent={"model": "a/b"}, models=[{"match": "openai/*"}])).startswith("spec.agent.model: ")


def test_the_first_rule_that_matches_says_where_the_model_is_served() -> None:
    rules = [{"match": "openai/local*", "baseURL": "http://local:8000/v1"}, {"match": "openai/*"}]
    assert agent(session_class(models=rules), agent={"model": "openai/local-7b"}).base_url == "http://local:8000/v1"
    assert agent(session_class(models=rules), agent={"model": "openai/other"}).base_url is None


def test_models_are_compared_with_their_case() -> None:
    assert isinstance(outcome(session_class(models=[{"match": "openai/*"}]), agent={"model": "OpenAI/x"}), Misconfigured)


# The rest of the agent.


def test_what_nobody_sets_has_defaults() -> None:
    assert agent() == AgentSettings(model="openai/small")
    assert agent().max_iterations == 300


@pytest.mark.parametrize(
    ("of_class", "of_session", "expected"),
    [(None, None, (None, 300)), ("class", None, ("class", 5)), ("class", "mine", ("mine", 7)), (None, "mine", ("mine", 7))],
)
def test_instructions_and_iterations_are_the_sessions_or_else_the_classs(
    of_class: str | None, of_session: str | None, expected: tuple[str | None, int]
) -> None:
    def fields(text: str | None, number: int) -> dict[str, Any]:
        return {"instructions": text, "maxIterations": number} if text else {}

    found = agent(session_class(agent={"model": "x/y", **fields(of_class, 5)}), agent=fields(of_session, 7))
    assert (found.instructions, found.max_iterations) == expected


@pytest.mark.parametrize(("of_class", "own", "expected"), [(None, None, None), ("low", None, "low"), ("low", "max", "max")])
def test_the_effort_is_the_sessions_or_else_the_classs(of_class: str | None, own: str | None, expected: str | None) -> None:
    found = agent(session_class(agent={"model": "x/y", "reasoningEffort": of_class}), agent={"reasoningEffort": own})
    assert found.reasoning_effort == expected


# Tools.


def tools(of_class: dict[str, Any] | None, of_session: dict[str, Any] | None, **rule: Any) -> tuple[ToolSelection, ...]:
    models = [{"match": "*", **rule}]
    offered = session_class(agent={"model": "x/y", **({} if of_class is None else {"tools": of_class})}, models=models)
    return agent(offered, agent={} if of_session is None else {"tools": of_session}).tools


globs = st.lists(st.sampled_from(["bash", "read", "hub__*", "*", "[rw]*", "?????", "nothing"]), max_size=3)
selections = st.none() | st.fixed_dictionaries({}, optional={"allow": globs, "deny": globs})


def allowed(tool: str, selection: dict[str, Any] | None) -> bool:
    """What the fields' descriptions promise."""
    if selection is None:
        return True
    allow, deny = selection.get("allow"), selection.get("deny", [])
    return (allow is None or any(fnmatchcase(tool, glob) for glob in allow)) and not any(
        fnmatchcase(tool, glob) for glob in deny
    )


def offered(tool: str, selections: tuple[ToolSelection, ...]) -> bool:
    """What the runtime's router makes of them."""
    return all(Selection(selection.allow, selection.deny).offers(tool) for selection in selections)


@given(selections, selections)
def test_a_tool_is_offered_when_class_and_session_both_allow_it(
    of_class: dict[str, Any] | None, of_session: dict[str, Any] | None
) -> None:
    got = tools(of_class, of_session)
    for tool in TOOLS:
        assert offered(tool, got) == (allowed(tool, of_class) and allowed(tool, of_session))


def test_the_class_may_say_which_models_take_images() -> None:
    rules = [{"match": "x/see*", "images": True}, {"match": "x/blind", "images": False}, {"match": "*"}]
    offered = session_class(models=rules)
    assert [agent(offered, agent={"model": f"x/{name}"}).images for name in ("seeing", "blind", "other")] == [True, False, None]


def test_where_nobody_selects_every_tool_is_offered() -> None:
    assert tools(None, None) == ()


def test_a_session_cannot_widen_what_its_class_offers() -> None:
    got = tools({"allow": ["read"]}, {"allow": ["*"]})
    assert [tool for tool in TOOLS if offered(tool, got)] == ["read"]


def test_an_empty_list_allows_nothing() -> None:
    assert tools(None, {"allow": []}) == (ToolSelection(allow=()),)


def test_a_model_that_cannot_call_tools_is_offered_none() -> None:
    got = tools(None, {"allow": ["*"]}, toolCalling=False)
    assert not any(offered(tool, got) for tool in TOOLS)


def test_what_web_fetch_may_reach_is_the_classs_to_say() -> None:
    assert agent().web_fetch_networks == ()
    assert agent(session_class(webFetch={"allowedNetworks": ["10.0.0.0/8"]})).web_fetch_networks == ("10.0.0.0/8",)


def test_how_long_the_model_is_waited_for_is_the_classs_to_say() -> None:
    assert agent().model_retries == ModelRetries()
    given = {"silenceSeconds": 600, "unavailableSeconds": 0, "rateLimitedSeconds": 3600}
    expected = ModelRetries(silence_seconds=600, unavailable_seconds=0, rate_limited_seconds=3600)
    assert agent(session_class(modelRetries=given)).model_retries == expected


# MCP servers.

DOCS: dict[str, Any] = {"name": "docs", "url": "https://docs.example/mcp"}
SECRET: dict[str, Any] = {"name": "keys", "key": "docs"}
NOTES: dict[str, Any] = {
    "name": "notes",
    "url": "https://notes.example/mcp",
    "headers": [{"name": "Authorization", "secretKeyRef": SECRET}],
    "tools": {"allow": ["search"], "deny": ["delete*"]},
}


def with_servers(*servers: dict[str, Any], **fields: Any) -> SessionClass:
    return session_class("mine", agent={"model": "x/y", "mcpServers": list(servers)}, **fields)


def test_a_session_has_the_servers_of_its_class_and_its_own() -> None:
    found = outcome(with_servers(DOCS, allowMCPServers=True), agent={"mcpServers": [NOTES]})
    assert isinstance(found, Resolved)
    header = McpHeader(name="Authorization", variable="AGENTSESSION_HEADER_1_0")
    assert found.agent.mcp_servers == (
        McpServerSettings(name="docs", url=DOCS["url"]),
        McpServerSettings(
            name="notes", url=NOTES["url"], headers=(header,), tools=ToolSelection(allow=("search",), deny=("delete*",))
        ),
    )
    assert {name: ref.to_wire() for name, ref in found.server_secrets.items()} == {"AGENTSESSION_HEADER_1_0": SECRET}


def test_an_oauth_client_is_told_and_its_secrets_are_referred_to() -> None:
    client = {
        "issuer": "https://login.example",
        "clientID": {"value": "me"},
        "clientSecret": {"secretKeyRef": SECRET},
        "scopes": ["read", "write"],
    }
    signing = {
        "issuer": "https://login.example",
        "clientID": {"secretKeyRef": {"name": "keys", "key": "id"}},
        "privateKey": {"secretKeyRef": {"name": "keys", "key": "pem"}},
    }
    found = outcome(with_servers({**DOCS, "oauth": client}, {**NOTES, "oauth": signing}))
    assert isinstance(found, Resolved)
    assert [server.oauth for server in found.agent.mcp_servers] == [
        McpOAuth(
            issuer="https://login.example",
            client_id="me",
            client_secret_variable="AGENTSESSION_OAUTH_0_SECRET",
            scopes=("read", "write"),
        ),
        McpOAuth(
            issuer="https://login.example",
            client_id_variable="AGENTSESSION_OAUTH_1_ID",
            private_key_variable="AGENTSESSION_OAUTH_1_KEY",
        ),
    ]
    assert {name: ref.to_wire() for name, ref in found.server_secrets.items()} == {
        "AGENTSESSION_OAUTH_0_SECRET": SECRET,
        "AGENTSESSION_HEADER_1_0": SECRET,
        "AGENTSESSION_OAUTH_1_ID": {"name": "keys", "key": "id"},
        "AGENTSESSION_OAUTH_1_KEY": {"name": "keys", "key": "pem"},
    }


def test_a_class_does_not_let_sessions_name_servers_unless_it_says_so() -> None:
    message = complaint(with_servers(DOCS), agent={"mcpServers": [NOTES]})
    assert message.startswith("spec.agent.mcpServers: the class 'mine' does not let")
    assert "allowMCPServers: true" in message
    assert agent(with_servers(DOCS)).mcp_servers == (McpServerSettings(name="docs", url=DOCS["url"]),)


def test_a_name_that_the_class_has_taken_is_refused() -> None:
    message = complaint(with_servers(DOCS, allowMCPServers=True), agent={"mcpServers": [{**NOTES, "name": "docs"}]})
    assert message.startswith("spec.agent.mcpServers: the class 'mine' has servers of the same name: docs.")


def test_a_model_that_cannot_call_tools_is_connected_to_no_server() -> None:
    offered = with_servers(NOTES, models=[{"match": "*", "toolCalling": False}])
    found = outcome(offered)
    assert isinstance(found, Resolved)
    assert (found.agent.mcp_servers, found.server_secrets) == ((), {})


# Approvals and budgets.


def test_the_classs_rules_come_before_the_sessions() -> None:
    of_class = [{"tool": "bash", "arguments": {"command": "rm *"}, "action": "Deny", "reason": "not here"}]
    offered = session_class(agent={"model": "x/y", "approvalPolicy": of_class})
    assert agent(offered, agent={"approvalPolicy": [{"tool": "*", "action": "Allow"}]}).approval_policy == (
        ApprovalRule(tool="bash", arguments={"command": "rm *"}, action="Deny", reason="not here"),
        ApprovalRule(tool="*", action="Allow"),
    )


@pytest.mark.parametrize(
    ("of_class", "own", "expected"),
    [
        ({}, {}, Budget()),
        ({"tokens": 10}, {}, Budget(tokens=10)),
        ({}, {"costUSD": "0.25"}, Budget(cost_usd=0.25)),
        ({"tokens": 10, "costUSD": "9"}, {"tokens": 20, "costUSD": "10.50"}, Budget(tokens=10, cost_usd=9)),
        ({"tokens": 10, "costUSD": "9"}, {"tokens": 5}, Budget(tokens=5, cost_usd=9)),
    ],
)
def test_of_two_limits_the_smaller_one_holds(of_class: dict[str, Any], own: dict[str, Any], expected: Budget) -> None:
    assert agent(session_class(budget=of_class), budget=own).budget == expected


@pytest.mark.parametrize(
    ("of_class", "own", "expected"),
    [(None, None, None), ("2", None, 2.0), (None, "1.5", 1.5), ("2", "10", 2.0), ("2", "0", 0.0)],
)
def test_a_session_cannot_let_more_run_without_a_question_than_its_class(
    of_class: str | None, own: str | None, expected: float | None
) -> None:
    offered = session_class(agent={"model": "x/y", "autoApproveCostUSD": of_class})
    assert agent(offered, agent={"autoApproveCostUSD": own}).auto_approve_usd == expected


def test_an_unreadable_class_is_never_used_in_an_older_version() -> None:
    unreadable = session_class(workspace={"type": "Sometimes"})
    assert unreadable.spec is None
    found = resolve(session().spec, classes(unreadable))
    assert isinstance(found, Misconfigured)
    assert "standard cannot be read" in found.message
