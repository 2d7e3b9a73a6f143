"""Command line of the operator."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
import uuid
from importlib import metadata

from kubernetes.aio.config import ConfigException

from agentsession_operator.api import names
from agentsession_operator.api.meta import SESSION_FINALIZER, SESSIONS
from agentsession_operator.cluster import token_key
from agentsession_operator.cluster.kube import ApiError, Connection, KubeApi, path_of
from agentsession_operator.control.release_pods import NotReleased, release_pods
from agentsession_operator.process import Operator, Options, PartDied
from agentsession_operator.reports.listener import ALL_ADDRESSES


def parser() -> argparse.ArgumentParser:
    """The command line. Most options can also be set as environment variables, which their help names."""
    root = argparse.ArgumentParser(prog="agentsession-operator", description="Runs AgentSessions under quotas.")
    root.add_argument("--version", action="version", version=f"%(prog)s {metadata.version('agentsession-operator')}")
    root.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"), help="default: the pod's service account")
    root.add_argument(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE", "agentsession-system"),
        help="the operator's own namespace, which holds its lease and its key (default: $POD_NAMESPACE, agentsession-system)",
    )
    commands = root.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the operator", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    run.add_argument("--runtime-image", default=os.environ.get("RUNTIME_IMAGE"), help="image of session pods ($RUNTIME_IMAGE)")
    run.add_argument("--image-pull-policy", default=os.environ.get("IMAGE_PULL_POLICY", "IfNotPresent"))
    run.add_argument("--report-url", default=os.environ.get("REPORT_URL"), help="base URL for pods' reports ($REPORT_URL)")
    run.add_argument("--http-host", default=ALL_ADDRESSES, help="address to serve on; :: is every IPv4 and IPv6 address")
    run.add_argument("--http-port", type=int, default=8080, help="port for health, metrics and reports")
    run.add_argument(
        "--identity",
        default=os.environ.get("POD_UID") or f"{socket.gethostname()}-{uuid.uuid4()}",
        help="holder name in the lease; must differ between processes that run at the same time ($POD_UID)",
    )
    run.add_argument("--log-level", default=os.environ.get("LOG_LEVEL", "INFO"), choices=["DEBUG", "INFO", "WARNING"])
    token = commands.add_parser("token", help="print the bearer token of a session's API")
    token.add_argument("session", metavar="NAMESPACE/NAME")
    release = commands.add_parser(
        "release-pods",
        help="before uninstalling: stop the operator and remove its finalizer from all session pods",
        description="Scales the operator's Deployment to 0, waits until its pods are gone, and removes the finalizer "
        f"{SESSION_FINALIZER} from all session pods. They keep running, and can be deleted without the operator. "
        "Exits 1 and names the pods that are left if that takes too long.",
    )
    release.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="deadline for all of it (default: %(default)s)"
    )
    return root


def main() -> None:
    """Entry point. Exits with status 1 and a message if it cannot continue."""
    arguments = parser().parse_args()
    try:
        if arguments.command == "token":
            print(asyncio.run(_token(arguments)))
        elif arguments.command == "release-pods":
            asyncio.run(_release_pods(arguments))
        else:
            _require(arguments)
            _set_up_logging(arguments.log_level)
            asyncio.run(_run(arguments))
    except (ApiError, ConfigException, token_key.UnusableKey, PartDied, NotReleased) as error:
        sys.exit(f"agentsession-operator: {error}")


def _require(arguments: argparse.Namespace) -> None:
    for option in ("runtime_image", "report_url"):
        if not getattr(arguments, option):
            flag = option.replace("_", "-")
            sys.exit(f"agentsession-operator: --{flag} (or ${option.upper()}) is required; `run --help` lists the options")


def _set_up_logging(level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # kopf logs every event and every attempt to connect. What matters of that is in our own log and metrics.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)


async def _run(arguments: argparse.Namespace) -> None:
    options = Options(
        namespace=arguments.namespace,
        identity=arguments.identity,
        runtime_image=arguments.runtime_image,
        image_pull_policy=arguments.image_pull_policy,
        report_url=arguments.report_url.rstrip("/"),
        kubeconfig=arguments.kubeconfig,
        http_host=arguments.http_host,
        http_port=arguments.http_port,
    )
    if arguments.kubeconfig:
        os.environ["KUBECONFIG"] = arguments.kubeconfig  # kopf looks nowhere else
    await Operator(options, await Connection.open(arguments.kubeconfig)).run()


async def _token(arguments: argparse.Namespace) -> str:
    namespace, _, name = arguments.session.partition("/")
    if not name:
        sys.exit("agentsession-operator: name the session as NAMESPACE/NAME")
    connection = await Connection.open(arguments.kubeconfig)
    # Without the lease: the only write is the creation of the key, if no operator has run yet, and the first creation wins.
    api = KubeApi(connection, may_write=lambda: None)
    try:
        session = await api.get(path_of(SESSIONS, namespace, name))
        return names.bearer_token(await token_key.read_or_create(api, arguments.namespace), session["metadata"]["uid"])
    finally:
        await connection.close()


async def _release_pods(arguments: argparse.Namespace) -> None:
    connection = await Connection.open(arguments.kubeconfig)
    # Without the lease: it stops the operator first, which is the only other client that writes to these pods' metadata.
    api = KubeApi(connection, may_write=lambda: None)
    try:
        await release_pods(api, arguments.namespace, timeout=arguments.timeout, report=lambda line: print(line, flush=True))
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
