"""The command line of the session runtime.

Importing the server takes most of a second, so the port is bound first: an early client waits in the backlog and is
not refused. For the same reason this module imports late, and each command imports only its own part.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from session_runtime.agent_assembly import OpenModel

DESCRIPTION = """\
Run one agent session and serve it over HTTP. The session is read from the environment variable AGENTSESSION_CONFIG
(JSON of session_runtime.wire.SessionConfig), as the operator sets it; credentials are the variables that begin with
AGENTSESSION_CREDENTIAL_. Other commands: `chat`, `export` and `import`, each with its own --help."""

STUCK_PEER_MILLISECONDS = 60_000
"""A client that takes nothing for so long loses its connection (TCP_USER_TIMEOUT, see tcp(7))."""

MAX_FILES = 16_384
"""Limit on open files; each client connection takes one."""

SEND_BUFFER = 128 * 1024
"""Bytes that the kernel keeps for a client that does not take them (SO_SNDBUF, which Linux doubles). Left alone it would
grow to 4 MiB for each, on the container's account."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["chat"]:
        from session_runtime.client.chat import main as chat

        return chat(given[1:])
    if given[:1] in (["export"], ["import"]):
        from session_runtime.archive.command import main as archive

        return archive(given[0], given[1:])
    return run(given)


def run(arguments: Sequence[str], open_model: OpenModel | None = None) -> int:
    """Run the session of this container. `open_model` makes its model; None means one that litellm knows."""
    # The kernel ignores signals to process 1 that have no handler, and the imports take their time.
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    options = _parser().parse_args(arguments)
    _allow_many_files()
    listener = bind(options.port, STUCK_PEER_MILLISECONDS)
    gc.disable()  # nothing that an import makes is garbage, and looking for it takes a tenth of the start
    # Only now: the port is bound.
    from pydantic import ValidationError

    from agent.redaction import Redactor
    from session_runtime import process, wire
    from session_runtime.agent_assembly import litellm_model
    from session_runtime.credentials import secret_values
    from session_runtime.reporting import console
    from session_runtime.session.store_errors import StoreError

    console.set_up_logging(Redactor(secret_values(os.environ)))
    try:
        config = wire.config_from_environment(os.environ)
    except (KeyError, ValidationError) as error:
        print(f"{wire.CONFIG_ENV} does not contain a valid session: {error}", file=sys.stderr)
        return 2
    gc.enable()
    surroundings = process.Options(
        options.state_dir, options.workspace_socket, options.session_end, options.report_token, options.termination_log
    )
    try:
        session = process.serve(listener, config, surroundings, open_model or litellm_model)
        return asyncio.new_event_loop().run_until_complete(session)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1


def bind(port: int, stuck_peer_milliseconds: int) -> socket.socket:
    """Listen on all addresses of this host. A client that is stuck cannot hold its connection indefinitely."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    listener = socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=1024)
    # Accepted sockets inherit both.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stuck_peer_milliseconds)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    listener.setblocking(False)
    return listener


def _allow_many_files() -> None:
    """Each client is an open file, and the usual limit of 1024 is only a default: systemd's documentation asks programs that
    need more to raise it themselves (systemd.exec(5), LimitNOFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Version(argparse.Action):
    """argparse's own action takes the version when the parser is made: importlib.metadata is slow before the port is bound."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        print(f"session_runtime {metadata.version('agentsession-operator')}", flush=True)
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m session_runtime", description=DESCRIPTION)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    # The defaults are those of session_runtime.wire, which is too slow to import before the port is bound.
    parser.add_argument("--port", type=int, default=8080, help="TCP port (%(default)s)")
    parser.add_argument(
        "--state-dir", type=Path, default=Path("/var/lib/agentsession"), help="the session's database (%(default)s)"
    )
    parser.add_argument(
        "--workspace-socket",
        type=Path,
        default=Path("/run/agentsession/workspace.sock"),
        help="socket of the workspace server (%(default)s)",
    )
    parser.add_argument(
        "--session-end",
        type=Path,
        default=Path("/run/agentsession-end/ended"),
        help="file to create when the session has ended, for the workspace server (%(default)s)",
    )
    parser.add_argument(
        "--report-token",
        type=Path,
        default=Path("/var/run/secrets/agentsession.dev/token"),
        help="file with the token for reports to the operator (%(default)s)",
    )
    parser.add_argument(
        "--termination-log",
        type=Path,
        default=Path("/dev/termination-log"),
        help="file for the last report (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that wait for a model's or the operator's server must not hold up the end of a session that is saved.
    os._exit(status)
