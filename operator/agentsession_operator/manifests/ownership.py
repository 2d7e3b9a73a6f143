"""Metadata of the objects that the operator creates for a session: labels to find them by, and the owner."""

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
    """The metadata of an object that belongs to the session: the garbage collector deletes it with the session."""
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
                # True would require update on agentsessions/finalizers, and delays deletions.
                "blockOwnerDeletion": False,
            }
        ],
    }


def is_owned(body: Mapping[str, Any], session: Session) -> bool:
    """Whether an object belongs to the session."""
    owners = body["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == session.meta.uid and owner.get("controller") for owner in owners)
