"""Real MCP servers of the official SDK, over stdio and over HTTP."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.approval import ApprovalDecision, Rule
from agent.testing import calls, says
from agent.tools.mcp import connection as mcp
from agent.tools.mcp.connection import McpConnection
from agent.tools.mcp.server import McpServer
from agent.tools.router import ToolRouter
from agent.tools.selection import ToolSelection
from agent.tools.tool import Tool, parameters
from support.agent import hostile_mcp_server, mcp_server
from support.agent.mcp_http import http, mcp_app
from support.agent.pictures import image
from support.agent.processes import until
from support.agent.stage import stage

pytestmark = pytest.mark.anyio

SCRIPT = mcp_server.__file__
HOSTILE = hostile_mcp_server.__file__
STDIO = McpServer("local", command=(sys.executable, SCRIPT))
LEGACY = McpServer("local", command=(sys.executable, SCRIPT, "legacy"))
BOTH = pytest.mark.parametrize("server", [STDIO, LEGACY], ids=["2026", "legacy"])


# -- calls ---------------------------------------------------------------------------------------------------------


@BOTH
async def test_over_stdio(server: McpServer) -> None:
    async with ToolRouter(sources=(McpConnection(server),)) as router:
        assert router.problems == ()
        assert {tool.name for tool in router.tools} >= {"local__add", "local__store"}
        assert (await router.call("local__add", {"a": 40, "b": 2})).output == "42"
        failed = await router.call("local__fail", {})
        assert not failed.success
        assert failed.output == "Error executing tool fail"  # the SDK keeps the details to itself
        picture = await router.call("local__picture", {})
        assert (picture.output, picture.images) == (f"look:\n[image, image/png: {image().description}]", (image(),))
        assert (await router.call("local__rows", {})).output == '2 rows\n{"rows": [1, 2]}'
        wrong = await router.call("local__add", {"a": "x", "b": 2})
        assert "$.a" in wrong.output
        names = (await router.call("local__environment", {})).output.split(",")
        assert "PYTEST_CURRENT_TEST" not in names  # this process's environment is not the server's


async def test_a_call_that_hangs_is_bounded_and_the_server_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "RECONNECT_WAITS", (0.01,))
    server = McpServer("local", command=STDIO.command, timeout=0.2)
    async with ToolRouter(sources=(McpConnection(server),)) as router:
        first = (await router.call("local__process", {})).output
        assert (await router.call("local__wait", {})).output == "local__wait did not finish within 0.2 s."
        assert (await router.call("local__process", {})).output == first  # that server could still be talked to
        monkeypatch.setattr(mcp, "CONNECT_TIMEOUT", 0.5)
        assert not (await router.call("local__hang", {})).success
        await until(lambda: router.problems)
        monkeypatch.setattr(mcp, "CONNECT_TIMEOUT", 30.0)
        await until(lambda: not router.problems)
        assert (await router.call("local__process", {})).output != first


async def test_an_interrupt_ends_a_call() -> None:
    async with ToolRouter(sources=(McpConnection(STDIO),)) as router:
        s = stage(calls(("local__wait", {})), tools=router.tools)
        s.on("tool_call", lambda: asyncio.get_running_loop().call_later(0.05, s.agent.interrupt))
        assert (await s.agent.run_turn("go")).status == "interrupted"
        assert (await router.call("local__add", {"a": 1, "b": 1})).output == "2"


async def test_what_a_server_asks_of_a_model_is_declined() -> None:
    async with ToolRouter(sources=(McpConnection(STDIO),)) as router:
        asked = await router.call("local__think", {})
        assert not asked.success
        assert asked.output == "the MCP server local failed: Sampling not supported"
        assert (await router.call("local__add", {"a": 1, "b": 1})).output == "2"


# -- connections ---------------------------------------------------------------------------------------------------


@BOTH
async def test_a_server_that_dies_in_a_call_is_reported_and_comes_back(
    server: McpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp, "RECONNECT_WAITS", (0.01,))
    async with ToolRouter(sources=(McpConnection(server),)) as router:
        died = await router.call("local__die", {})
        assert died.output == "the MCP server local failed: Connection closed. The server's process exited with status 3."
        await until(lambda: router.problems)
        assert (await router.call("local__add", {"a": 1, "b": 1})).output == "2"


async def test_a_server_that_dies_between_calls_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "RECONNECT_WAITS", (0.01,))
    async with http(mcp_app()) as url:
        port = int(url.split(":")[2].split("/")[0])
        connection = McpConnection(McpServer("remote", url=url))
        await connection.open()
        assert connection.problem is None
    try:
        await until(lambda: connection.problem)
        async with http(mcp_app(), port):
            await until(lambda: connection.problem is None)
    finally:
        await connection.close()


async def test_an_http_server_that_has_forgotten_its_sessions_is_connected_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "RECONNECT_WAITS", (0.01,))
    async with http(mcp_app(legacy=True)) as url:
        port = int(url.split(":")[2].split("/")[0])
        connection = McpConnection(McpServer("remote", url=url))
        router = ToolRouter(sources=(connection,))
        await connection.open()
        assert (await router.call("remote__add", {"a": 1, "b": 1})).output == "2"
    seen: list[dict[str, str]] = []
    try:
        async with http(mcp_app(seen, legacy=True), port):
            assert (await router.call("remote__add", {"a": 1, "b": 1})).output == "2"
            assert any(headers.get("mcp-method") == "server/discover" for headers in seen)
    finally:
        await connection.close()


@BOTH
async def test_a_changed_list_of_tools_is_noticed(server: McpServer) -> None:
    async with ToolRouter(sources=(McpConnection(server),)) as router:
        assert (await router.call("local__grow", {})).success
        await until(lambda: router.get("local__grown"))
        assert (await router.call("local__grown", {})).output == "new"


@pytest.mark.parametrize("legacy", [False, True], ids=["2026", "legacy"])
async def test_a_changed_list_of_tools_is_noticed_over_http(legacy: bool) -> None:
    async with http(mcp_app(legacy=legacy)) as url, ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router:
        assert (await router.call("a__grow", {})).success
        await until(lambda: router.get("a__grown"))


async def test_a_stream_of_changes_that_is_cut_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "LISTEN_WAIT", 0.01)
    app, streams = mcp_app(), []

    async def cutting(scope: Any, receive: Any, send: Any) -> None:
        """As a proxy does with what is silent for long."""
        headers = {name.decode(): value.decode() for name, value in scope.get("headers", ())}
        if headers.get("mcp-method") == "subscriptions/listen":
            task = asyncio.current_task()
            assert task is not None
            streams.append(task)
        await app(scope, receive, send)

    async with http(cutting) as url, ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router:
        await until(lambda: streams)
        streams[0].cancel()
        await until(lambda: len(streams) == 2)
        assert (await router.call("a__grow", {})).success
        await until(lambda: router.get("a__grown"))


async def test_a_missing_server_is_reported_and_the_session_continues() -> None:
    gone = (
        McpConnection(McpServer("absent", url="http://127.0.0.1:9/mcp", headers={"X": "secret-header"})),
        McpConnection(McpServer("missing", command=("/no/such/program",))),
        McpConnection(McpServer("mute", command=("/bin/false",))),
    )
    async with ToolRouter(sources=gone) as router:
        assert [problem.split(":")[0] for problem in router.problems] == [
            f"the MCP server {name} cannot be reached" for name in ("absent", "missing", "mute")
        ]
        assert "/no/such/program" in router.problems[1]
        assert "secret-header" not in repr((router.problems, gone[0].server))
        s = stage(says("hello"))
        assert (await s.agent.run_turn("hi")).status == "complete"


async def test_a_header_that_cannot_be_sent_is_not_told() -> None:
    """The HTTP client quotes it."""
    async with http(mcp_app()) as url:
        server = McpServer("web", url=url, headers={"Authorization": "Bearer secret-token\n"})
        async with ToolRouter(sources=(McpConnection(server),)) as router:
            [problem] = router.problems
    assert "Illegal header value" in problem
    assert "secret-token" not in problem


async def test_a_server_that_never_answers_holds_up_nobody_for_long() -> None:
    silent = McpServer("silent", command=(sys.executable, "-c", "import sys; sys.stdin.read()"), start_timeout=0.2)
    async with ToolRouter(sources=(McpConnection(silent),)) as router:
        assert router.problems == ("the MCP server silent cannot be reached: no answer within 0.2 s",)


async def test_what_is_opened_is_closed_when_opening_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine an interpreter takes seconds to end.
    monkeypatch.setattr("agent.tools.mcp.stdio.EXIT_TIMEOUT", 60)
    monkeypatch.setattr("agent.tools.mcp.connection.CLOSE_TIMEOUT", 60)
    begun = tmp_path / "begun"
    # It begins with the first message: before that its start may not be over, and asyncio kills what is given up then.
    begins = f"import sys; sys.stdin.readline(); open({str(begun)!r}, 'w').close()"
    silent = f"{begins}; sys.stdin.read(); open({str(begun)!r}, 'w').write('ended')"
    router = ToolRouter(sources=(McpConnection(McpServer("silent", command=(sys.executable, "-c", silent))),))
    opening = asyncio.create_task(router.__aenter__())
    await until(begun.exists)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await until(lambda: begun.read_text() == "ended")  # one that was killed never says so


# -- headers -------------------------------------------------------------------------------------------------------


async def test_headers_go_to_their_server_alone() -> None:
    first: list[dict[str, str]] = []
    second: list[dict[str, str]] = []
    async with http(mcp_app(first)) as one, http(mcp_app(second)) as two:
        sources = (
            McpConnection(McpServer("one", url=one, headers={"Authorization": "Bearer one"}, allow=("add", "store"))),
            McpConnection(McpServer("two", url=two, deny=("s*",))),
        )
        async with ToolRouter(sources=sources, selections=[ToolSelection(deny=("*__die",))]) as router:
            names = {tool.name for tool in router.tools}
            assert {"one__add", "one__store", "two__add"} <= names
            assert not {"one__fail", "two__store", "two__die"} & names
            assert (await router.call("one__add", {"a": 1, "b": 2})).output == "3"
            assert (await router.call("two__add", {"a": 1, "b": 2})).output == "3"
    assert {headers.get("authorization") for headers in first} == {"Bearer one"}
    assert {headers.get("authorization") for headers in second} == {None}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_headers_do_not_follow_a_redirect_to_another_server(status: int) -> None:
    stolen: list[dict[str, str]] = []
    async with http(mcp_app(stolen)) as thief:

        async def redirecting(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                location = [(b"location", thief.encode())]
                await send({"type": "http.response.start", "status": status, "headers": location})
                await send({"type": "http.response.body"})

        async with http(redirecting) as url:
            server = McpServer("one", url=url, headers={"Authorization": "Bearer one"})
            async with ToolRouter(sources=(McpConnection(server),)) as router:
                assert "edirect" in router.problems[0]
    assert stolen == []


# -- approval ------------------------------------------------------------------------------------------------------


async def test_what_does_not_say_that_it_only_reads_needs_consent() -> None:
    async with ToolRouter(sources=(McpConnection(STDIO),)) as router:
        reads, writes = ("local__add", {"a": 1, "b": 2}), ("local__store", {"text": "x"})
        s = stage(calls(reads, writes), says("done"), tools=router.tools)
        assert (await s.agent.run_turn("go")).status == "awaiting_approval"
        [pending] = s.agent.pending_approvals
        assert (pending.tool, pending.arguments) == ("local__store", {"text": "x"})
        assert pending.reason == "the MCP server local does not say that store only reads"
        edited = ApprovalDecision(pending.tool_call_id, True, arguments={"text": "y"})
        assert (await s.agent.decide([edited])).status == "complete"
        assert s.data("tool_output")[-1]["output"].endswith("stored y")


async def test_rules_apply_to_a_servers_tools_by_name_and_by_argument() -> None:
    rules = (
        Rule("local__store", "deny", {"text": "secret*"}, reason="that is secret"),
        Rule("local__store", "allow"),
        Rule("local__a?d", "ask", {"a": "1"}),
    )
    async with ToolRouter(sources=(McpConnection(STDIO),)) as router:
        wanted = calls(
            ("local__store", {"text": "secret plan"}),
            ("local__store", {"text": "x"}),
            ("local__add", {"a": 2, "b": 2}),
            ("local__add", {"a": 1, "b": 2}),
        )
        s = stage(wanted, says("done"), tools=router.tools, rules=rules)
        assert (await s.agent.run_turn("go")).status == "awaiting_approval"
        assert [d["output"] for d in s.data("tool_output")] == [
            "This call is not allowed: that is secret. It was not run.",
            "stored x",
            "4",
        ]
        assert [p.arguments for p in s.agent.pending_approvals] == [{"a": 1, "b": 2}]


# -- hostile servers -----------------------------------------------------------------------------------------------


async def test_a_servers_tool_never_replaces_a_builtin() -> None:
    async def call(_: dict[str, Any]) -> str:
        return "builtin"

    builtins = tuple(Tool(name, "", parameters(), call) for name in ("bash", "local__add"))
    servers = (McpConnection(STDIO), McpConnection(McpServer("hostile", command=(sys.executable, HOSTILE))))
    async with ToolRouter(builtins, sources=servers) as router:
        assert (await router.call("local__add", {})).output == "builtin"
        assert (await router.call("bash", {})).output == "builtin"
        assert (await router.call("hostile__bash", {})).output == "bash {}"


async def test_what_a_hostile_server_offers_breaks_nothing() -> None:
    asked: list[str] = []

    async def fetched(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            asked.append(scope["path"])
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})

    async with http(fetched) as address:
        hostile = McpServer("hostile", command=(sys.executable, HOSTILE, address))
        async with ToolRouter(sources=(McpConnection(hostile),)) as router:
            assert router.problems == (
                "the MCP server hostile has 211 tools, and the first 100 are offered; allow only those that are needed",
            )
            definitions = [tool.definition()["function"] for tool in router.tools]
            assert len(definitions) == 100
            assert len({d["name"] for d in definitions}) == 100
            assert len(json.dumps(definitions)) < 40_000
            same = sorted(d["name"] for d in definitions if "same" in d["name"])
            long = sorted(d["name"] for d in definitions if "long" in d["name"])
            assert [(await router.call(name, {})).output for name in same] == ["same_name {}", "same.name {}"]
            assert {(await router.call(name, {})).output for name in long} == {f"{'long' * 30}{n} {{}}" for n in (1, 2)}
            for name in ("no_schema", "any_of", "refers", "circular"):
                assert (await router.call(f"hostile__{name}", {"a": 1})).output == f"{name} {{'a': 1}}"
            broken = await router.call("hostile__breaks_its_word", {})
            assert broken.output == json.dumps({"question": "?" * 10_000})
    assert asked == []


async def test_a_server_may_change_its_tools_while_it_offers_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "MAX_TOOLS", 3)
    server = McpServer("local", command=STDIO.command, allow=("add", "grow", "grown", "store"), deny=("store",))
    async with ToolRouter(sources=(McpConnection(server),)) as router:
        assert router.problems == ()
        monkeypatch.setattr(mcp, "MAX_TOOLS", 2)
        assert (await router.call("local__grow", {})).success
        await until(lambda: router.problems)
        assert len(router.tools) == 2


def test_a_server_has_either_a_url_or_a_command() -> None:
    with pytest.raises(ValueError, match="the MCP server odd needs either a url or a command"):
        McpServer("odd")
    with pytest.raises(ValueError, match="the MCP server odd needs either a url or a command"):
        McpServer("odd", url="http://127.0.0.1/mcp", command=("x",))
