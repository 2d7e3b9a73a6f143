"""Servers that start late, go away and come back, and who is told of it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.events import Event
from agent.loop.agent import Agent
from agent.testing import ScriptedModel, says
from agent.tools.mcp import connection
from agent.tools.mcp.connection import McpConnection
from agent.tools.mcp.server import McpServer
from agent.tools.router import ToolRouter
from support.agent.canned_mcp import HELLO, canned_app, reply, stdio_command, tools
from support.agent.mcp_http import http
from support.agent.processes import until


async def ignore(_: Event) -> None:
    """Takes an event."""


pytestmark = pytest.mark.anyio

ANSWERS = {"tools/list": tools("t"), "tools/call": '{"content":[{"type":"text","text":"fine"}]}'}


async def test_a_call_waits_for_a_server_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is away for longer than a call takes, and the next try without a call would come in a quarter of an hour."""
    monkeypatch.setattr(connection, "RECONNECT_WAITS", (1_000.0,))
    monkeypatch.setattr(connection, "CALL_WAIT", 60.0)
    async with http(canned_app(ANSWERS)) as url:
        port = int(url.split(":")[2].split("/")[0])
        source = McpConnection(McpServer("a", url=url))
        await source.open()
    try:
        router = ToolRouter(sources=(source,))
        call = asyncio.create_task(router.call("a__t", {}))
        await until(lambda: source.problem)
        async with http(canned_app(ANSWERS), port):
            assert (await call).output == "fine"
            assert source.problem is None
    finally:
        await source.close()


async def test_a_call_of_a_server_that_stays_away_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CALL_WAIT", 0.5)
    async with http(canned_app(ANSWERS)) as url:
        router = ToolRouter(sources=(McpConnection(McpServer("a", url=url)),))
        await router.__aenter__()
    try:
        failed = await router.call("a__t", {})
        assert not failed.success
        assert "the MCP server a" in failed.output
    finally:
        await router.__aexit__(None, None, None)


async def test_a_call_in_a_session_that_the_server_forgot_is_repeated_once() -> None:
    """404 for a session is how a server asks for a new one (2025-11-25, transports, session management)."""
    sessions, asked = ["first"], []

    async def forgetful(request: dict[str, Any], send: Any) -> bool:
        if request.get("method") == "initialize":
            body = {"jsonrpc": "2.0", "id": request["id"], "result": json.loads(HELLO)}
            await reply(send, 200, json.dumps(body).encode(), "application/json", (b"mcp-session-id", sessions[-1].encode()))
            return True
        if request.get("method") == "tools/call":
            asked.append(sessions[-1])
            if sessions[-1] == "first":
                sessions.append("second")
                await reply(send, 404)
                return True
        return False

    async with (
        http(canned_app(ANSWERS, respond=forgetful)) as url,
        ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router,
    ):
        assert (await router.call("a__t", {})).output == "fine"
    assert asked == ["first", "second"]


async def test_a_slow_server_starts_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OPEN_WAIT", 0.1)
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 0.1)
    go = tmp_path / "go"
    wait = f"import os, sys, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)\n"
    _, program, answers = stdio_command(tmp_path, ANSWERS)
    wait += f"os.execv(sys.executable, [sys.executable, {program!r}, {answers!r}])"
    server = McpServer("slow", command=(sys.executable, "-c", wait))
    async with ToolRouter(sources=(McpConnection(server),)) as router:
        assert router.problems == ("the MCP server slow is still starting; its tools are offered as soon as it answers",)
        assert not router.tools
        monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 30.0)
        await asyncio.to_thread(go.touch)
        await router.wait_for_sources(60)
        assert [tool.name for tool in router.tools] == ["slow__t"]
        await until(lambda: not router.problems)


async def test_the_model_is_told_of_a_server_that_is_away() -> None:
    source = McpConnection(McpServer("gone", command=("/no/such/program",)))
    async with ToolRouter(sources=(source,)) as router:
        model = ScriptedModel(says("hello"))
        agent = Agent(AgentConfig("scripted"), model, router, ignore)
        assert (await agent.run_turn("hi")).status == "complete"
    [request] = model.requests
    assert request[0].role == "system"
    assert "the MCP server gone cannot be reached" in request[0].content


async def test_an_answer_that_comes_while_closing_does_not_connect_again() -> None:
    """The official client fails over such an answer, and its error takes the place of the cancellation."""
    called, goodbye, answered, greetings = asyncio.Event(), asyncio.Event(), asyncio.Event(), 0

    async def late(request: dict[str, Any], send: Any) -> bool:
        nonlocal greetings
        if request.get("method") == "initialize":
            greetings += 1
            body = {"jsonrpc": "2.0", "id": request["id"], "result": json.loads(HELLO)}
            await reply(send, 200, json.dumps(body).encode(), "application/json", (b"mcp-session-id", b"one"))
            return True
        if request["_method"] == "DELETE":
            goodbye.set()
            await answered.wait()
        if request.get("method") == "tools/call":
            called.set()
            await goodbye.wait()
            await reply(send, 200, json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"content": []}}).encode())
            answered.set()
            return True
        return False

    async with http(canned_app(ANSWERS, respond=late)) as url:
        source = McpConnection(McpServer("a", url=url))
        await source.open()
        call = asyncio.create_task(ToolRouter(sources=(source,)).call("a__t", {}))
        await called.wait()
        async with asyncio.timeout(5):  # a second cancellation comes after CLOSE_TIMEOUT
            await source.close()
        await call
    assert greetings == 1
