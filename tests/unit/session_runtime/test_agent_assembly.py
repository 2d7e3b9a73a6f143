"""What a session's agent is made of, from the session's settings to the tools that the model can call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.approval import Rule
from agent.budget import Budget
from agent.config import Patience
from agent.messages import Usage
from agent.redaction import MASK
from agent.testing import calls, says
from agent.tools.mcp.server import OAuthClient
from session_runtime import wire
from session_runtime.agent_assembly import agent_config, mcp_servers
from session_runtime.wire import (
    CREDENTIAL_PREFIX,
    HEADER_PREFIX,
    OAUTH_PREFIX,
    AgentSettings,
    ApprovalRule,
    McpHeader,
    McpOAuth,
    McpServerSettings,
    SessionConfig,
    SessionReport,
    ToolSelection,
)
from support.agent import hub_server
from support.agent.mcp_http import http, mcp_app
from support.agent.oauth_server import CLIENT_ID, SECRET, AuthorizationServer, Protected, basic
from support.agent.openai_server import Answer, serve
from support.runtime.harness import config, free_port, runtime, runtime_process

pytestmark = pytest.mark.anyio

TOKEN = "a-very-secret-token"
NOTES = McpServerSettings(
    name="notes",
    url="http://notes.example/mcp",
    headers=(McpHeader(name="Authorization", variable=f"{HEADER_PREFIX}0_0"),),
    tools=ToolSelection(allow=("a*",), deny=("add",)),
)


# Values.


def test_policy_budget_and_effort_become_the_agents() -> None:
    policy = (
        ApprovalRule(tool="bash", arguments={"command": "rm *"}, action="Deny", reason="not here"),
        ApprovalRule(tool="*", action="Ask"),
    )
    budget = wire.Budget(tokens=10, cost_usd=0.5)
    settings = AgentSettings(model="m", approval_policy=policy, budget=budget, auto_approve_usd=2.0, reasoning_effort="high")
    found = agent_config(config(agent=settings), {})
    assert (found.auto_approve_usd, found.reasoning_effort, found.images) == (2.0, "high", None)
    assert agent_config(config(agent=AgentSettings(model="m", images=True)), {}).images is True
    assert found.rules == (Rule("bash", "deny", {"command": "rm *"}, "not here"), Rule("*", "ask"))
    assert found.budget == Budget(tokens=10, cost_usd=0.5)


def test_nobody_answers_questions_in_a_task() -> None:
    settings = AgentSettings(model="m")
    assert agent_config(config(agent=settings), {}).somebody_answers
    assert not agent_config(config(agent=settings, mode="Task", prompt="go"), {}).somebody_answers


def test_how_long_the_model_is_waited_for_becomes_the_agents() -> None:
    retries = wire.ModelRetries(silence_seconds=600, unavailable_seconds=0, rate_limited_seconds=3600)
    found = agent_config(config(agent=AgentSettings(model="m", model_retries=retries)), {})
    assert found.patience == Patience(silence=600, unavailable=0, rate_limited=3600)
    assert agent_config(config(agent=AgentSettings(model="m")), {}).patience == Patience()


def test_a_server_gets_the_values_of_its_own_headers() -> None:
    environment = {f"{HEADER_PREFIX}0_0": f"Bearer {TOKEN}\n", f"{HEADER_PREFIX}1_0": "of another"}
    (server,) = mcp_servers(AgentSettings(model="m", mcp_servers=(NOTES,)), environment)
    assert server.headers == {"Authorization": f"Bearer {TOKEN}"}
    assert (server.name, server.url, server.allow, server.deny) == ("notes", NOTES.url, ("a*",), ("add",))


def test_a_server_gets_its_oauth_client_from_text_or_variables() -> None:
    by_text = McpOAuth(issuer="https://login.example", client_id="me", client_secret_variable="S", scopes=("read",))
    by_secret = McpOAuth(issuer="https://login.example", client_id_variable="I", private_key_variable="K")
    servers = tuple(
        McpServerSettings(name=f"s{n}", url="https://s", oauth=oauth) for n, oauth in enumerate((by_text, by_secret))
    )
    environment = {"S": "s3cret\n", "I": "you\n", "K": "pem\n"}
    first, second = mcp_servers(AgentSettings(model="m", mcp_servers=servers), environment)
    assert first.oauth == OAuthClient("https://login.example", "me", secret="s3cret", scopes=("read",))
    assert second.oauth == OAuthClient("https://login.example", "you", private_key="pem")


def test_what_a_newer_operator_says_is_ignored_by_an_older_runtime() -> None:
    known = config(agent=AgentSettings(model="m", mcp_servers=(NOTES,)))
    data = known.model_dump()
    data["agent"]["mcp_servers"][0]["fromTomorrow"] = data["agent"]["fromTomorrow"] = data["fromTomorrow"] = {"x": 1}
    assert SessionConfig.model_validate_json(json.dumps(data)) == known


# What the model can call.


async def test_a_tool_is_offered_when_every_selection_offers_it(short_path: Path) -> None:
    selections = (ToolSelection(allow=("b*", "web_*", "plan")), ToolSelection(deny=("web_*",)))
    async with runtime(short_path, agent=AgentSettings(model="scripted", tools=selections)) as run:
        assert (await run.until("ready")).data["tools"] == ["bash", "plan"]


@pytest.mark.parametrize(("networks", "success"), [((), False), (("127.0.0.0/8",), True)])
async def test_web_fetch_reaches_a_private_network_when_the_session_may(
    short_path: Path, networks: tuple[str, ...], success: bool
) -> None:
    settings = AgentSettings(model="scripted", web_fetch_networks=networks)
    async with runtime(short_path, agent=settings) as run:
        run.model.replies = (calls(("web_fetch", {"url": f"{run.url}/healthz"})), says("done"))
        await run.submit("user_input", text="look")
        assert (await run.until("tool_output")).data["success"] is success


async def test_the_hub_tools_act_as_who_the_sessions_credentials_say(short_path: Path) -> None:
    async with hub_server.serve() as hub:
        hub.add("model", "ann/tiny", **{"README.md": b"# Tiny"})
        script = {"calls": [["hub_read", {"repo": "ann/tiny"}]]}, {"text": "read"}
        secret = {"HF_TOKEN": hub_server.TOKEN, "HF_ENDPOINT": hub.url}
        environment = {f"{CREDENTIAL_PREFIX}{name}": value for name, value in secret.items()}
        environment["HF_HUB_DISABLE_TELEMETRY"] = "1"  # as in the image
        async with runtime_process(short_path, *script, environment=environment, prompt="Read it.") as run:
            output = (await run.until("tool_output")).data
        assert output["success"] is True
        assert "Tiny" in str(output["output"])
        assert {request.headers.get("authorization") for request in hub.requests} == {f"Bearer {hub_server.TOKEN}"}


# A whole session with MCP servers.


def asks(tool: str, **arguments: Any) -> Answer:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments)}}
    return Answer(({"tool_calls": [call]},), "tool_calls")


async def test_only_an_mcp_server_itself_sees_its_header(short_path: Path) -> None:
    seen: list[dict[str, str]] = []
    others: list[dict[str, str]] = []
    answers = asks("notes__authorization"), Answer(({"content": "Done."},))
    async with http(mcp_app(seen)) as notes, http(mcp_app(others)) as other, serve(*answers) as model:
        servers = (
            NOTES.model_copy(update={"url": notes}),
            McpServerSettings(name="other", url=other),
            McpServerSettings(name="gone", url=f"http://127.0.0.1:{free_port()}/mcp"),
        )
        settings = AgentSettings(model="openai/scripted", base_url=model.url, mcp_servers=servers, reasoning_effort="low")
        environment = {f"{HEADER_PREFIX}0_0": f"Bearer {TOKEN}", f"{CREDENTIAL_PREFIX}OPENAI_API_KEY": "sk-0123456789"}
        task: dict[str, Any] = {"mode": "Task", "prompt": "Who am I?", "agent": settings}
        async with runtime_process(short_path, environment=environment, **task) as run, run.client() as client:
            ready = (await run.until("ready")).data
            assert {"bash", "notes__authorization", "other__add", "other__authorization"} <= set(ready["tools"])
            assert "notes__add" not in ready["tools"]
            assert [problem.partition(":")[0] for problem in ready["problems"]] == ["the MCP server gone cannot be reached"]
            events = []
            async for event in client.events():  # one connection: the task's end is the end of its server
                events.append(event)
                if event.type == "approval_required":
                    info = await client.info()
                    assert (info["is_active"], info["activity"]) == (True, "AwaitingApproval")
                    (pending,) = info["pending_approval"]
                    assert pending["tool"] == "notes__authorization"
                    assert "does not say that authorization only reads" in pending["reason"]
                    decision = {"tool_call_id": pending["tool_call_id"], "approved": True}
                    await client.submit("approval", decisions=[decision])
            (output,) = (event.data for event in events if event.type == "tool_output")
            assert (output["output"], output["success"]) == ("[REDACTED]", True)
            status, printed = await run.end()
    assert status == 0
    assert SessionReport.model_validate_json((short_path / "termination-log").read_text()).outcome == "Completed"
    assert {headers.get("authorization") for headers in seen} == {f"Bearer {TOKEN}"}
    assert {headers.get("authorization") for headers in others} == {None}
    assert model.requests[1]["messages"][-1]["content"] == "[REDACTED]"
    assert {request["reasoning_effort"] for request in model.requests} == {"low"}
    database = b"".join(path.read_bytes() for path in (short_path / "state").iterdir())
    assert TOKEN not in json.dumps([event.data for event in events]) + printed
    assert TOKEN.encode() not in database


async def test_a_sessions_access_tokens_are_in_nothing_that_it_says_or_keeps(short_path: Path) -> None:
    login = AuthorizationServer()
    notes = Protected(mcp_app(), login)
    answers = asks("notes__authorization"), Answer(({"content": "Done."},))
    async with http(login) as login_url, http(notes) as notes.url, serve(*answers) as model:
        login.url = login_url.removesuffix("/mcp")
        client = McpOAuth(issuer=login.url, client_id=CLIENT_ID, client_secret_variable=f"{OAUTH_PREFIX}0_SECRET")
        server = McpServerSettings(name="notes", url=notes.url, oauth=client)
        rule = ApprovalRule(tool="*", action="Allow")
        settings = AgentSettings(model="openai/scripted", base_url=model.url, mcp_servers=(server,), approval_policy=(rule,))
        environment = {f"{OAUTH_PREFIX}0_SECRET": f"{SECRET}\n", f"{CREDENTIAL_PREFIX}OPENAI_API_KEY": "sk-0123456789"}
        task: dict[str, Any] = {"mode": "Task", "prompt": "Who am I?", "agent": settings}
        async with runtime_process(short_path, environment=environment, **task) as run:
            events = await run.events()
            status, printed = await run.end()
    assert status == 0
    assert [headers["authorization"] for headers, _ in login.token_requests] == [basic()]
    (output,) = (event.data for event in events if event.type == "tool_output")
    assert (output["output"], output["success"]) == (f"Bearer {MASK}", True)
    said = json.dumps([event.data for event in events]) + printed + json.dumps(model.requests)
    kept = b"".join(path.read_bytes() for path in (short_path / "state").iterdir())
    for secret in (*login.issued, SECRET):
        assert secret not in said
        assert secret.encode() not in kept


async def test_a_server_that_comes_late_is_an_event_and_in_the_session(short_path: Path) -> None:
    port = free_port()
    servers = (McpServerSettings(name="late", url=f"http://127.0.0.1:{port}/mcp"),)
    async with runtime(short_path, agent=AgentSettings(model="scripted", mcp_servers=servers)) as run:
        [problem] = (await run.until("ready")).data["problems"]
        assert (await run.http.get("/v1/session")).json()["problems"] == [problem]
        assert b"agentsession_tool_problems 1.0" in (await run.http.get("/metrics")).content
        async with http(mcp_app(), port):
            changed = await run.until("tools_changed")
            assert "late__add" in changed.data["tools"]
            assert changed.data["problems"] == []
            assert (await run.http.get("/v1/session")).json()["problems"] == []
        gone = await run.until("tools_changed", changed.seq)
        assert [told.partition(":")[0] for told in gone.data["problems"]] == ["the MCP server late cannot be reached"]


async def test_a_task_waits_for_a_server_that_comes_late(short_path: Path) -> None:
    port = free_port()
    servers = (McpServerSettings(name="late", url=f"http://127.0.0.1:{port}/mcp"),)
    settings = AgentSettings(model="scripted", mcp_servers=servers)
    async with runtime(short_path, says("done"), mode="Task", prompt="go", agent=settings) as run, http(mcp_app(), port):
        events = await run.events()
        assert [event.data["tools"] for event in events if event.type == "ready" and "late__add" in event.data["tools"]]
        assert await run.ended() == 0


# Budgets.


async def test_a_task_without_budget_left_is_over_and_an_interactive_session_stays(short_path: Path) -> None:
    spends = calls(("plan", {"plan": []}), usage=Usage(input_tokens=7, output_tokens=3))
    settings = AgentSettings(model="scripted", budget=wire.Budget(tokens=10))
    for mode in ("Task", "Interactive"):
        folder = short_path / mode
        folder.mkdir()
        async with runtime(folder, spends, says("never said"), mode=mode, prompt="go", agent=settings) as run:
            error = (await run.until("error")).data
            assert error["kind"] == "budget"
            assert "budget of 10 tokens is used up" in error["message"]
            if mode == "Task":
                assert await run.ended() == 0
                report = SessionReport.model_validate_json(run.termination_log.read_text())
                assert report.outcome == "BudgetExceeded"
                assert report.outcome_message is not None
                assert "spec.budget" in report.outcome_message
            else:
                assert (await run.http.get("/v1/session")).json()["is_active"] is True
