"""The chart, rendered. No cluster: what the API server says of it is for the tests of the API and the end-to-end tests."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
from types import ModuleType

import pytest

from support.rendered import ROOT, Helm, Objects, Render, objects, template


@pytest.fixture(scope="session")
def helm_path() -> str:
    """$HELM, or the helm that comes with the test cluster, which builds it where it is missing."""
    if named := os.environ.get("HELM"):
        return named
    command = [str(ROOT / "tools" / "cluster" / "kind"), "bin", "helm"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@pytest.fixture(scope="session")
def helm(helm_path: str) -> Helm:
    """Runs helm."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([helm_path, *arguments], check=False, capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """Renders the chart with `--set` values; the objects."""

    def run(*values: str) -> Objects:
        return objects(template(helm, *values).stdout)

    return run


@pytest.fixture(scope="session")
def everything(render: Render) -> Objects:
    """All that the chart can make."""
    return render("localModel.enabled=true", "networkPolicy.enabled=true")


@pytest.fixture(scope="session")
def renderer() -> ModuleType:
    """manifests/render as a module."""
    loader = importlib.machinery.SourceFileLoader("manifests_render", str(ROOT / "manifests" / "render"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
