"""Rendering the chart, and finding things in the result."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "agentsession"
NAMESPACE = "somewhere"
KUBE_VERSION = "1.34.0"
"""Given each time: a helm that was built from source takes the cluster for 1.20."""

Objects = list[dict[str, Any]]
Helm = Callable[..., subprocess.CompletedProcess[str]]
Render = Callable[..., Objects]


def template(helm: Helm, *values: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`helm template` with `--set` values; `key:=JSON` sets what a plain `--set` cannot say."""
    arguments = ["template", "release", str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBE_VERSION]
    for value in values:
        name, json_assignment, json = value.partition(":=")
        arguments += ["--set-json", f"{name}={json}"] if json_assignment else ["--set", value]
    done = helm(*arguments)
    assert done.returncode == 0 or not check, done.stderr
    return done


def objects(text: str) -> Objects:
    """The objects in a stream of YAML documents."""
    return [item for item in yaml.safe_load_all(text) if item is not None]


def is_hook(item: dict[str, Any]) -> bool:
    """Whether Helm creates it only while it uninstalls."""
    return "helm.sh/hook" in item["metadata"].get("annotations", {})


def only(items: Objects, kind: str, name: str) -> dict[str, Any]:
    """The one object of this kind and name."""
    (found,) = [item for item in items if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    """A Deployment's only container."""
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found
