"""The chat, with a pipe for a keyboard; and `python -m agent` as a process."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.__main__ import agent_config, parse, split_environment, with_secrets
from agent.approval import Rule
from agent.budget import Budget
from agent.config import AgentConfig
from agent.terminal.session_file import SessionFile
from agent.terminal.terminal import Terminal
from agent.testing import Reply, ScriptedModel, calls, says
from agent.tools.mcp import McpServer
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, parameters
from unit.agent.openai_server import Answer, serve

pytestmark = pytest.mark.anyio


async def shout(arguments: dict[str, Any]) -> str:
    return str(arguments["text"]).upper()


SHOUT = Tool("shout", "Say it loud. And clear.", parameters("text", text={"type": "string"}), shout)


async def chat(typed: str, *replies: Reply, editor: str | None = None, **settings: Any) -> str:
    """What the screen shows when this is typed."""
    keyboard, hand = os.pipe()
    os.write(hand, typed.encode())
    os.close(hand)
    screen = io.StringIO()
    model = ScriptedModel(*replies)
    config, tools = AgentConfig("scripted", **settings), ToolRouter((SHOUT,))
    terminal = Terminal(config, lambda name: model, tools, source=keyboard, screen=screen, editor=editor)
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
        "there is no command /what; /help lists them",
    ):
        assert expected in screen
    assert "never read" not in screen


async def test_consent_is_asked_for_and_a_refusal_tells_why() -> None:
    ask = (Rule("shout", "ask", reason="it is late"),)
    twice = calls(("shout", {"text": "a"}), ("shout", {"text": "b"}))
    screen = await chat("go\ny\nn the neighbours sleep\n", twice, says("done"), rules=ask)
    assert "it is late" in screen
    assert "  | A\n" in screen
    assert "They said: the neighbours sleep" in screen


async def test_arguments_are_edited_in_the_persons_editor(tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/soft/loud/' \"$2\"\n")
    editor.chmod(0o755)
    ask = (Rule("shout", "ask"),)
    screen = await chat("go\ne\n", calls(("shout", {"text": "soft"})), says("done"), editor=f"{editor} -w", rules=ask)
    assert "  | LOUD\n" in screen


@pytest.mark.parametrize("editor", ["/no/such/editor", "false", "sh -c 'echo nonsense >\"$0\"'", "sh -c 'echo [] >\"$0\"'"])
async def test_an_editor_that_fails_costs_nothing(editor: str) -> None:
    ask = (Rule("shout", "ask"),)
    screen = await chat("go\ne\ny\n", calls(("shout", {"text": "soft"})), says("done"), editor=editor, rules=ask)
    assert "failed: " in screen or "that is not" in screen
    assert "  | SOFT\n" in screen


async def test_who_consents_sees_all_of_a_call_and_nothing_hides_in_it() -> None:
    hidden = "echo fine" + " " * 5000 + "; rm -rf ~\r\x1b[2K\u202e echo fine"
    screen = await chat("go\nn\n\n", calls(("shout", {"text": hidden})), says("ok"), rules=(Rule("shout", "ask"),))
    assert "; rm -rf ~\\u000d\\u001b[2K\\u202e echo fine" in screen


async def test_the_reason_for_a_question_hides_nothing() -> None:
    rules = (Rule("shout", "ask", reason="the server says\r\x1b[2K fine"),)
    screen = await chat("go\nn\n\n", calls(("shout", {"text": "a"})), says("ok"), rules=rules)
    assert "? shout: the server says\\u000d\\u001b[2K fine\n  text: a\n" in screen


async def test_nothing_that_is_shown_gives_orders_to_the_terminal() -> None:
    orders = "\x1b]52;c;c3VkbyBybQ==\x07\x9b2J"
    screen = await chat("go\n", calls(("shout", {"text": orders})), says(f"so {orders}"))
    assert "so \\u001b]52;c;c3VkbyBybQ==\\u0007\\u009b2J" in screen
    assert not re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", screen)


async def test_a_session_file_brings_the_conversation_back(tmp_path: Path) -> None:
    screen = io.StringIO()
    model = ScriptedModel(says("hello"))
    file = SessionFile(tmp_path / "session")
    terminal = Terminal(AgentConfig("scripted"), lambda name: model, ToolRouter(()), save=file.save, screen=screen)
    assert await terminal.one_turn("hi") == 0
    assert (tmp_path / "session").stat().st_mode & 0o777 == 0o600
    conversation = file.load()
    assert conversation is not None
    assert conversation.last_message == "hello"
    assert SessionFile(tmp_path / "none").load() is None


def test_the_options_shape_the_agent() -> None:
    limits = ["--max-iterations", "7", "--budget-usd", "$1.50", "--reasoning-effort", "low"]
    config = agent_config(parse(["--model", "m", *limits, "--approve", "*", "--ask", "bash"]), ("secret",))
    assert (config.max_iterations, config.budget, config.reasoning_effort) == (7, Budget(cost_usd=1.5), "low")
    assert config.rules == (Rule("bash", "ask"), Rule("*", "allow"))  # what asks goes first
    assert config.secrets == ("secret",)


def test_what_looks_like_a_secret_is_kept_from_commands() -> None:
    environment = {"OPENAI_API_KEY": "sk-1\n", "hf_token": "hf-2", "GITHUB_PAT": "pat-3", "PATH": "/bin"}
    visible, secrets = split_environment(environment, given_away=["GITHUB_PAT"])
    assert visible == {"PATH": "/bin"}
    assert set(secrets) == {"sk-1", "hf-2", "pat-3"}


def test_a_folder_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(["--model", "m", "--workdir", "/no/such/folder"])
    assert left.value.code == 2
    assert "/no/such/folder is not a folder" in capsys.readouterr().err


def test_mcp_servers_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    options = parse(["--model", "m", "--mcp", "docs=https://example.org/mcp?a=b", "--mcp", "git=uvx 'mcp git' --x=y"])
    assert options.mcp == [
        McpServer("docs", url="https://example.org/mcp?a=b"),
        McpServer("git", command=("uvx", "mcp git", "--x=y")),
    ]
    with pytest.raises(SystemExit):
        parse(["--model", "m", "--mcp", "https://example.org/mcp"])
    assert "is not NAME=URL or NAME=COMMAND" in capsys.readouterr().err


def test_secrets_go_to_the_server_that_they_are_meant_for() -> None:
    servers = [McpServer("web", url="http://127.0.0.1/mcp"), McpServer("git", command=("x",)), McpServer("c", command=("y",))]
    web, git, other = with_secrets(servers, ["web=A_TOKEN", "git=B_TOKEN"], {"A_TOKEN": "a\n", "B_TOKEN": "b"})
    assert web.headers == {"Authorization": "Bearer a"}
    assert git.environment == {"B_TOKEN": "b"}
    assert (other.headers, other.environment) == ({}, {})
    for wrong, why in (("web", "NAME=VARIABLE"), ("none=A_TOKEN", "NAME=VARIABLE"), ("web=C", "environment variable 'C'")):
        with pytest.raises(ValueError, match=why):
            with_secrets(servers, [wrong], {"A_TOKEN": "a"})
    with pytest.raises(ValueError, match="the same name"):
        with_secrets([*servers, servers[0]], [], {})


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
    assert "[error: the script has no more replies (model scripted)]" in screen.getvalue()


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
    conversation = SessionFile(tmp_path / "session").load()
    assert conversation is not None
    assert conversation.messages[0].content == "hello"
