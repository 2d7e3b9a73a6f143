"""What the objects that the operator makes for a session have in common: how they are found, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentsession_operator.api.meta import (
    API_VERSION,
    SESSION_NAME_ANNOTATION,
    SESSION_NAME_LABEL,
    SESSION_UID_LABEL,
    USER_ANNOTATION,
)
from agentsession_operator.api.objects import Session

JSON = dict[str, Any]

MAX_LABEL: Final = 63


def owned_meta(session: Session, name: str) -> JSON:
    """The metadata of an object of the session's own: the garbage collector deletes it after the session."""
    meta = session.meta
    labels = {"app.kubernetes.io/name": "agentsession", SESSION_UID_LABEL: meta.uid}
    if len(meta.name) <= MAX_LABEL:
        labels[SESSION_NAME_LABEL] = meta.name
    return {
        "name": name,
        "namespace": meta.namespace,
        "labels": labels,
        "annotations": {SESSION_NAME_ANNOTATION: meta.name, USER_ANNOTATION: session.spec.user},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "AgentSession",
                "name": meta.name,
                "uid": meta.uid,
                "controller": True,
                # True would need update on agentsessions/finalizers, and holds up deletions.
                "blockOwnerDeletion": False,
            }
        ],
    }


def is_owned(body: Mapping[str, Any], session: Session) -> bool:
    """Whether an object is the session's own."""
    owners = body["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == session.meta.uid and owner.get("controller") for owner in owners)
