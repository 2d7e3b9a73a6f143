"""The model's commands in an image that is not the runtime's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.api import condition
from support.installation import Kubectl, build_images
from support.sessions import Sessions
from support.waiting import eventually

NAMESPACE = "e2e"
PAUSE = "localhost/agentsession-pause:1"
"""The sandbox image of the test cluster: nothing but one program, and no Python."""


def make_class(cluster: Kubectl, name: str, image: str) -> None:
    """The scripted class with another image for the workspace."""
    rules = cluster.json("get", "agentsessionclass", "scripted")["spec"]["models"]
    body = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "AgentSessionClass", "metadata": {"name": name}}
    spec = {"models": rules, "workspace": {"image": image}, "imagePullPolicy": "IfNotPresent"}
    cluster("apply", "-f", "-", text=json.dumps({**body, "spec": spec}))


def test_commands_run_in_the_image_that_the_class_names(sessions: Sessions, cluster: Kubectl) -> None:
    """The local model's image knows nothing of the runtime; its pods are restricted as all are."""
    make_class(cluster, "other-image", build_images()["local-model"][0])
    cluster("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    try:
        sessions.apply("elsewhere", className="other-image", agent={"model": "openai/where"})
        sessions.wait_for_phase("elsewhere", "Completed")
    finally:
        cluster("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce-")
    seen = next(item for item in sessions.requests("where")[-1]["messages"] if item["role"] == "tool")["content"]
    assert "serve.py" in seen, "the other image's files"
    assert "No module named 'litellm'" in seen
    assert "65532" in seen


def test_an_image_without_python_is_named_as_the_trouble(sessions: Sessions, cluster: Kubectl) -> None:
    held = cluster("get", "nodes", "-o", "jsonpath={.items[*].status.images[*].names[*]}")
    if PAUSE not in held.split():
        pytest.skip("this cluster has no image without Python at hand")
    make_class(cluster, "no-python", PAUSE)
    sessions.apply("wordless", className="no-python", agent={"model": "openai/where"})

    def told() -> dict[str, Any] | None:
        found = condition(sessions.read("wordless"), "PodReady")
        assert found.get("reason") == "ContainerError", found
        return found

    message = eventually(told, within=60, what="the trouble")["message"]
    assert "no python3" in message
    assert "spec.workspace.image" in message
