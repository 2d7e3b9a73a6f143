"""Puts an agent together for a session: its model, its tools, its credentials.

The agent's modules are imported only when a session opens its agent, in a thread: they cost some 0.3 s, and the server
answers by then.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from agent.config import AgentConfig
from agent.conversation import Conversation
from agent.events import Emit
from agent.tools.selection import ToolSelection
from session_runtime.session import OpenAgent, OpenedAgent
from session_runtime.wire import CREDENTIAL_PREFIX, AgentSettings, SessionConfig

if TYPE_CHECKING:
    from agent.model import Model
    from agent.tools.tool import Tool
    from agent.workspace import Workspace

OpenModel = Callable[[AgentConfig], "Model"]

_NOT_CREDENTIALS: Final = re.compile(r"PATH|HOME|LD_.*|PYTHON.*|AGENTSESSION_.*")
"""Names that a Secret may not set in this process: they steer the process itself."""


def credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """The session's credentials, by the names that their keys have in the Secret."""
    names = (name for name in environment if name.startswith(CREDENTIAL_PREFIX))
    return {name.removeprefix(CREDENTIAL_PREFIX): environment[name] for name in names}


def provider_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of the credentials that model providers' clients may find in the environment (`OPENAI_API_KEY`, ...)."""
    found = credentials(environment).items()
    return {name: value for name, value in found if name and not _NOT_CREDENTIALS.fullmatch(name)}


def agent_config(config: SessionConfig, secrets: Mapping[str, str]) -> AgentConfig:
    """The session's settings as the agent takes them."""
    settings = config.agent
    return AgentConfig(
        model=settings.model,
        base_url=settings.base_url,
        instructions=settings.instructions,
        max_iterations=settings.max_iterations,
        secrets=tuple(secrets.values()),
    )


def litellm_model(config: AgentConfig) -> Model:
    """The model of any provider; litellm itself is imported with the first call."""
    from agent.model import LiteLLMModel

    return LiteLLMModel(config.model, base_url=config.base_url, api_key=config.api_key)


def opener(config: SessionConfig, workspace: Workspace, open_model: OpenModel = litellm_model) -> OpenAgent:
    """What opens this session's agent. Sets the credentials in this process's environment first."""
    secrets = credentials(os.environ)

    @asynccontextmanager
    async def open_agent(emit: Emit, conversation: Conversation) -> AsyncIterator[OpenedAgent]:
        os.environ.update(provider_environment(os.environ))
        await asyncio.to_thread(_import_agent)
        from agent.loop import Agent
        from agent.tools.router import ToolRouter

        settings = agent_config(config, secrets)
        async with ToolRouter(_tools(config.agent, workspace), selections=_selections(config.agent)) as router:
            agent = Agent(settings, open_model(settings), router, emit, conversation)
            names = [tool.name for tool in router.tools]
            yield OpenedAgent(agent, {"model": settings.model, "tools": names, "problems": []})

    return open_agent


def _tools(settings: AgentSettings, workspace: Workspace) -> tuple[Tool, ...]:
    """The tools that every session has."""
    from agent.plan import plan_tool
    from agent.tools.web_fetch import web_fetch_tool
    from agent.tools.workspace import workspace_tools

    return (*workspace_tools(workspace), plan_tool(), web_fetch_tool(settings.web_fetch_networks))


def _selections(settings: AgentSettings) -> tuple[ToolSelection, ...]:
    return tuple(ToolSelection(selection.allow, selection.deny) for selection in settings.tools)


def _import_agent() -> None:
    """Slow the first time, and then nothing."""
    import agent.loop
    import agent.model
    import agent.plan
    import agent.tools.web_fetch
    import agent.tools.workspace  # noqa: F401
