"""One scenario of MCP's conformance suite, played by an agent with its own connection: `python client.py URL`.

The suite names the scenario and what belongs to it in the environment. A scripted model calls each tool of the server once, and
a person accepts what the server asks as it stands. Exits with 1 when the server could not be used.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx

sys.path[:0] = [str(Path(__file__).parents[2])]

from agent.approval import Rule  # noqa: E402
from agent.config import AgentConfig  # noqa: E402
from agent.events import Event  # noqa: E402
from agent.loop.agent import Agent  # noqa: E402
from agent.question import QuestionAnswer  # noqa: E402
from agent.testing import ScriptedModel, calls, says  # noqa: E402
from agent.tools.mcp.connection import McpConnection  # noqa: E402
from agent.tools.mcp.server import McpServer, OAuthClient  # noqa: E402
from agent.tools.router import ToolRouter  # noqa: E402

ARGUMENTS: dict[str, dict[str, Any]] = {"conformance__add_numbers": {"a": 2, "b": 3}}
"""Of the tools that need some."""

UNKNOWN = {"client_id": "conformance", "client_secret": "of-no-server-0123"}
"""A client for a scenario in which a session with one must not use it."""


async def play(url: str, scenario: str, given: dict[str, Any]) -> int:
    """The exit status."""
    oauth = await oauth_client(url, given or UNKNOWN) if given or scenario == "auth/resource-mismatch" else None
    connection = McpConnection(McpServer("conformance", url=url, oauth=oauth))
    outputs: list[dict[str, Any]] = []
    async with ToolRouter(sources=[connection]) as router:
        if router.problems:
            print(*router.problems, sep="\n")
            return 1
        wanted = [(tool.name, ARGUMENTS.get(tool.name, {})) for tool in router.tools]
        answers: set[asyncio.Task[bool]] = set()

        async def receive(event: Event) -> None:
            if event.type == "question":
                accept = agent.answer(str(event.data["question_id"]), QuestionAnswer("accept"))
                answers.add(asyncio.create_task(accept))
            if event.type == "tool_output":
                outputs.append(event.data)

        config = AgentConfig("scripted", rules=(Rule("*", "allow"),))
        script = (calls(*wanted), says("done")) if wanted else (says("no tools"),)
        agent = Agent(config, ScriptedModel(*script), router, receive)
        outcome = await agent.run_turn("Call each tool.")
    print(outcome, *outputs, sep="\n")
    return 0 if outcome.status == "complete" and all(output["success"] for output in outputs) else 1


async def oauth_client(url: str, given: dict[str, Any]) -> OAuthClient:
    """The client that the suite has registered; its authorization server is looked up, as who configures a session does it."""
    address = httpx.URL(url)
    async with httpx.AsyncClient() as http:
        metadata = await http.get(address.copy_with(path=f"/.well-known/oauth-protected-resource{address.path}"))
    issuer = str(metadata.json()["authorization_servers"][0])
    return OAuthClient(issuer, given["client_id"], given.get("client_secret"), given.get("private_key_pem"))


if __name__ == "__main__":
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    if "idp_id_token" in context:  # the client alone gets no token there
        context = {}
    sys.exit(asyncio.run(play(sys.argv[1], os.environ["MCP_CONFORMANCE_SCENARIO"], context)))
