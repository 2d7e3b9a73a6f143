"""Creates clusters and says whether one is healthy."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from . import binaries, images, kubeconfig
from .api import Api, ApiError
from .errors import ClusterError
from .machine import cgroups, network, packages, teardown
from .machine.addresses import Family, allocate, used_networks
from .machine.certs import make_all, wanted
from .machine.node import PRIVATE_DIRECTORIES, Node, config_files, private_directory, specification
from .objects import access, dns, storage_class
from .progress import say, step
from .report import ended_processes, explain
from .settings import ENTRY_POINT, KUBERNETES_VERSION, check_name, clusters_root
from .state import Layout, ProcessId, State, load, lock, names, save, write_atomically

_LOCK_SECONDS = 2700.0
_API_SECONDS = 60.0
_POLL = 0.03


def layout_of(name: str) -> Layout:
    """Where the cluster of this name has, or would have, its files."""
    return Layout(clusters_root() / check_name(name))


def name_lock(name: str) -> Path:
    return clusters_root() / ".locks" / f"{name}.lock"


def running(name: str) -> tuple[Layout, State]:
    """The layout and state of a healthy cluster; raises ClusterError when there is none."""
    layout = layout_of(name)
    state = load(layout)
    if not layout.directory.exists():
        raise ClusterError(f"there is no cluster '{name}'", f"Create it: {ENTRY_POINT} create cluster --name {name}")
    problems = health(layout, state)
    if problems or state is None:
        raise broken(name, problems)
    return layout, state


def broken(name: str, problems: list[str]) -> ClusterError:
    """The error for a cluster that exists but does not work."""
    return ClusterError(
        f"cluster '{name}' exists but is broken: {'; '.join(problems) or 'its state is lost'}",
        f"Delete it and create it again: {ENTRY_POINT} delete cluster --name {name}",
    )


def health(layout: Layout, state: State | None) -> list[str]:
    """What is wrong with a cluster; empty if nothing."""
    if state is None:
        return ["its state file is missing or unreadable"]
    if not state.running():
        return ["its processes are gone (the machine restarted, or they were killed)"]
    if state.phase != "ready":
        return ["its creation did not finish"]
    ended = ended_processes(layout)
    if ended:
        return [f"{name} ended with {code}" for name, code in ended.items()]
    api = Api(state.plan.node_ip, state.plan.api_port, layout.certificates, "admin", timeout=5)
    try:
        api.request("GET", "/readyz")
        if not state.control_plane_only and not _node_ready(api, f"{state.name}-control-plane"):
            return ["its node is not Ready"]
    except (OSError, ApiError) as error:
        return [f"its API server does not answer ({error})"]
    finally:
        api.close()
    return []


def check_system(control_plane_only: bool, family: Family = "ipv4") -> None:
    """Refuses what cannot work, with what would."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise ClusterError(
            f"no native cluster on {sys.platform} {platform.machine()}", "Install Docker and kind; this command uses them."
        )
    if os.geteuid() != 0:
        raise ClusterError(
            "a cluster without Docker needs root (namespaces, mounts, cgroups)",
            "Run the same command with sudo -E, or install Docker and kind.",
        )
    if not control_plane_only and not cgroups.available():
        raise ClusterError("no cgroups are mounted below /sys/fs/cgroup", "Mount them, or use --control-plane-only.")
    if family == "ipv6" and not network.ipv6_available():
        raise ClusterError(
            "networking.ipFamily is ipv6, and this machine has no IPv6",
            "Switch it on: `sysctl -w net.ipv6.conf.all.disable_ipv6=0`; a kernel started with ipv6.disable=1 needs a restart.",
        )


def create(
    name: str,
    kubeconfig_path: Path,
    *,
    control_plane_only: bool = False,
    family: Family = "ipv4",
    wait_seconds: float = 120.0,
    retain: bool = False,
) -> None:
    """Creates the cluster, or says that it is there and healthy; returns when pods can run and names resolve."""
    check_system(control_plane_only, family)
    layout = layout_of(name)
    with lock(name_lock(name), f"creating or deleting cluster '{name}'", _LOCK_SECONDS):
        if layout.directory.exists():
            _reuse(name, layout, kubeconfig_path, control_plane_only, family)
            return
        prepare(control_plane_only)
        start = time.monotonic()
        try:
            _create(_claim(name, layout, control_plane_only, family), layout, wait_seconds)
            _write_kubeconfig(name, layout, kubeconfig_path)
        except BaseException as error:
            if isinstance(error, ClusterError):
                explain(layout)
            if retain:
                say(f"   kept as it is: {layout.directory}")
            else:
                kept = _keep_logs(layout)
                teardown.remove(layout, name)
                say(f"   cleaned up; logs are in {kept}")
            raise
        say(f" ✓ cluster '{name}', Kubernetes {KUBERNETES_VERSION}: ready {time.monotonic() - start:.1f} s after its start")


