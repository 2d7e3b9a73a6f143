"""Session pods as tests look at them."""

from __future__ import annotations

from typing import Any

from agentsession_operator.api.objects import Session
from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.manifests.pod import session_pod
from support.control_plane.builders import INSTALLATION, JSON, resolved, session


def manifest(of: Session | None = None, **class_spec: Any) -> JSON:
    """The pod of a session whose class says this."""
    of = of or session()
    return session_pod(of, resolved(of, **class_spec), INSTALLATION)


KEPT = WorkspaceStatus(claim_name="demo-claim", size="5Gi")


def persistent(of: Session | None = None) -> JSON:
    """The pod of a session whose workspace is on a claim."""
    of = of or session()
    return session_pod(of, resolved(of), INSTALLATION, KEPT)


def containers(pod: JSON) -> dict[str, JSON]:
    """By name."""
    return {container["name"]: container for container in pod["spec"]["containers"]}


def environment(pod: JSON) -> dict[str, str]:
    """Of the agent."""
    return {item["name"]: item["value"] for item in containers(pod)["agent"]["env"]}
