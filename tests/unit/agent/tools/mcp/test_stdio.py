"""Servers over stdio that write what they should not, or exit."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.tools.mcp import stdio, wire
from agent.tools.mcp.connection import McpConnection
from agent.tools.mcp.server import McpServer
from agent.tools.router import ToolRouter
from support.agent import mcp_server
from support.agent.canned_mcp import stdio_command, tools
from support.agent.processes import until

pytestmark = pytest.mark.anyio

ANSWERS = {"tools/list": tools("odd", "good"), "tools/call": '{"content":[{"type":"text","text":"fine"}]}'}


def canned(folder: Path, *, timeout: float = 60.0, **raw: bytes) -> ToolRouter:
    """A server that writes `raw` bytes to stdout before it answers a call of the tool of that name."""
    server = McpServer("a", command=stdio_command(folder, ANSWERS, **raw), timeout=timeout)
    return ToolRouter(sources=(McpConnection(server),))


def script(text: str, **environment: str) -> McpServer:
    return McpServer("a", command=(sys.executable, "-c", text), environment=environment)


@pytest.mark.parametrize(
    "raw",
    [b"caf\xe9 is served\n", b"starting up\n\n  \n", b'{"level": "info"}\n', b"\xff" * 100_000 + b"\n"],
    ids=["latin-1", "log lines", "JSON log", "binary"],
)
async def test_lines_that_are_no_messages_are_skipped(tmp_path: Path, raw: bytes) -> None:
    async with canned(tmp_path, odd=raw) as router:
        assert (await router.call("a__odd", {})).output == "fine"
        assert (await router.call("a__good", {})).output == "fine"
        assert router.problems == ()


async def test_a_byte_that_is_not_utf_8_in_an_answer_is_replaced(tmp_path: Path) -> None:
    answer = b'{"jsonrpc":"2.0","id":<id>,"result":{"content":[{"type":"text","text":"caf\xe9"}]}}\n'
    async with canned(tmp_path, odd=answer) as router:
        assert (await router.call("a__odd", {})).output == "caf\ufffd"
        assert (await router.call("a__good", {})).output == "fine"


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (b'{"jsonrpc":"2.0","id":<id>,"result":"', b'"}'),
        (b'{"result":"', b'","jsonrpc":"2.0","id":<id>}'),
        (b'{"result":"', b'"}'),
    ],
    ids=["id first", "id last", "no id"],
)
async def test_a_line_that_is_too_large_fails_its_call_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes, end: bytes
) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER", 1_000_000)
    async with canned(tmp_path, odd=begin + b"x" * 1_500_000 + end + b"\n") as router:
        failed = await router.call("a__odd", {})
        assert not failed.success
        assert "its answer is larger than 1000000 bytes" in failed.output
        assert (await router.call("a__good", {})).output == "fine"


async def test_an_answer_that_is_broken_json_fails_its_call(tmp_path: Path) -> None:
    async with canned(tmp_path, odd=b'{"jsonrpc":"2.0","result":{"content":[}\n') as router:
        failed = await router.call("a__odd", {})
        assert "its answer is not a JSON-RPC message" in failed.output
        assert (await router.call("a__good", {})).output == "fine"


def test_an_endless_line_takes_no_more_memory_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER", 100_000)
    lines = stdio._Lines()
    for _ in range(100):
        assert list(lines.feed(b"x" * 65_536)) == []
        assert len(lines._line) <= 100_000
    [(kept, whole)] = lines.feed(b"y\n")
    assert kept.endswith(b"xy")
    assert not whole
    assert list(lines.feed(b"ok\n")) == [(b"ok", True)]


async def test_a_server_that_exits_at_once_says_why() -> None:
    dying = "import sys; print('no database at db:5432', file=sys.stderr); sys.exit(7)"
    async with ToolRouter(sources=(McpConnection(script(dying)),)) as router:
        [problem] = router.problems
    assert problem.startswith("the MCP server a cannot be reached")
    assert "exited with status 7. The end of its stderr: no database at db:5432" in problem


async def test_a_server_that_dies_in_a_call_says_why() -> None:
    text = "import os, runpy, sys; sys.argv = ['x']; os.write(2, b'key ' + os.environb[b'KEY'] + b' is refused')\n"
    text += f"runpy.run_path({mcp_server.__file__!r}, run_name='__main__')"
    async with ToolRouter(sources=(McpConnection(script(text, KEY="a-secret-key")),)) as router:
        died = await router.call("a__die", {})
        assert "The server's process exited with status 3. The end of its stderr: key" in died.output
        assert "is refused" in died.output
        await until(lambda: router.problems)
        assert "a-secret-key" not in died.output + "".join(router.problems)


async def test_only_the_end_of_much_stderr_is_kept() -> None:
    text = "import sys; sys.stderr.write('x' * 3_000_000 + ' at last'); sys.exit(1)"
    async with ToolRouter(sources=(McpConnection(script(text)),)) as router:
        [problem] = router.problems
    assert problem.endswith("x at last")
    assert len(problem) < 5_000


async def test_a_server_that_does_not_answer_the_handshake_shows_its_stderr() -> None:
    text = "import sys; print('waiting for a license', file=sys.stderr, flush=True); sys.stdin.read()"
    server = replace(script(text), start_timeout=2.0)
    async with ToolRouter(sources=(McpConnection(server),)) as router:
        [problem] = router.problems
    assert "no answer within 2 s. The end of its stderr: waiting for a license" in problem


async def test_half_a_character_in_the_arguments_is_replaced(tmp_path: Path) -> None:
    async with canned(tmp_path) as router:
        assert (await router.call("a__good", {"text": "\ud83d"})).output == "fine"


async def test_a_server_that_ignores_the_end_of_its_stdin_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stdio, "EXIT_TIMEOUT", 0.2)
    mark = tmp_path / "pid"
    text = f"import os, signal, time; signal.signal(15, signal.SIG_IGN); open({str(mark)!r}, 'w').write(str(os.getpid()))\n"
    text += "while True: time.sleep(1)"
    source = McpConnection(script(text))
    opening = asyncio.create_task(source.open())
    await until(lambda: mark.exists() and mark.read_text())
    await source.close()
    opening.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
