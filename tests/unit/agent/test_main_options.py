"""`python -m agent`: what its options mean, and one run with pipes instead of a terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from agent.__main__ import agent_config, parse, split_environment, with_oauth, with_secrets
from agent.approval import Rule
from agent.budget import Budget
from agent.terminal.session_file import SessionFile
from agent.tools.mcp.server import McpServer, OAuthClient
from support.agent.console import ROOT
from support.agent.openai_server import Answer, serve

pytestmark = pytest.mark.anyio


def test_the_options_shape_the_agent() -> None:
    limits = ["--max-iterations", "7", "--budget-usd", "$1.50", "--reasoning-effort", "low"]
    config = agent_config(parse(["--model", "m", *limits, "--approve", "*", "--ask", "bash"]), ("secret",))
    assert (config.max_iterations, config.budget, config.reasoning_effort) == (7, Budget(cost_usd=1.5), "low")
    assert config.rules == (Rule("bash", "ask"), Rule("*", "allow"))  # what asks goes first
    assert config.secrets == ("secret",)
    options = {"--images": True, "--no-images": False, "--ask=x": None}
    assert {option: agent_config(parse(["--model", "m", option]), ()).images for option in options} == options


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


def test_an_oauth_client_belongs_to_a_server_with_an_address() -> None:
    servers = [McpServer("web", url="http://127.0.0.1/mcp"), McpServer("git", command=("x",))]
    environment = {"ID": "me\n", "SECRET": "s3cret", "KEY": "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"}
    web, git = with_oauth(servers, [("web=https://login.example", "ID", "SECRET")], environment)
    assert web.oauth == OAuthClient("https://login.example", "me", "s3cret")
    assert git.oauth is None
    (web, _) = with_oauth(servers, [("web=https://login.example", "ID", "KEY")], environment)
    assert web.oauth is not None
    assert (web.oauth.secret, web.oauth.private_key) == (None, environment["KEY"].strip())
    for where, secret, why in (
        ("git=https://login.example", "SECRET", "with an address"),
        ("none=https://login.example", "SECRET", "with an address"),
        ("web=login.example", "SECRET", "NAME=ISSUER"),
        ("web=https://login.example", "NONE", "environment variable 'NONE'"),
    ):
        with pytest.raises(ValueError, match=why):
            with_oauth(servers, [(where, "ID", secret)], environment)


async def run(url: str, workdir: Path, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "--model", "some-model", "--base-url", url, "--workdir", str(workdir)),
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "SOME_API_KEY": "sk-very-secret"},
        cwd=ROOT,
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
