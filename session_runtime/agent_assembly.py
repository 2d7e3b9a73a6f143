"""Puts an agent together for a session: its model, its tools, its credentials.

This module imports late. The agent's modules take 0.3 s to import, so they are imported when a session opens its agent, in a
thread: the server already answers by then, and `/healthz` does not wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from agent.approval import Action, Rule
from agent.budget import Budget
from agent.config import AgentConfig, Patience
from agent.conversation import Conversation
from agent.events import Emit, Event
from agent.redaction import Redactor
from agent.tools.selection import ToolSelection
from session_runtime.credentials import credentials, provider_environment, secret_values, without_line_break
from session_runtime.session.agent_protocol import OpenAgent, OpenedAgent
from session_runtime.wire import AgentSettings, McpOAuth, SessionConfig

if TYPE_CHECKING:
    from agent.model.model import Model
    from agent.tools.mcp.server import McpServer, OAuthClient
    from agent.tools.router import ToolRouter
    from agent.workspace import Workspace

OpenModel = Callable[[AgentConfig], "Model"]

TASK_WAIT: Final = 15.0
"""Seconds that a Task waits for MCP servers that are not there yet."""

CHANGES_SECONDS: Final = 0.5
"""Seconds between two looks at what MCP servers offer, at least."""

_ACTIONS: Final[Mapping[str, Action]] = {"Allow": "allow", "Ask": "ask", "Deny": "deny"}


def agent_config(config: SessionConfig, environment: Mapping[str, str]) -> AgentConfig:
    """The session's settings as the agent takes them."""
    settings = config.agent
    return AgentConfig(
        model=settings.model,
        base_url=settings.base_url,
        images=settings.images,
        instructions=settings.instructions,
        max_iterations=settings.max_iterations,
        rules=tuple(Rule(rule.tool, _ACTIONS[rule.action], rule.arguments, rule.reason) for rule in settings.approval_policy),
        auto_approve_usd=settings.auto_approve_usd,
        reasoning_effort=settings.reasoning_effort,
        budget=Budget(settings.budget.tokens, settings.budget.cost_usd),
        patience=Patience(
            silence=settings.model_retries.silence_seconds,
            unavailable=settings.model_retries.unavailable_seconds,
            rate_limited=settings.model_retries.rate_limited_seconds,
        ),
        somebody_answers=config.mode != "Task",
        secrets=secret_values(environment),
    )


def mcp_servers(settings: AgentSettings, environment: Mapping[str, str]) -> tuple[McpServer, ...]:
    """The session's MCP servers, each with its own headers and OAuth client. Raises KeyError when a variable is not there."""
    from agent.tools.mcp.server import McpServer

    return tuple(
        McpServer(
            server.name,
            url=server.url,
            headers={header.name: without_line_break(environment[header.variable]) for header in server.headers},
            oauth=None if server.oauth is None else _oauth_client(server.oauth, environment),
            allow=server.tools.allow,
            deny=server.tools.deny,
        )
        for server in settings.mcp_servers
    )


def _oauth_client(settings: McpOAuth, environment: Mapping[str, str]) -> OAuthClient:
    from agent.tools.mcp.server import OAuthClient

    def value(variable: str | None) -> str | None:
        return None if variable is None else without_line_break(environment[variable])

    return OAuthClient(
        settings.issuer,
        settings.client_id or value(settings.client_id_variable) or "",
        secret=value(settings.client_secret_variable),
        private_key=value(settings.private_key_variable),
        scopes=settings.scopes,
    )


def litellm_model(config: AgentConfig) -> Model:
    """The model of any provider; litellm itself is imported with the first call."""
    from agent.model.model import LiteLLMModel

    return LiteLLMModel(
        config.model,
        base_url=config.base_url,
        api_key=config.api_key,
        reasoning_effort=config.reasoning_effort,
        images=config.images,
    )


def opener(config: SessionConfig, workspace: Workspace, open_model: OpenModel = litellm_model) -> OpenAgent:
    """What opens this session's agent. Sets the credentials in this process's environment first."""
    settings = agent_config(config, os.environ)

    @asynccontextmanager
    async def open_agent(emit: Emit, conversation: Conversation) -> AsyncIterator[OpenedAgent]:
        os.environ.update(provider_environment(os.environ))
        await asyncio.to_thread(_import_agent, bool(config.agent.mcp_servers))
        from agent.loop.agent import Agent

        async with _router(config.agent, workspace) as router:
            if config.mode == "Task":  # nobody would call it again when a server has come
                await router.wait_for_sources(TASK_WAIT)
            agent = Agent(settings, open_model(settings), router, emit, conversation)
            offer = _offer(router, settings)
            reporting = asyncio.create_task(_report_changes(router, settings, emit, offer))
            try:
                yield OpenedAgent(agent, {"model": settings.model, **offer})
            finally:
                reporting.cancel()
                await asyncio.wait({reporting})

    return open_agent


def _offer(router: ToolRouter, settings: AgentConfig) -> dict[str, object]:
    """Which tools there are now, and what is wrong with where they come from."""
    redactor = Redactor(settings.secrets)
    problems = [redactor.text(problem) for problem in router.problems]
    return {"tools": [tool.name for tool in router.tools], "problems": problems}


async def _report_changes(router: ToolRouter, settings: AgentConfig, emit: Emit, known: dict[str, object]) -> None:
    """Emit `tools_changed` at most every CHANGES_SECONDS; a server that comes and goes must not fill the log."""
    while True:
        await asyncio.sleep(CHANGES_SECONDS)
        offer = _offer(router, settings)
        if offer != known:
            known = offer
            await emit(Event("tools_changed", offer))
        await router.changed()


def _router(settings: AgentSettings, workspace: Workspace) -> ToolRouter:
    """The session's tools: those that every session has, and those of its MCP servers."""
    from agent.tools.hub import HubSettings, hub_tools
    from agent.tools.mcp.connection import McpConnection
    from agent.tools.plan import plan_tool
    from agent.tools.research import research_tool
    from agent.tools.router import ToolRouter
    from agent.tools.web_fetch import web_fetch_tool
    from agent.tools.workspace import workspace_tools

    redactor = Redactor(secret_values(os.environ))
    hub = hub_tools(HubSettings.from_credentials(credentials(os.environ)), workspace)
    web_fetch = web_fetch_tool(settings.web_fetch_networks)
    return ToolRouter(
        (*workspace_tools(workspace, redactor), plan_tool(), web_fetch, research_tool(), *hub),
        sources=[McpConnection(server) for server in mcp_servers(settings, os.environ)],
        selections=[ToolSelection(selection.allow, selection.deny) for selection in settings.tools],
    )


def _import_agent(with_mcp: bool) -> None:
    """Slow the first time, and then nothing."""
    import agent.loop.agent
    import agent.model.model
    import agent.tools.hub
    import agent.tools.mcp.connection
    import agent.tools.plan
    import agent.tools.research
    import agent.tools.web_fetch
    import agent.tools.workspace  # noqa: F401

    if with_mcp:
        import mcp.client.streamable_http  # noqa: F401
