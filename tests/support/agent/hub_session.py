"""The hub tools of one session, on a Hub on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.tools.hub import HubSettings, hub_tools
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, ToolResult
from agent.workspace.local import LocalWorkspace
from support.agent.hub_server import TOKEN, HubServer, serve


@dataclass
class HubSession:
    hub: HubServer
    router: ToolRouter

    async def call(self, tool: str, **arguments: Any) -> ToolResult:
        """A call's result; asserts that the token is not in it."""
        result = await self.router.call(tool, arguments)
        assert TOKEN not in result.output
        return result

    async def text(self, tool: str, **arguments: Any) -> str:
        """The output of a call that succeeds."""
        result = await self.call(tool, **arguments)
        assert result.success, result.output
        return result.output

    async def problem(self, tool: str, **arguments: Any) -> str:
        """The output of a call that fails."""
        result = await self.call(tool, **arguments)
        assert not result.success, result.output
        return result.output

    def tool(self, name: str) -> Tool:
        found = self.router.get(name)
        assert found is not None
        return found


@contextlib.asynccontextmanager
async def session(workspace: Path, token: str | None = TOKEN) -> AsyncIterator[HubSession]:
    async with serve() as hub:
        settings = HubSettings(token, hub.url, viewer=f"{hub.url}/viewer")
        yield HubSession(hub, ToolRouter(hub_tools(settings, LocalWorkspace(workspace))))
