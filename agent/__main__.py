"""`python -m agent`: the agent in a terminal, working in a local folder."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from agent.config import AgentConfig
from agent.conversation import Conversation
from agent.model import LiteLLMModel
from agent.plan import plan_tool
from agent.terminal import Terminal
from agent.tools.hub import HubSettings, hub_tools
from agent.tools.mcp import McpConnection, McpServer
from agent.tools.research import research_tool
from agent.tools.router import ToolRouter
from agent.tools.selection import ToolSelection
from agent.tools.web_fetch import web_fetch_tool
from agent.tools.workspace import workspace_tools
from agent.workspace import LocalWorkspace

EXAMPLES = """\
examples:
  OPENAI_API_KEY=… python -m agent --model gpt-4o
  python -m agent --model smollm2 --base-url http://127.0.0.1:8000/v1 --deny '*'
  python -m agent --model anthropic/claude-sonnet-4-5 --workdir ~/project --prompt 'Why does the test fail?'

in the chat:
  /undo      take back the last thing you said, and what came of it
  /compact   shorten the conversation
  /usage     tokens and cost so far
  /tools     the tools the model can call
  /model X   go on with another model
  /quit      leave (as does the end of input); Ctrl-C interrupts a turn
"""

SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
"""An environment variable with one of these in its name is taken for a secret."""


def main() -> int:
    arguments = parse(sys.argv[1:])
    logging.basicConfig(level=logging.WARNING)
    try:
        return asyncio.run(chat(arguments))
    except KeyboardInterrupt:
        return 130


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line as a value."""
    parser = argparse.ArgumentParser(
        prog="python -m agent",
        description="Talk to an agent that works in a local folder. What it runs, it runs as you: there is no sandbox.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="model name, as litellm knows it")
    parser.add_argument("--base-url", help="address of an OpenAI-compatible server")
    parser.add_argument("--workdir", type=Path, default=Path(), help="folder to work in (default: the current one)")
    parser.add_argument("--prompt", help="one turn, then exit: 0 when it completed, 1 when not")
    parser.add_argument("--instructions", help="added to the system message")
    parser.add_argument("--session", type=Path, help="file to keep the conversation in, and to resume it from")
    parser.add_argument("--deny", action="append", default=[], metavar="GLOB", help="tools that are not offered")
    parser.add_argument(
        "--mcp", action="append", default=[], metavar="NAME=URL", type=mcp_server, help="an MCP server (repeatable)"
    )
    arguments = parser.parse_args(argv)
    if not arguments.workdir.is_dir():
        parser.error(f"--workdir: {arguments.workdir} is not a folder")
    return arguments


def mcp_server(text: str) -> McpServer:
    """`NAME=URL` as a server."""
    name, equals, url = text.partition("=")
    if not (name and equals and url.startswith(("http://", "https://"))):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=URL")
    return McpServer(name, url=url)


def split_environment(environment: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What commands may see, and the values of what looks like a secret, which they may not."""
    secret = {name for name in environment if any(word in name.upper() for word in SECRET_WORDS)}
    visible = {name: value for name, value in environment.items() if name not in secret}
    return visible, tuple(environment[name] for name in sorted(secret))


async def chat(arguments: argparse.Namespace) -> int:
    visible, secrets = split_environment(os.environ)
    config = AgentConfig(
        model=arguments.model,
        base_url=arguments.base_url,
        instructions=arguments.instructions,
        secrets=secrets,
    )
    workspace = LocalWorkspace(arguments.workdir.resolve(), visible)
    hub = hub_tools(HubSettings.from_credentials(os.environ), workspace)
    tools = (*workspace_tools(workspace), plan_tool(), web_fetch_tool(), research_tool(), *hub)
    servers = [McpConnection(server) for server in arguments.mcp]
    selection = ToolSelection(deny=tuple(arguments.deny))
    async with ToolRouter(tools, sources=servers, selections=[selection]) as router:
        for problem in router.problems:
            print(problem, file=sys.stderr)
        terminal = Terminal(config, lambda name: LiteLLMModel(name, base_url=config.base_url), router, load(arguments.session))
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, terminal.interrupt)
        try:
            return await (terminal.one_turn(arguments.prompt) if arguments.prompt else terminal.chat())
        finally:
            if arguments.session is not None:
                save(arguments.session, terminal.conversation)


def load(session: Path | None) -> Conversation | None:
    """The conversation of an earlier run, None when there was none."""
    if session is None or not session.exists():
        return None
    return Conversation.from_json(session.read_text())


def save(session: Path, conversation: Conversation) -> None:
    """Keep the conversation, readable for its owner only."""
    temporary = session.with_name(f"{session.name}.new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(conversation.to_json())
    temporary.replace(session)


if __name__ == "__main__":
    sys.exit(main())
