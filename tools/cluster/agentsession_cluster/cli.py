"""The command line: kind's own, and a few commands that only this project's tests need."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from . import backend, binaries, fake_nodes, images, kind_config, kubeconfig, lifecycle, report
from .api import Api
from .errors import ClusterError
from .machine import node_init, teardown, volumes
from .progress import say, step
from .settings import KUBERNETES_VERSION, cache_dir, check_name, clusters_root
from .state import load, lock, names

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_ABOUT = """\
A local Kubernetes cluster behind kind's command line.

Where Docker answers and kind is installed, kind does the work. Elsewhere this command builds Kubernetes {version}
from its published Go modules (once, about 8 minutes on 2 cores; kept in {cache}) and runs it
natively: etcd, the control plane, containerd, a kubelet, kube-proxy, CoreDNS and a default StorageClass, in
namespaces of their own, so that several clusters can run at once and deleting one leaves nothing behind.
"""

_MORE = """\
environment:
  KIND_CLUSTER_NAME              the default of --name
  KUBECONFIG                     the default of --kubeconfig (its first file)
  AGENTSESSION_CACHE_DIR         where built programs stay (default ~/.cache/agentsession)
  AGENTSESSION_CLUSTER_ROOT      where clusters keep their state (default /var/lib/agentsession-cluster)
  AGENTSESSION_CLUSTER_BACKEND   kind or native; unset: kind where Docker answers and kind is installed
  AGENTSESSION_USE_CURRENT_CLUSTER=1
                                 this project's tests and demo then use the cluster that KUBECONFIG names, and do not
                                 call this command at all; without it they never touch a cluster that they did not make
