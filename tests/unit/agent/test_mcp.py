"""Real MCP servers of the official SDK, over stdio and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from agent.testing import calls, says
from agent.tools import mcp
from agent.tools.mcp import McpConnection, McpServer, tool_name
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, parameters
from unit.agent.mcp_server import make
from unit.agent.test_workspace import until

pytestmark = pytest.mark.anyio

STDIO = McpServer("local", command=(sys.executable, str(Path(__file__).with_name("mcp_server.py"))))


@contextlib.asynccontextmanager
async def http_server(seen: list[dict[str, str]]) -> AsyncIterator[str]:
    """The server over HTTP; `seen` gets the headers of each request."""
    app: Any = make().streamable_http_app()

    async def recording(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await app(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(recording, port=0, log_level="error", timeout_graceful_shutdown=1))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        await task


async def test_over_stdio() -> None:
    connection = McpConnection(STDIO)
    async with ToolRouter(sources=(connection,)) as router:
        assert router.problems == ()
        assert {tool.name for tool in router.tools} >= {"local__add", "local__store"}
        assert (await router.call("local__add", {"a": 40, "b": 2})).output == "42"
        failed = await router.call("local__fail", {})
        assert not failed.success
        assert failed.output == "Error executing tool fail"  # the SDK keeps the details to itself
        assert (await router.call("local__picture", {})).output == "look:\n[image, image/png, 12 bytes]"
        wrong = await router.call("local__add", {"a": "x", "b": 2})
        assert "$.a" in wrong.output
        names = (await router.call("local__environment", {})).output.split(",")
        assert "PYTEST_CURRENT_TEST" not in names  # this process's environment is not the server's


async def test_a_server_that_dies_is_reported_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "RECONNECT_WAITS", (0.01,))
    connection = McpConnection(STDIO)
    async with ToolRouter(sources=(connection,)) as router:
        assert not (await router.call("local__die", {})).success
        await until(lambda: router.problems)
        await until(lambda: not router.problems)
        assert (await router.call("local__add", {"a": 1, "b": 1})).output == "2"


async def test_a_changed_list_of_tools_is_noticed() -> None:
    async with ToolRouter(sources=(McpConnection(STDIO),)) as router:
        assert (await router.call("local__grow", {})).success
        await until(lambda: router.get("local__grown"))
        assert (await router.call("local__grown", {})).output == "new"


async def test_over_http_with_headers_for_that_server_alone() -> None:
    first: list[dict[str, str]] = []
    second: list[dict[str, str]] = []
    async with http_server(first) as one, http_server(second) as two:
        sources = (
            McpConnection(McpServer("one", url=one, headers={"Authorization": "Bearer one"}, allow=("add", "store"))),
            McpConnection(McpServer("two", url=two, deny=("s*",))),
        )
        async with ToolRouter(sources=sources, deny=("*__die",)) as router:
            names = {tool.name for tool in router.tools}
            assert {"one__add", "one__store", "two__add"} <= names
            assert not {"one__fail", "two__store", "two__die"} & names
            assert (await router.call("one__add", {"a": 1, "b": 2})).output == "3"
            assert (await router.call("two__add", {"a": 1, "b": 2})).output == "3"
    assert {headers.get("authorization") for headers in first} == {"Bearer one"}
    assert {headers.get("authorization") for headers in second} == {None}


async def test_a_server_that_is_not_there_is_reported_and_the_session_goes_on() -> None:
    from unit.agent.stage import stage

    gone = (
        McpConnection(McpServer("absent", url="http://127.0.0.1:9/mcp", headers={"X": "secret-header"})),
        McpConnection(McpServer("missing", command=("/no/such/program",))),
    )
    async with ToolRouter(sources=gone) as router:
        assert len(router.problems) == 2
        assert "absent" in router.problems[0]
        assert "secret-header" not in repr((router.problems, gone[0].server))
        s = stage(says("hello"))
        assert (await s.agent.run_turn("hi")).status == "complete"


async def test_what_does_not_say_that_it_only_reads_needs_consent() -> None:
    from unit.agent.stage import stage

    async with ToolRouter(sources=(McpConnection(STDIO),)) as router:
        reads, writes = ("local__add", {"a": 1, "b": 2}), ("local__store", {"text": "x"})
        s = stage(calls(reads, writes), says("done"), tools=router.tools)
        assert (await s.agent.run_turn("go")).status == "awaiting_approval"
        assert [p.tool for p in s.agent.pending_approvals] == ["local__store"]


async def test_a_servers_tool_never_replaces_a_builtin() -> None:
    async def call(_: dict[str, Any]) -> str:
        return "builtin"

    builtin = Tool("local__add", "", parameters(), call)
    async with ToolRouter((builtin,), sources=(McpConnection(STDIO),)) as router:
        assert (await router.call("local__add", {})).output == "builtin"


def test_names_are_acceptable_to_providers() -> None:
    assert tool_name("my.server", "get/it") == "my_server__get_it"
    assert len(tool_name("s" * 60, "t" * 60)) == 64
