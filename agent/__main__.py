"""`python -m agent`: the agent in a terminal, working in a local folder."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import get_args

from agent.approval import Rule
from agent.budget import Budget
from agent.config import AgentConfig
from agent.conversation import Conversation
from agent.model.model import LiteLLMModel
from agent.reasoning import ReasoningEffort
from agent.redaction import SURROGATE, Redactor
from agent.secret_values import secret_parts
from agent.terminal.session_file import SessionFile, SessionFileError
from agent.terminal.terminal import COMMANDS, Terminal, visible
from agent.tools.hub import HubSettings, hub_tools
from agent.tools.mcp.connection import McpConnection
from agent.tools.mcp.server import McpServer, OAuthClient
from agent.tools.plan import plan_tool
from agent.tools.research import research_tool
from agent.tools.router import ToolRouter
from agent.tools.selection import ToolSelection
from agent.tools.web_fetch import web_fetch_tool
from agent.tools.workspace import workspace_tools
from agent.workspace.local import LocalWorkspace

EXAMPLES = f"""\
examples:
  OPENAI_API_KEY=… python -m agent --model openai/gpt-5-mini
  python -m agent --model smollm2 --base-url http://127.0.0.1:8000/v1 --deny '*'
  python -m agent --model anthropic/claude-sonnet-4-5 --workdir ~/project --prompt 'Why does the test fail?'
  python -m agent --model openai/gpt-5-mini --session ~/talk.json --ask bash \\
    --mcp 'files=npx -y @modelcontextprotocol/server-filesystem .' \\
    --mcp hub=https://huggingface.co/mcp --mcp-secret hub=HF_TOKEN --approve 'hub__*'

in the chat:
{COMMANDS}
"""

SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
"""An environment variable with one of these in its name is taken for a secret."""


class OneLine(logging.Formatter):
    """One line per record: failures are reported in the conversation, so it needs no traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return f"[{visible(record.getMessage().partition(chr(10))[0])}]"


