"""The chat, with a pipe for a keyboard; and `python -m agent` as a process."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.__main__ import load, parse, save, split_environment
from agent.approval import Rule
from agent.config import AgentConfig
from agent.terminal import Terminal
from agent.testing import Reply, ScriptedModel, calls, says
from agent.tools.mcp import McpServer
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, parameters
from unit.agent.openai_server import Answer, serve

pytestmark = pytest.mark.anyio


async def shout(arguments: dict[str, Any]) -> str:
    return str(arguments["text"]).upper()


SHOUT = Tool("shout", "Say it loud. And clear.", parameters("text", text={"type": "string"}), shout)


async def chat(typed: str, *replies: Reply, **settings: Any) -> str:
    """What the screen shows when this is typed."""
    keyboard, hand = os.pipe()
    os.write(hand, typed.encode())
    os.close(hand)
    screen = io.StringIO()
    model = ScriptedModel(*replies)
    terminal = Terminal(
        AgentConfig("scripted", **settings), lambda name: model, ToolRouter((SHOUT,)), source=keyboard, screen=screen
    )
    try:
        assert await terminal.chat() == 0
    finally:
        os.close(keyboard)
    return screen.getvalue()


async def test_a_chat_with_commands() -> None:
    screen = await chat(
        "hello\n/usage\n/tools\n/undo\n/undo\n/compact\n/model\n/what\n\n/quit\nnever read\n",
        calls(("shout", {"text": "hi\nthere"})),
        says("I have shouted."),
    )
    for expected in (
        "* shout hi⏎there",
        "  | HI\n  | THERE",
        "I have shouted.",
        "llm_calls  2",
        "shout  Say it loud",
        "[taken back: hello]",
        "[there is nothing to undo]",
        "[error: the conversation cannot be made any shorter]",
        "the model is scripted",
        "there are /undo",
    ):
        assert expected in screen
    assert "never read" not in screen


async def test_consent_is_asked_for_and_a_refusal_tells_why() -> None:
    ask = (Rule("shout", "ask", reason="it is late"),)
    twice = calls(("shout", {"text": "a"}), ("shout", {"text": "b"}))
    screen = await chat("go\ny\nthe neighbours sleep\n", twice, says("done"), rules=ask)
    assert "it is late" in screen
    assert "  | A\n" in screen
    assert "They said: the neighbours sleep" in screen


async def test_a_session_file_brings_the_conversation_back(tmp_path: Path) -> None:
    screen = io.StringIO()
    model = ScriptedModel(says("hello"))
    terminal = Terminal(AgentConfig("scripted"), lambda name: model, ToolRouter(()), screen=screen)
    assert await terminal.one_turn("hi") == 0
    save(tmp_path / "session", terminal.conversation)
    assert (tmp_path / "session").stat().st_mode & 0o777 == 0o600
    assert load(tmp_path / "session") == terminal.conversation
    assert load(tmp_path / "none") is None


def test_what_looks_like_a_secret_is_kept_from_commands() -> None:
    visible, secrets = split_environment({"OPENAI_API_KEY": "sk-1", "hf_token": "hf-2", "PATH": "/bin"})
    assert visible == {"PATH": "/bin"}
    assert set(secrets) == {"sk-1", "hf-2"}


def test_a_folder_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(["--model", "m", "--workdir", "/no/such/folder"])
    assert left.value.code == 2
    assert "/no/such/folder is not a folder" in capsys.readouterr().err


def test_mcp_servers_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    options = parse(["--model", "m", "--mcp", "docs=https://example.org/mcp?a=b"])
    assert options.mcp == [McpServer("docs", url="https://example.org/mcp?a=b")]
    with pytest.raises(SystemExit):
        parse(["--model", "m", "--mcp", "https://example.org/mcp"])
    assert "is not NAME=URL" in capsys.readouterr().err


async def run(url: str, workdir: Path, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "--model", "some-model", "--base-url", url, "--workdir", str(workdir)),
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "SOME_API_KEY": "sk-very-secret"},
        cwd=Path(__file__).parents[3],
    )


async def test_one_prompt_as_a_process(tmp_path: Path) -> None:
    command = '{"command": "echo key=$SOME_API_KEY. >out; cat out"}'
    asks = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "bash", "arguments": command}}]}
    async with serve(Answer((asks,), "tool_calls"), Answer(({"content": "All done."},))) as server:
        process = await run(server.url, tmp_path, "--prompt", "do it")
        shown, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    assert "All done." in shown.decode()
    assert (tmp_path / "out").read_text() == "key=.\n"


async def test_a_prompt_that_fails_or_needs_consent_has_its_exit_status() -> None:
    screen = io.StringIO()
    model = ScriptedModel(calls(("shout", {"text": "a"})), says("so be it"))
    config = AgentConfig("scripted", rules=(Rule("shout", "ask"),))
    terminal = Terminal(config, lambda name: model, ToolRouter((SHOUT,)), screen=screen)
    assert await terminal.one_turn("go") == 0
    assert "A person denied this call" in screen.getvalue()
    assert await terminal.one_turn("go") == 1
    assert "[error: the script has no more replies]" in screen.getvalue()


async def test_ctrl_c_interrupts_the_turn_and_then_leaves(tmp_path: Path) -> None:
    async with serve(Answer(({"content": "Well, "},), hangs=True)) as server:
        process = await run(server.url, tmp_path, "--session", str(tmp_path / "session"))
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        await asyncio.wait_for(process.stdout.readuntil(b"Well, "), 120)
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.stdout.readuntil(b"[interrupted: by the user]\n\n> "), 10)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 130
        process.stdin.close()
    conversation = load(tmp_path / "session")
    assert conversation is not None
    assert conversation.messages[0].content == "hello"
