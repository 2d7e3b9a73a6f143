"""Whole session pods, compared with manifests that a reader can look at: here, and in docs/session-pod.md.

A change of the pod shows as a diff of these files. To write them: `AGENTSESSION_WRITE_EXPECTED=1 pytest PATH_OF_THIS_FILE`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.manifests.pod import session_pod
from support.control_plane.builders import INSTALLATION, JSON, resolved, session

EXPECTED = Path(__file__).parent / "expected"
PAGE = Path(__file__).parents[4] / "docs" / "session-pod.md"
WRITE = "AGENTSESSION_WRITE_EXPECTED"


def ephemeral() -> JSON:
    """A Task with credentials, of a class that sets nothing but a model."""
    of = session(mode="Task", prompt="Which tests fail, and why?", credentials={"secretName": "my-keys"})
    return session_pod(of, resolved(of), INSTALLATION)


def persistent() -> JSON:
    """An interactive session that can be suspended, whose class names an image, nodes and an MCP server."""
    of = session()
    offered = resolved(
        of,
        workspace={"type": "Persistent", "size": "5Gi", "image": "registry.example/toolbox:1"},
        runtimeClassName="gvisor",
        nodeSelector={"pool": "agents"},
        tolerations=[{"key": "agents", "operator": "Exists", "effect": "NoSchedule"}],
        imagePullSecrets=["registry"],
        agent={
            "model": "openai/small",
            "mcpServers": [
                {
                    "name": "docs",
                    "url": "https://mcp.example.com/mcp",
                    "headers": [{"name": "Authorization", "secretKeyRef": {"name": "docs-token", "key": "header"}}],
                },
                {
                    "name": "notes",
                    "url": "https://notes.example.com/mcp",
                    "oauth": {
                        "issuer": "https://login.example.com",
                        "clientID": {"value": "agents"},
                        "clientSecret": {"secretKeyRef": {"name": "notes-client", "key": "secret"}},
                    },
                },
            ],
        },
    )
    return session_pod(of, offered, INSTALLATION, WorkspaceStatus(claim_name="demo-claim", size="5Gi"))


PODS = {"ephemeral": ephemeral, "persistent": persistent}


@pytest.mark.parametrize("name", PODS)
def test_a_session_pod_is_what_its_expected_manifest_says(name: str) -> None:
    path, pod = EXPECTED / f"{name}.yaml", PODS[name]()
    if WRITE in os.environ:
        path.write_text(yaml.safe_dump(pod, sort_keys=False, width=110, allow_unicode=True))
    assert pod == yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", PODS)
def test_the_documentation_shows_the_expected_manifest(name: str) -> None:
    begin, end = f"<!-- {name}.yaml -->\n", f"<!-- end of {name}.yaml -->"
    page = PAGE.read_text()
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    shown = f"{before}{begin}```yaml\n{(EXPECTED / f'{name}.yaml').read_text()}```\n{end}{after}"
    if WRITE in os.environ:
        PAGE.write_text(shown)
    assert PAGE.read_text() == shown


def test_no_expected_manifest_is_left_without_a_test() -> None:
    assert {path.stem for path in EXPECTED.iterdir()} == PODS.keys()


def test_no_pod_is_made_from_a_session_whose_texts_were_left_out() -> None:
    of = replace(session(), whole=False)
    with pytest.raises(ValueError, match="session team/demo is not here whole"):
        session_pod(of, resolved(of), INSTALLATION)