def main() -> int:
    arguments = parse(sys.argv[1:])
    set_up_logging()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a model's characters are not all in every encoding
    try:
        return asyncio.run(chat(arguments))
    except SessionFileError as error:
        print(f"python -m agent: --session: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line as a value."""
    parser = argparse.ArgumentParser(
        prog="python -m agent",
        description="Talk to an agent that works in a local folder. Its commands run as you: there is no sandbox.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"%(prog)s {metadata.version('agentsession-operator')}")
    add("--model", required=True, help="model name as in litellm (PROVIDER/NAME)")
    add("--base-url", type=url, metavar="URL", help="address of an OpenAI-compatible server")
    add("--workdir", type=Path, default=Path(), metavar="DIR", help="folder to work in (default: the current one)")
    add("--prompt", type=words, help="run one turn and exit: 0 if it completed, 1 if not; calls that need consent are denied")
    add("--reasoning-effort", choices=get_args(ReasoningEffort), help="how much the model thinks, if it supports that")
    add("--images", action=argparse.BooleanOptionalAction, help="the model takes images (default: what litellm knows of it)")
    add("--instructions", type=words, metavar="TEXT", help="added to the system message")
    add("--session", type=Path, metavar="FILE", help="save the conversation here after every step, and resume it from here")
    add("--max-iterations", type=positive, default=300, metavar="N", help="model calls in one turn (default: %(default)s)")
    add("--budget-usd", type=amount, metavar="USD", help="limit of what the conversation may cost, counting known prices")
    add("--auto-approve-usd", type=amount, metavar="USD", help="run calls of a known price without asking, up to this total")
    many = {"action": "append", "default": [], "metavar": "GLOB"}
    add("--allow", **many, help="offer only these tools (repeatable)")  # type: ignore[arg-type]
    add("--deny", **many, help="do not offer these tools (repeatable)")  # type: ignore[arg-type]
    add("--ask", **many, help="ask before each call of these tools (repeatable)")  # type: ignore[arg-type]
    add("--approve", **many, help="run these tools without asking (repeatable)")  # type: ignore[arg-type]
    add(
        "--mcp",
        action="append",
        default=[],
        metavar="NAME=URL|COMMAND",
        type=mcp_server,
        help="an MCP server: an HTTP address, or a command to run; its tools are named NAME__TOOL (repeatable)",
    )
    add(
        "--mcp-secret",
        action="append",
        default=[],
        metavar="NAME=VARIABLE",
        help="pass this environment variable only to this MCP server; over HTTP, as a bearer token (repeatable)",
    )
    add(
        "--mcp-oauth",
        action="append",
        default=[],
        nargs=3,
        metavar=("NAME=ISSUER", "ID", "SECRET"),
        help="get this MCP server's access tokens from an authorization server; ID and SECRET name environment variables with "
        "the client's id, and its secret or private key in PEM (repeatable)",
    )
    arguments = parser.parse_args(argv)
    if not arguments.workdir.is_dir():
        parser.error(f"--workdir: {arguments.workdir} is not a folder")
    try:
        arguments.mcp = with_secrets(arguments.mcp, arguments.mcp_secret, os.environ)
        arguments.mcp = with_oauth(arguments.mcp, arguments.mcp_oauth, os.environ)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def url(text: str) -> str:
    """An address over HTTP."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} does not start with http:// or https://")
    return text


def words(text: str) -> str:
    """Something that can be said to a model."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the text is empty")
    if SURROGATE.search(text):  # which stand for bytes that are no text (PEP 383)
        raise argparse.ArgumentTypeError("the text is not UTF-8")
    return text


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def amount(text: str) -> float:
    """Dollars."""
    try:
        value = float(text.removeprefix("$"))
    except ValueError:
        value = -1
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount in dollars")
    return value


def mcp_server(text: str) -> McpServer:
    """`NAME=URL` or `NAME=COMMAND ARGUMENTS` as a server."""
    name, _, where = text.partition("=")
    if not name or not where.strip() or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=URL or NAME=COMMAND")
    if where.startswith(("http://", "https://")):
        return McpServer(name, url=where)
    try:
        return McpServer(name, command=tuple(shlex.split(where)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def with_secrets(servers: list[McpServer], secrets: list[str], environment: Mapping[str, str]) -> list[McpServer]:
    """The servers, each with the secrets (`NAME=VARIABLE`) that are meant for it. Raises ValueError."""
    by_name = {server.name: server for server in servers}
    if len(by_name) < len(servers):
        raise ValueError("--mcp: two servers have the same name")
    for secret in secrets:
        name, _, variable = secret.partition("=")
        if name not in by_name or not variable:
            raise ValueError(f"--mcp-secret: {secret!r} is not NAME=VARIABLE with the NAME of an --mcp")
        if variable not in environment:
            raise ValueError(f"--mcp-secret: the environment variable {variable!r} is not set")
        server, value = by_name[name], environment[variable].strip()  # what comes from a file may end with a line break
        if server.url is None:
            by_name[name] = replace(server, environment={**server.environment, variable: value})
        else:
            by_name[name] = replace(server, headers={"Authorization": f"Bearer {value}"})
    return list(by_name.values())


def with_oauth(
    servers: list[McpServer], clients: list[tuple[str, str, str]], environment: Mapping[str, str]
) -> list[McpServer]:
    """The servers, each with the client that is registered at its authorization server. Raises ValueError."""
    by_name = {server.name: server for server in servers}
    for where, *variables in clients:
        name, _, issuer = where.partition("=")
        if name not in by_name or by_name[name].url is None or not issuer.startswith(("http://", "https://")):
            raise ValueError(f"--mcp-oauth: {where!r} is not NAME=ISSUER with the NAME of an --mcp with an address")
        if missing := [variable for variable in variables if variable not in environment]:
            raise ValueError(f"--mcp-oauth: the environment variable {missing[0]!r} is not set")
        client_id, secret = (environment[variable].strip() for variable in variables)
        is_key = secret.startswith("-----BEGIN")
        client = OAuthClient(issuer, client_id, None if is_key else secret, secret if is_key else None)
        by_name[name] = replace(by_name[name], oauth=client)
    return list(by_name.values())


def split_environment(environment: Mapping[str, str], given_away: Iterable[str] = ()) -> tuple[dict[str, str], tuple[str, ...]]:
    """What commands may see, and the keys in the rest, to be masked: in what is named like a secret or `given_away` as one."""
    secret = {name for name in environment if any(word in name.upper() for word in SECRET_WORDS)} | set(given_away)
    visible = {name: value for name, value in environment.items() if name not in secret}
    return visible, tuple(part for name in sorted(secret) for part in secret_parts(name, environment[name]))


def agent_config(arguments: argparse.Namespace, secrets: tuple[str, ...]) -> AgentConfig:
    """The command line as the agent takes it. A rule that asks goes before one that does not."""
    rules = [Rule(glob, "ask") for glob in arguments.ask] + [Rule(glob, "allow") for glob in arguments.approve]
    return AgentConfig(
        model=arguments.model,
        base_url=arguments.base_url,
        reasoning_effort=arguments.reasoning_effort,
        images=arguments.images,
        instructions=arguments.instructions,
        max_iterations=arguments.max_iterations,
        rules=tuple(rules),
        auto_approve_usd=arguments.auto_approve_usd,
        budget=Budget(cost_usd=arguments.budget_usd),
        somebody_answers=arguments.prompt is None,
        secrets=secrets,
    )


async def chat(arguments: argparse.Namespace) -> int:
    given_away = [secret.partition("=")[2] for secret in arguments.mcp_secret]
    given_away += [variable for _, *variables in arguments.mcp_oauth for variable in variables]
    visible, secrets = split_environment(os.environ, given_away)
    config = agent_config(arguments, secrets)
    file = None if arguments.session is None else SessionFile(arguments.session)
    conversation = file.load() if file is not None else None
    if file is not None:
        file.save(conversation or Conversation())  # report a file that cannot be written before the work starts
    workspace = LocalWorkspace(arguments.workdir.resolve(), visible)
    hub = hub_tools(HubSettings.from_credentials(os.environ), workspace)
    tools = (*workspace_tools(workspace, Redactor(secrets)), plan_tool(), web_fetch_tool(), research_tool(), *hub)
    servers = [McpConnection(server) for server in arguments.mcp]
    selection = ToolSelection(tuple(arguments.allow) or ("*",), tuple(arguments.deny))
    async with ToolRouter(tools, sources=servers, selections=[selection]) as router:
        terminal = Terminal(
            config,
            lambda name: LiteLLMModel(
                name, base_url=config.base_url, reasoning_effort=config.reasoning_effort, images=config.images
            ),
            router,
            conversation,
            save=keeper(file),
            editor=os.environ.get("VISUAL") or os.environ.get("EDITOR") or None,
        )
        handle_signals(terminal.interrupt)
        return await (terminal.one_turn(arguments.prompt) if arguments.prompt else terminal.chat())


def handle_signals(interrupt: Callable[[], None]) -> None:
    """The terminal handles Ctrl-C. Signals that end the process end its commands first: they are not the shell's children."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt)
    for end in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(end) is not signal.SIG_IGN:  # nohup
            loop.add_signal_handler(end, leave, end)


def leave(end: signal.Signals) -> None:
    raise SystemExit(128 + end)


def keeper(file: SessionFile | None) -> Callable[[Conversation], None]:
    """Return a function that saves the conversation. A full disk is reported, and the conversation continues."""

    def save(conversation: Conversation) -> None:
        if file is None:
            return
        try:
            file.save(conversation)
        except SessionFileError as error:
            print(f"[{error}]", file=sys.stderr)

    return save


def set_up_logging() -> None:
    """Show the agent's own warnings, one line each. Warnings of libraries do not help the user."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.CRITICAL, handlers=[handler])
    logging.getLogger("agent").setLevel(logging.WARNING)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


if __name__ == "__main__":
    sys.exit(main())