def prepare(control_plane_only: bool = False) -> None:
    """Installs packages and builds programs where they are missing; without Docker, all that a cluster needs."""
    packages.install(packages.missing(control_plane_only))
    binaries.ensure(*(binaries.CONTROL_PLANE if control_plane_only else binaries.NODE))
    binaries.kubectl()


def write_kubeconfig(name: str, path: Path) -> None:
    """Adds a running cluster to a kubeconfig."""
    layout, _ = running(name)
    _write_kubeconfig(name, layout, path)


def node_of(layout: Layout, state: State) -> Node:
    """The rendering's input for a cluster; also for one that runs."""
    control_plane_only = state.control_plane_only
    programs = binaries.ensure(*(binaries.CONTROL_PLANE if control_plane_only else binaries.NODE))
    programs |= {"python3": Path(sys.executable), "kind": ENTRY_POINT}
    return Node(state.name, state.plan, layout, programs, control_plane_only, snapshotter(layout.directory))


def snapshotter(directory: Path) -> str:
    """overlayfs, or plain copies where the directory is itself on an overlay, which cannot be stacked."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    result = subprocess.run(["stat", "--file-system", "--format=%T", str(existing)], capture_output=True, text=True, timeout=10)
    return "native" if result.stdout.strip() == "overlayfs" else "overlayfs"


def _reuse(name: str, layout: Layout, kubeconfig_path: Path, control_plane_only: bool, family: Family) -> None:
    state = load(layout)
    problems = health(layout, state)
    if state is None or problems:
        raise broken(name, problems)
    if state.control_plane_only and not control_plane_only:
        raise ClusterError(
            f"cluster '{name}' has a control plane only, no node",
            f"Delete it first: {ENTRY_POINT} delete cluster --name {name}",
        )
    if state.family != family:
        raise ClusterError(
            f"cluster '{name}' exists with networking.ipFamily {state.family}, and {family} is asked for",
            f"Delete it first: {ENTRY_POINT} delete cluster --name {name}",
        )
    _write_kubeconfig(name, layout, kubeconfig_path)
    say(f" ✓ cluster '{name}' already exists and is healthy; kubeconfig written to {kubeconfig_path}")


def _write_kubeconfig(name: str, layout: Layout, path: Path) -> None:
    state = load(layout)
    if state is None:
        raise broken(name, [])
    kubeconfig.add(path, name, kubeconfig.render(name, state.plan, layout.certificates), binaries.kubectl())


def _create(state: State, layout: Layout, wait_seconds: float) -> None:
    node = node_of(layout, state)
    _write_files(node)
    with step("starting the control plane", "4 s"):
        state = _start(node, state)
        make_all(layout.certificates, wanted(node.plan, node.node_name))
        (layout.run / "certificates").touch()
        background = None if state.control_plane_only else _Background(lambda: _load_sandbox_image(node))
        _wait(layout, state, "the API server", lambda: (layout.run / "api").exists(), _API_SECONDS)
    api = Api(node.plan.node_ip, node.plan.api_port, layout.certificates, "bootstrap")
    try:
        for path, manifest in access():
            api.apply(path, manifest)
        (layout.run / "rbac").touch()
        with step("waiting for the node, cluster DNS and the default service account", "3 s"):
            _wait_until_usable(api, node, state, wait_seconds)
        if background:
            background.result(60)
    finally:
        api.close()
    save(layout, replace(state, phase="ready"))


def _claim(name: str, layout: Layout, control_plane_only: bool, family: Family) -> State:
    """Takes addresses that no other cluster and nothing on the host uses."""
    root = clusters_root()
    with lock(root / ".locks" / ".addresses.lock", "taking addresses", 30):
        states = [load(Layout(root / other)) for other in names(root)]
        taken = {state.index for state in states if state} | network.taken_interfaces()
        plan = allocate(taken, used_networks(network.networks_in_use()), family)
        if not control_plane_only:
            teardown.make_host_directories(root)
        layout.directory.mkdir(mode=0o700)
        state = State(name, plan.index, control_plane_only, "creating", family=family)
        save(layout, state)
    return state


def _write_files(node: Node) -> None:
    layout = node.layout
    for directory in (layout.config / "cni", layout.logs, layout.extra, layout.directory / "volumes"):
        directory.mkdir(parents=True)
    (layout.directory / "etcd").mkdir(mode=0o700)
    if not node.control_plane_only:
        layout.directory.chmod(0o711)  # pods of other users reach volumes and their own root file systems below it
        for path in PRIVATE_DIRECTORIES:
            private_directory(layout, path).mkdir(parents=True)
        cgroups.create(node.name)
    for file, text in config_files(node).items():
        write_atomically(layout.config / file, text)
    write_atomically(teardown.specification_file(layout), json.dumps(specification(node), indent=1))


def _start(node: Node, state: State) -> State:
    """Starts process 1 in namespaces of its own and connects them to the host."""
    layout = node.layout
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave"]
    command += [sys.executable, "-I", str(ENTRY_POINT), "_node", str(teardown.specification_file(layout))]
    with (layout.logs / "node.log").open("ab") as log:
        launcher = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    state = replace(state, launcher=ProcessId.of(launcher.pid))
    save(layout, state)
    end = time.monotonic() + 20
    while not (layout.run / "started").exists():
        if launcher.poll() is not None or time.monotonic() > end:
            raise ClusterError(
                "the cluster's namespaces could not be set up",
                f"See {layout.logs / 'node.log'}; unshare(1) needs the rights to make PID, mount and network namespaces.",
            )
        time.sleep(0.01)
    init = teardown.child_of(launcher.pid)
    state = replace(state, init=ProcessId.of(init) if init else None)
    save(layout, state)
    network.connect(node.plan, launcher.pid)
    return state


def _load_sandbox_image(node: Node) -> None:
    busybox = packages.static_busybox()
    if busybox is None:
        raise ClusterError("no static busybox", "apt-get install busybox-static")
    archive = node.layout.directory / "sandbox.tar"
    images.write_sandbox_archive(archive, busybox)
    end = time.monotonic() + 30
    while not node.layout.containerd_socket.exists():
        if time.monotonic() > end:
            raise ClusterError("containerd did not start", f"See {node.layout.logs / 'containerd.log'}.")
        time.sleep(_POLL)
    images.import_archive(node.layout, archive, node.snapshotter)


def _wait_until_usable(api: Api, node: Node, state: State, seconds: float) -> None:
    """Waits until a pod that is created now would start, and names would resolve in it."""
    layout, end = node.layout, time.monotonic() + seconds

    def applied(path: str, manifest: dict[str, object]) -> bool:
        try:
            api.apply(path, manifest)
        except ApiError as error:
            if error.status in (404, 403):  # kube-system is made a moment after the API server is ready
                return False
            raise
        return True

    for path, manifest in [] if node.control_plane_only else [*dns(node.plan), storage_class()]:
        _wait(layout, state, path, lambda p=path, m=manifest: applied(p, m), end - time.monotonic())  # type: ignore[misc]
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    _wait(layout, state, "the default service account", lambda: _exists(api, account), end - time.monotonic())
    if node.control_plane_only:
        return
    _wait(layout, state, "the node", lambda: _node_ready(api, node.node_name), end - time.monotonic())
    name = "kubernetes.default.svc.cluster.local"
    _wait(layout, state, "cluster DNS", lambda: network.resolves(node.plan.dns_ip, name), end - time.monotonic())


def _wait(layout: Layout, state: State, what: str, probe: Callable[[], bool], seconds: float) -> None:
    """Waits for the probe; gives up at once when a process of the cluster ended."""
    end = time.monotonic() + seconds
    while not probe():
        ended = ended_processes(layout)
        if ended:
            raise ClusterError(f"while waiting for {what}: {', '.join(f'{k} ended with {v}' for k, v in ended.items())}")
        if not state.running():
            raise ClusterError(f"while waiting for {what}: the cluster's process 1 ended", "See node.log below.")
        if time.monotonic() > end:
            raise ClusterError(f"{what} was not ready after {seconds:.0f} s", "A longer time: --wait 5m.")
        time.sleep(_POLL)


def _exists(api: Api, path: str) -> bool:
    try:
        api.request("GET", path)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def _node_ready(api: Api, name: str) -> bool:
    try:
        node = api.request("GET", f"/api/v1/nodes/{name}")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    conditions = node.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _keep_logs(layout: Layout) -> Path:
    """Moves a failed cluster's logs out of its directory, over those of the failure before."""
    kept = clusters_root() / ".failed" / layout.directory.name
    shutil.rmtree(kept, ignore_errors=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    if layout.logs.exists():
        shutil.copytree(layout.logs, kept)
    return kept


class _Background:
    """One call on a thread of its own, whose error is raised where its result is asked for."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._error: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # raised again by result()
            self._error = error

    def result(self, timeout: float) -> None:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise ClusterError("the sandbox image was not loaded in time", "See containerd.log.")
        if self._error:
            raise self._error
