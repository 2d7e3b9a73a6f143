"""Answers of MCP servers that are too large: they fail their call, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from agent.tools.mcp import wire
from agent.tools.mcp.connection import McpConnection
from agent.tools.mcp.server import McpServer
from agent.tools.router import ToolRouter
from support.agent.canned_mcp import canned_app, reply, tools
from support.agent.mcp_http import http

pytestmark = pytest.mark.anyio

ANSWERS = {"tools/list": tools("big", "small"), "tools/call": '{"content":[{"type":"text","text":"fine"}]}'}


def called(request: dict[str, Any]) -> str | None:
    return request.get("params", {}).get("name") if request.get("method") == "tools/call" else None


async def test_an_endless_json_answer_fails_its_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER", 1_000_000)
    sent = 0

    async def endless(request: dict[str, Any], send: Any) -> bool:
        nonlocal sent
        if called(request) != "big":
            return False
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        while sent < 200_000_000:
            await send({"type": "http.response.body", "body": b" " * 100_000, "more_body": True})
            sent += 100_000
            await asyncio.sleep(0)
        return True

    async with (
        http(canned_app(ANSWERS, respond=endless)) as url,
        ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router,
    ):
        failed = await router.call("a__big", {})
        assert not failed.success
        assert "its answer is larger than 1000000 bytes" in failed.output
        assert sent < 50_000_000
        assert (await router.call("a__small", {})).output == "fine"


@pytest.mark.parametrize("status", [200, 500])
async def test_a_compressed_answer_is_bounded_by_its_full_size(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER", 1_000_000)
    packed = gzip.compress(b" " * 30_000_000)

    async def bomb(request: dict[str, Any], send: Any) -> bool:
        if called(request) != "big":
            return False
        await reply(send, status, packed, "application/json", (b"content-encoding", b"gzip"))
        return True

    async with (
        http(canned_app(ANSWERS, respond=bomb)) as url,
        ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router,
    ):
        failed = await router.call("a__big", {})
        assert not failed.success
        assert ("larger than 1000000 bytes" if status == 200 else "HTTP 500") in failed.output
        assert (await router.call("a__small", {})).output == "fine"


async def test_a_compressed_answer_is_read() -> None:
    async def packed(request: dict[str, Any], send: Any) -> bool:
        if called(request) is None:
            return False
        result = {"content": [{"type": "text", "text": "unpacked"}]}
        body = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
        await reply(send, 200, gzip.compress(body), "application/json", (b"content-encoding", b"gzip"))
        return True

    async with (
        http(canned_app(ANSWERS, respond=packed)) as url,
        ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router,
    ):
        assert (await router.call("a__big", {})).output == "unpacked"


@pytest.mark.parametrize("sse", [False, True], ids=["json", "events"])
async def test_a_result_of_three_mebibytes_arrives(sse: bool) -> None:
    text = "x" * (3 << 20)
    answers = {**ANSWERS, "tools/call": json.dumps({"content": [{"type": "text", "text": text}]})}
    async with (
        http(canned_app(answers, sse=sse)) as url,
        ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router,
    ):
        assert (await router.call("a__big", {})).output == text


async def test_an_event_that_is_too_large_fails_its_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER", 1_000_000)

    async def large(request: dict[str, Any], send: Any) -> bool:
        if called(request) != "big":
            return False
        await reply(send, 200, b"data: " + b"x" * 2_000_000 + b"\n\n", "text/event-stream")
        return True

    async with (
        http(canned_app(ANSWERS, sse=True, respond=large)) as url,
        ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router,
    ):
        failed = await router.call("a__big", {})
        assert not failed.success
        assert "1000000 byte" in failed.output
        assert (await router.call("a__small", {})).output == "fine"