"""


def main(arguments: list[str]) -> int:
    """Runs one command; returns the exit code: 0, 1 for a failure, 2 for a wrong call, 130 when interrupted."""
    try:
        parsed = parser().parse_args(arguments)
        run: Callable[[argparse.Namespace], int | None] = parsed.run
        kind = _hands_over(parsed)
        if kind:
            sys.stdout.flush()
            os.execv(kind, [kind, *arguments])  # noqa: S606  (becomes kind)
        return run(parsed) or 0
    except ClusterError as error:
        say(f"error: {error}")
        return error.exit_code
    except PermissionError as error:
        say(f"error: {error}\n  Run the same command with sudo -E.")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def parser() -> argparse.ArgumentParser:
    """kind's grammar; `kinds` marks what kind understands as well."""
    top = argparse.ArgumentParser(
        prog="kind",
        description=_ABOUT.format(version=KUBERNETES_VERSION, cache=cache_dir()),
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    create = _verb(verbs, "create", "create a cluster, or fake nodes in one")
    cluster = _noun(create, "cluster", "create a cluster; says so if it is there and healthy", _create, kinds=True)
    _name(cluster)
    _kubeconfig(cluster)
    cluster.add_argument("--image", help="kind's node image; a native cluster has one version and says so")
    cluster.add_argument(
        "--config", help="kind's cluster configuration; a native cluster takes networking.ipFamily (ipv4 or ipv6) from it"
    )
    cluster.add_argument("--wait", type=seconds, default=120.0, help="how long to wait, e.g. 60s or 5m (default 2m)")
    cluster.add_argument("--retain", action="store_true", help="keep a cluster whose creation failed")
    cluster.add_argument(
        "--control-plane-only", action="store_true", help="native: etcd and the control plane, no node; for API tests"
    )
    fakes = _noun(create, "fake-nodes", "native: nodes that kwok plays, for scale tests", _fake_nodes)
    _name(fakes)
    fakes.add_argument("--count", type=int, default=20, help="how many nodes (default 20)")
    fakes.add_argument("--pods", type=int, default=250, help="how many pods each takes (default 250)")

    delete = _verb(verbs, "delete", "delete a cluster")
    cluster = _noun(delete, "cluster", "delete a cluster with all that it left", _delete, kinds=True)
    _name(cluster)
    _kubeconfig(cluster)

    get = _verb(verbs, "get", "clusters, a kubeconfig or nodes")
    _noun(get, "clusters", "names of clusters, one a line", _get_clusters, kinds=True)
    config = _noun(get, "kubeconfig", "a cluster's kubeconfig on standard output", _get_kubeconfig, kinds=True)
    _name(config)
    config.add_argument("--internal", action="store_true", help="kind's; a native cluster has one address")
    _name(_noun(get, "nodes", "names of a cluster's nodes", _get_nodes, kinds=True))

    load_verb = _verb(verbs, "load", "load images into a cluster")
    loaded = _noun(load_verb, "docker-image", "load images from Docker, or from buildah", _load_image, kinds=True)
    loaded.add_argument("images", nargs="+", metavar="IMAGE")
    _name(loaded)
    loaded = _noun(load_verb, "image-archive", "load docker or OCI archives", _load_archive, kinds=True)
    loaded.add_argument("archives", nargs="+", metavar="FILE", type=Path)
    _name(loaded)

    export = _verb(verbs, "export", "logs or a kubeconfig")
    logs = _noun(export, "logs", "copy a cluster's logs", _export_logs, kinds=True)
    logs.add_argument("directory", nargs="?", type=Path, help="where to (default: a new directory)")
    _name(logs)
    config = _noun(export, "kubeconfig", "add a cluster to a kubeconfig", _export_kubeconfig, kinds=True)
    _name(config)
    _kubeconfig(config)

    _noun(verbs, "version", "print the version", _version, kinds=True)
    prepare = _noun(verbs, "prepare", "install packages and build programs, so that create is quick", _prepare)
    prepare.add_argument("--control-plane-only", action="store_true", help="only what API tests need")
    program = _noun(verbs, "bin", "print the path of a program; builds it where it is missing", _bin)
    program.add_argument("program", choices=sorted(binaries.TOOLS))
    internal = _noun(verbs, "_node", "", _node_process)
    internal.add_argument("specification", type=Path)
    internal = _noun(verbs, "_volumes", "", _volumes_process)
    for option in ("--host", "--node"):
        internal.add_argument(option, required=True)
    internal.add_argument("--port", required=True, type=int)
    for option in ("--certificates", "--directory"):
        internal.add_argument(option, required=True, type=Path)
    return top


def seconds(text: str) -> float:
    """A duration as Go writes it: 90s, 5m, 1m30s, 500ms, or 0."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if (text != "0" and "".join(number + unit for number, unit in parts) != text) or not text:
        raise argparse.ArgumentTypeError(f"'{text}' is no duration; write 90s or 5m")
    return sum(float(number) * units[unit] for number, unit in parts)


def _verb(verbs: _Subparsers, name: str, about: str) -> _Subparsers:
    verb = verbs.add_parser(name, help=about, description=about, allow_abbrev=False)
    return verb.add_subparsers(title="commands", required=True, metavar="COMMAND")


def _noun(
    verb: _Subparsers,
    name: str,
    about: str,
    run: Callable[[argparse.Namespace], int | None],
    *,
    kinds: bool = False,
) -> argparse.ArgumentParser:
    if about:
        command = verb.add_parser(name, help=about, description=about, allow_abbrev=False)
    else:
        command = verb.add_parser(name, allow_abbrev=False)  # ours alone: not in --help
    command.add_argument("-q", "--quiet", action="store_true", help=argparse.SUPPRESS)
    command.add_argument("-v", "--verbosity", help=argparse.SUPPRESS)
    command.set_defaults(run=run, kinds=kinds)
    return command


def _name(command: argparse.ArgumentParser) -> None:
    default = os.environ.get("KIND_CLUSTER_NAME") or "kind"
    command.add_argument("-n", "--name", default=default, help=f"the cluster's name (default {default})")


def _kubeconfig(command: argparse.ArgumentParser) -> None:
    command.add_argument("--kubeconfig", type=Path, help="the kubeconfig to change (default $KUBECONFIG or ~/.kube/config)")


def _hands_over(parsed: argparse.Namespace) -> str | None:
    """kind's path if this command is kind's to do: not for a native cluster that exists, nor for one asked for."""
    if not parsed.kinds or getattr(parsed, "control_plane_only", False):
        return None
    name = getattr(parsed, "name", None)
    if name is not None and name in names(clusters_root()):
        return None
    return backend.kind_command()


def _create(parsed: argparse.Namespace) -> None:
    if parsed.image:
        say(f"   --image is for kind with Docker; this native cluster is Kubernetes {KUBERNETES_VERSION}, one node")
    wanted = kind_config.read(parsed.config, binaries.kubectl()) if parsed.config else kind_config.Config()
    for field in wanted.ignored:
        say(f"   {parsed.config}: {field} is for kind with Docker and has no effect on a native cluster of one node")
    path = parsed.kubeconfig or kubeconfig.default_path()
    lifecycle.create(
        check_name(parsed.name),
        path,
        control_plane_only=parsed.control_plane_only,
        family=wanted.family,
        wait_seconds=parsed.wait or 120.0,
        retain=parsed.retain,
    )


def _delete(parsed: argparse.Namespace) -> None:
    layout = lifecycle.layout_of(parsed.name)
    if layout.directory.exists():
        lifecycle.check_system(control_plane_only=True)
        with (
            lock(lifecycle.name_lock(parsed.name), f"creating or deleting cluster '{parsed.name}'", 600),
            step(f"deleting cluster '{parsed.name}'", "1 s"),
        ):
            teardown.remove(layout, parsed.name)
    else:
        say(f"there is no cluster '{parsed.name}'")
    path = parsed.kubeconfig or kubeconfig.default_path()
    if path.exists():
        kubeconfig.remove(path, parsed.name, binaries.kubectl())


def _get_clusters(_: argparse.Namespace) -> None:
    found = names(clusters_root())
    if not found:
        say("No kind clusters found.")  # kind's own words, on its own stream
    for name in found:
        print(name)


def _get_kubeconfig(parsed: argparse.Namespace) -> None:
    layout, state = lifecycle.running(parsed.name)
    print(kubeconfig.render(parsed.name, state.plan, layout.certificates), end="")


def _get_nodes(parsed: argparse.Namespace) -> None:
    layout, state = lifecycle.running(parsed.name)
    api = Api(state.plan.node_ip, state.plan.api_port, layout.certificates, "admin")
    for node in api.request("GET", "/api/v1/nodes")["items"]:
        print(node["metadata"]["name"])
    api.close()


def _load_image(parsed: argparse.Namespace) -> None:
    layout, state = lifecycle.running(parsed.name)
    _needs_node(parsed.name, state.control_plane_only)
    images.load_named(layout, parsed.images, lifecycle.snapshotter(layout.directory))


def _load_archive(parsed: argparse.Namespace) -> None:
    layout, state = lifecycle.running(parsed.name)
    _needs_node(parsed.name, state.control_plane_only)
    for archive in parsed.archives:
        with step(f"loading {archive}", "5 s a 100 MB"):
            loaded = images.import_archive(layout, archive, lifecycle.snapshotter(layout.directory))
        say(f"   images: {', '.join(loaded)}")


def _needs_node(name: str, control_plane_only: bool) -> None:
    if control_plane_only:
        raise ClusterError(f"cluster '{name}' has no node to load images into", "Create it without --control-plane-only.")


def _export_logs(parsed: argparse.Namespace) -> None:
    layout = lifecycle.layout_of(parsed.name)
    if load(layout) is None:
        raise ClusterError(f"there is no cluster '{parsed.name}'", "`get clusters` shows those that exist.")
    directory = parsed.directory or Path(tempfile.mkdtemp(prefix=f"{parsed.name}-logs-"))
    report.export(layout, directory)
    print(directory)


def _export_kubeconfig(parsed: argparse.Namespace) -> None:
    lifecycle.write_kubeconfig(parsed.name, parsed.kubeconfig or kubeconfig.default_path())


def _fake_nodes(parsed: argparse.Namespace) -> None:
    fake_nodes.create(parsed.name, parsed.count, parsed.pods)


def _version(_: argparse.Namespace) -> None:
    print(f"kind v0.30.0 (agentsession's native cluster, Kubernetes {KUBERNETES_VERSION})")


def _prepare(parsed: argparse.Namespace) -> None:
    lifecycle.check_system(parsed.control_plane_only)
    lifecycle.prepare(parsed.control_plane_only)


def _bin(parsed: argparse.Namespace) -> None:
    path = binaries.kubectl() if parsed.program == "kubectl" else binaries.ensure(parsed.program)[parsed.program]
    print(path)


def _node_process(parsed: argparse.Namespace) -> int:
    return node_init.main(parsed.specification)


def _volumes_process(parsed: argparse.Namespace) -> None:
    def connect() -> Api:
        return Api(parsed.host, parsed.port, parsed.certificates, "volumes", timeout=60)

    volumes.Provisioner(connect, parsed.node, parsed.directory).run()
