"""Kubernetes Events for trouble that a person should look at. Everything else is in the conditions, without another write."""

from __future__ import annotations

import hashlib
from typing import Any

from agentsession_operator.api.conditions import TROUBLE
from agentsession_operator.api.meta import API_VERSION, Condition
from agentsession_operator.api.objects import Session
from agentsession_operator.api.session import AgentSessionStatus


def new_trouble(before: AgentSessionStatus, after: AgentSessionStatus) -> list[Condition]:
    """Conditions whose reason is trouble and was not there before."""
    known = {(condition.type, condition.reason) for condition in before.conditions}
    return [
        condition
        for condition in after.conditions
        if (condition.type, condition.reason) in TROUBLE and (condition.type, condition.reason) not in known
    ]


def event(session: Session, condition: Condition, now: str) -> dict[str, Any]:
    """The Event for `kubectl describe agentsession`. Its name is a function of its content, so a retry creates no duplicate."""
    meta = session.meta
    digest = hashlib.sha256(f"{meta.uid} {condition.type} {condition.reason} {now}".encode()).hexdigest()[:12]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta.name[:200].rstrip('-.')}.{digest}", "namespace": meta.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": "AgentSession",
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
        },
        "type": "Warning",
        "reason": condition.reason,
        "message": condition.message[:1024],
        "source": {"component": "agentsession-operator"},
        "reportingComponent": "agentsession-operator",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
