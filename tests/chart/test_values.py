"""values.yaml says what every value is, and values.schema.json refuses what is wrong by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.rendered import CHART, Helm, template

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# Objects that a person fills in as a whole; what is inside is Kubernetes'.
WHOLE = {"resources", "spec"}


def paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict) and name not in WHOLE:
            yield from paths(value, f"{prefix}{name}.")


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node


def schema_paths(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, child in resolved(node).get("properties", {}).items():
        if prefix + name in ("global", "quota"):  # Helm's own; what templates/check-values.yaml refuses
            continue
        yield prefix + name
        if name not in WHOLE:
            yield from schema_paths(child, f"{prefix}{name}.")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("image.operator.pullPolicy=always", "/image/operator/pullPolicy"),
        ("image.runtime.tag=a:b", "/image/runtime/tag"),
        ("image.localModel.repository=", "/image/localModel/repository"),
        ("image.agent.tag=dev", "agent"),
        ("imagePullSecrets=key", "/imagePullSecrets"),
        ("operator.logLevel=debug", "/operator/logLevel"),
        ("operator.replicas=2", "replicas"),
        ("operator.resources.request.cpu=1", "request"),
        ('operator.tolerations:=[{"effect": "Never"}]', "/operator/tolerations/0/effect"),
        ("localModel.enabled=yes", "/localModel/enabled"),
        ("userPolicy.enabled=1", "/userPolicy/enabled"),
        ("podPolicy.enabled=1", "/podPolicy/enabled"),
        ("networkPolicy.metricsFrom=all", "/networkPolicy/metricsFrom"),
        ("defaultClass.spec.agent.modell=x", "modell"),
        ("defaultClass.spec.models[0].baseURL=ftp://x", "/defaultClass/spec/models/0/baseURL"),
        ("defaultClass.spec.agent.maxIterations=0", "/defaultClass/spec/agent/maxIterations"),
        ("localmodel.enabled=true", "localmodel"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm: Helm, value: str, named: str) -> None:
    done = template(helm, value, check=False)
    assert done.returncode != 0
    assert named in done.stderr
    assert "schema" in done.stderr


@pytest.mark.parametrize("value", ["quota.enabled=false", "quota.maxSessions=50", "quota:={}"])
def test_a_quota_of_an_older_release_is_refused_with_advice(helm: Helm, value: str) -> None:
    done = template(helm, value, check=False)
    assert done.returncode != 0
    for advice in ("installs no SessionQuota", "docs/quotas.md", "helm.sh/resource-policy=keep", "--set quota=null"):
        assert advice in done.stderr
    template(helm, "quota:=null")


def test_an_older_kubernetes_is_refused(helm: Helm) -> None:
    done = helm("template", "release", str(CHART), "--kube-version", "1.30.0")
    assert done.returncode != 0
    assert "kubeVersion" in done.stderr


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    assert sorted(paths(VALUES)) == sorted(schema_paths(SCHEMA))


def test_every_value_is_explained() -> None:
    """A comment above each, but for the images: the first one explains the fields of the others."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        key = re.match(r"^( *)([A-Za-z]+):", line)
        if key is None or line.strip().startswith("#"):
            continue
        if key.group(2) in {"requests", "limits", "cpu", "memory"} or re.match(r"^    (repository|tag|pullPolicy):", line):
            continue
        assert lines[number - 1].strip().startswith("#"), f"values.yaml:{number + 1}: {line.strip()} is not explained"


def test_every_value_is_used() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for path in paths(VALUES):
        if path.startswith("image.") and path.count(".") == 2:
            assert f".image.{path.rsplit('.', 1)[-1]}" in templates or path.endswith(".pullPolicy"), path
        elif not any(other.startswith(f"{path}.") for other in paths(VALUES)):
            assert f".Values.{path}" in templates, path
