"""What the class decides of a session's pod."""

from __future__ import annotations

from typing import Any

import pytest

from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.manifests.pod import session_pod
from support.control_plane.builders import INSTALLATION, resolved, session
from support.control_plane.pods import containers, manifest


def test_a_class_chooses_image_and_where_it_comes_from() -> None:
    pod = manifest(image="acme/agent:2", imagePullPolicy="Always", imagePullSecrets=["registry"])
    assert {(item["image"], item["imagePullPolicy"]) for item in pod["spec"]["containers"]} == {("acme/agent:2", "Always")}
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_without_that_the_installations_image_is_used() -> None:
    pod = manifest()
    assert {item["image"] for item in pod["spec"]["containers"]} == {INSTALLATION.runtime_image}
    assert "imagePullSecrets" not in pod["spec"]


def test_a_class_chooses_nodes_and_runtime() -> None:
    tolerations = [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    spec = manifest(runtimeClassName="gvisor", nodeSelector={"pool": "agents"}, tolerations=tolerations)["spec"]
    assert (spec["runtimeClassName"], spec["nodeSelector"], spec["tolerations"]) == ("gvisor", {"pool": "agents"}, tolerations)
    assert not {"runtimeClassName", "nodeSelector", "tolerations"} & manifest()["spec"].keys()


def test_a_class_can_set_the_resources_of_one_container_alone() -> None:
    wanted = {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}}
    found = containers(manifest(resources={"workspace": wanted}))
    assert found["workspace"]["resources"] == wanted
    assert found["agent"]["resources"] == containers(manifest())["agent"]["resources"]


@pytest.mark.parametrize("name", ["agent", "workspace"])
def test_without_a_class_that_says_otherwise_memory_and_disk_are_limited(name: str) -> None:
    resources = containers(manifest())[name]["resources"]
    assert resources["limits"].keys() >= {"memory", "ephemeral-storage"}
    assert resources["requests"].keys() >= {"cpu", "memory"}


def disk_limits(**of_class: Any) -> list[str]:
    arguments: list[str] = containers(manifest(**of_class))["workspace"]["args"]
    return arguments[arguments.index("--disk") :]


def test_the_workspace_keeps_its_files_below_the_eviction_limit() -> None:
    assert disk_limits() == ["--disk", "10Gi"]
    assert disk_limits(resources={"workspace": {"limits": {"ephemeral-storage": "50Gi"}}}) == ["--disk", "50Gi"]
    assert disk_limits(resources={"workspace": {"limits": {"memory": "8Gi"}}}) == ["--disk", "10Gi"]


def test_on_a_claim_the_files_leave_room_for_the_sessions_database() -> None:
    claim = WorkspaceStatus(claim_name="claim", size="5Gi")
    arguments = containers(session_pod(session(), resolved(session()), INSTALLATION, claim))["workspace"]["args"]
    assert arguments[-4:] == ["--disk", "10Gi", "--volume", "5Gi"]
