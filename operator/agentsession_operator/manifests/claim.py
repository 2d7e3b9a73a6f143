"""The PersistentVolumeClaim of a session with a persistent workspace, as a function of the session."""

from __future__ import annotations

from typing import Any

from agentsession_operator.api.objects import Session
from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.manifests.ownership import owned_meta

JSON = dict[str, Any]


def session_claim(session: Session, workspace: WorkspaceStatus) -> JSON:
    """The manifest of the claim.

    ReadWriteOnce, although ReadWriteOncePod would also exclude a second pod on the same node: only CSI drivers offer that, and
    a session never has two pods, because both would have the same name.
    """
    spec: JSON = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": workspace.size}}}
    if workspace.storage_class_name is not None:
        spec["storageClassName"] = workspace.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": owned_meta(session, workspace.claim_name),
        "spec": spec,
    }
