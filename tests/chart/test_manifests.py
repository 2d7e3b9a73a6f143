"""The committed manifests: generated ones are up to date, and samples fit the kinds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from agentsession_operator.api.objects import SessionClass
from agentsession_operator.api.session import AgentSessionSpec
from agentsession_operator.decisions.resolve import Resolved, resolve
from support.rendered import CHART, ROOT, Objects, Render, is_hook, objects, only

SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))


def definitions() -> dict[str, dict[str, Any]]:
    """Schemas of the kinds, as committed."""
    read = [item for path in (ROOT / "manifests" / "crds").glob("*.yaml") for item in objects(path.read_text())]
    return {
        item["spec"]["names"]["kind"]: item["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for item in read
    }


def check(renderer: ModuleType, item: dict[str, Any]) -> None:
    """Against the schema, and without a field that the API server would drop in silence."""
    jsonschema.Draft202012Validator(renderer.strict(definitions()[item["kind"]])).validate(item["spec"])


def test_generated_files_are_up_to_date(helm_path: str) -> None:
    """Definitions, the chart's copies of them and its values schema, install.yaml, defaults.yaml."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "manifests" / "render"), "--check"],
        env={**os.environ, "HELM": helm_path},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_chart_carries_the_same_definitions() -> None:
    def read(folder: Path) -> dict[str, Objects]:
        return {path.name: objects(path.read_text()) for path in folder.glob("*.yaml")}

    assert read(CHART / "crds") == read(ROOT / "manifests" / "crds")
    assert len(read(CHART / "crds")) == 3


def test_the_plain_installation_holds_what_the_chart_makes(render: Render) -> None:
    plain = objects((ROOT / "manifests" / "install.yaml").read_text())
    defaults = objects((ROOT / "manifests" / "defaults.yaml").read_text())
    assert plain[0]["kind"] == "Namespace"
    named = {(item["kind"], item["metadata"]["name"]) for item in plain + defaults}
    crds = objects("---\n".join(path.read_text() for path in (CHART / "crds").iterdir()))
    made = {(item["kind"], item["metadata"]["name"]) for item in render() + crds if not is_hook(item)}
    assert named == made | {("Namespace", "agentsession-system")}
    assert {item["kind"] for item in defaults} == {"AgentSessionClass"}


def test_the_plain_uninstaller_is_the_charts_hook(render: Render) -> None:
    """The same objects, but for what concerns Helm: the account, its rights, and the Job that uses them."""
    plain = objects((ROOT / "manifests" / "uninstall.yaml").read_text())
    hooks = [item for item in render() if is_hook(item)]
    assert [(item["kind"], item["metadata"]["name"]) for item in plain] == [
        (item["kind"], item["metadata"]["name"]) for item in hooks
    ]
    assert plain[-1]["kind"] == "Job", "what it needs is applied before it"
    for item, hook in zip(plain, hooks, strict=True):
        assert "annotations" not in item["metadata"]
        for part in ("spec", "rules", "roleRef"):
            assert item.get(part) == relabeled(hook.get(part))


def test_the_uninstallers_header_says_what_the_documentation_says() -> None:
    documented = (ROOT / "docs" / "uninstall.md").read_text()
    header = (ROOT / "manifests" / "uninstall.yaml").read_text().partition("---")[0]
    commands = [line.removeprefix("#").strip() for line in header.splitlines() if line.startswith("#   kubectl")]
    assert len(commands) == 3
    assert "\n".join(f"    {command}" for command in commands) in documented


def relabeled(part: Any) -> Any:
    """As it is when the release has the name that the plain manifests have."""
    return json.loads(
        json.dumps(part).replace('"app.kubernetes.io/instance": "release"', '"app.kubernetes.io/instance": "agentsession"')
    )


def test_nothing_in_the_plain_installation_claims_to_be_helms() -> None:
    for name in ("install.yaml", "defaults.yaml", "uninstall.yaml"):
        text = (ROOT / "manifests" / name).read_text()
        assert "managed-by" not in text
        assert "helm.sh/" not in text.replace("helm.sh/resource-policy", "")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_fit_the_kinds(renderer: ModuleType, path: Path) -> None:
    ours = [item for item in objects(path.read_text()) if item["apiVersion"].startswith("agentsession.dev/")]
    assert ours
    for item in ours:
        assert item["apiVersion"] == "agentsession.dev/v1alpha1"
        check(renderer, item)


def test_a_field_that_a_kind_does_not_know_is_found(renderer: ModuleType) -> None:
    """The check of the samples does find something."""
    session = only(objects((ROOT / "manifests" / "samples" / "session.yaml").read_text()), "AgentSession", "capital")
    session["spec"]["promt"] = session["spec"].pop("prompt")
    with pytest.raises(jsonschema.ValidationError, match="promt"):
        check(renderer, session)


def test_the_charts_own_class_fits_its_kind(renderer: ModuleType, everything: Objects) -> None:
    check(renderer, only(everything, "AgentSessionClass", "default"))


def of_samples(kind: str) -> Objects:
    return [item for path in SAMPLES for item in objects(path.read_text()) if item["kind"] == kind]


def test_the_sample_sessions_can_start_under_their_class_or_the_default_one(everything: Objects) -> None:
    found = [only(everything, "AgentSessionClass", "default"), *of_samples("AgentSessionClass")]
    made = {"uid": "u", "resourceVersion": "1", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    classes = {body["metadata"]["name"]: SessionClass.of({**body, "metadata": body["metadata"] | made}) for body in found}
    sessions = of_samples("AgentSession")
    assert len(sessions) == 5
    for session in sessions:
        assert isinstance(resolve(AgentSessionSpec.model_validate(session["spec"]), classes), Resolved)


def test_there_is_no_key_in_the_samples() -> None:
    values = {value for secret in of_samples("Secret") for value in secret["stringData"].values()}
    assert values == {"replace-me", "Bearer replace-me"}
