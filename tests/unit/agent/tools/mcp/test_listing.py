"""Lists of tools that are incomplete, endless or refused, and errors that are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.tools.mcp.connection import McpConnection
from agent.tools.mcp.server import McpServer
from agent.tools.router import ToolRouter
from support.agent.canned_mcp import canned_app, reply, tools
from support.agent.mcp_http import http

pytestmark = pytest.mark.anyio


def page(cursor: str | None, *named: object) -> str:
    return json.dumps({**json.loads(tools(*named)), "nextCursor": cursor})


async def test_an_error_on_page_two_keeps_page_one() -> None:
    answers = {
        "tools/list": page("2", "one"),
        "tools/list 2": 'error {"code":-32603,"message":"database is gone","data":{"a":1}}',
    }
    async with http(canned_app(answers)) as url, ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router:
        assert [tool.name for tool in router.tools] == ["a__one"]
        [problem] = router.problems
        assert problem == (
            "the MCP server a does not list all its tools, and those of the first 1 pages are offered: "
            'database is gone ({"a": 1})'
        )


@pytest.mark.parametrize("cursor", ["", "2", "3"])
async def test_an_empty_or_repeated_cursor_ends_the_listing(cursor: str) -> None:
    seen: list[str] = []
    answers = {"tools/list": page("2", "one"), "tools/list 2": page(cursor, "two"), "tools/list 3": page("2", "three")}
    async with (
        http(canned_app(answers, seen=seen)) as url,
        ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router,
    ):
        names = [tool.name for tool in router.tools]
        assert names == ["a__one", "a__two", "a__three"][: 3 if cursor == "3" else 2]
        assert router.problems == ()
        assert seen.count("tools/list") <= 4


async def test_tools_that_are_left_out_are_reported() -> None:
    answers = {"tools/list": tools("good", {"description": "nameless"}, 5)}
    async with http(canned_app(answers)) as url, ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router:
        assert [tool.name for tool in router.tools] == ["a__good"]
        assert router.problems == ("the MCP server a lists 2 entries that are no tools; they are left out",)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(401, "check the token"), (403, "refuses these credentials"), (405, "check the url"), (500, "the server itself failed")],
)
async def test_each_refusal_says_what_it_means(status: int, meaning: str) -> None:
    async def refuse(request: dict[str, Any], send: Any) -> bool:
        await reply(send, status, b"see the manual", "text/plain")
        return True

    async with (
        http(canned_app({}, respond=refuse)) as url,
        ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router,
    ):
        [problem] = router.problems
    assert f"HTTP {status} " in problem
    assert meaning in problem
    assert "see the manual" in problem


async def test_the_data_of_an_error_is_told_to_the_model() -> None:
    answers = {
        "tools/list": tools("t"),
        "tools/call": 'error {"code":-32602,"message":"Invalid params","data":{"field":"date"}}',
    }
    async with http(canned_app(answers)) as url, ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router:
        failed = await router.call("a__t", {})
    assert failed.output == 'the MCP server a failed: Invalid params ({"field": "date"})'
