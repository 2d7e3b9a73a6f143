"""What the operator knows of the cluster's objects, as values made from the API's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NewType, TypeVar

from pydantic import ValidationError

from agentsession_operator.api.meta import DEFAULT_CLASS_ANNOTATION, SESSION_NAME_ANNOTATION, SESSION_UID_LABEL, USER_ANNOTATION
from agentsession_operator.api.names import pod_name
from agentsession_operator.api.quota import SessionQuotaSpec
from agentsession_operator.api.session import AgentSessionSpec, AgentSessionStatus
from agentsession_operator.api.session_class import AgentSessionClassSpec

JSON = Mapping[str, Any]

SessionUID = NewType("SessionUID", str)
PodUID = NewType("PodUID", str)
UID = TypeVar("UID", bound=str)
"""Which kind of object a UID belongs to, so that mypy reports a pod's UID where a session's is meant."""


class UnreadableObject(Exception):
    """An object that is not what it should be, as one stored before its schema was narrowed."""


@dataclass(frozen=True, slots=True)
class Meta(Generic[UID]):
    """Identity and version of an object."""

    namespace: str
    name: str
    uid: UID
    version: int
    """The resourceVersion. Kubernetes promises that those of one resource compare as integers (KEP-5504)."""
    generation: int
    created: str
    """RFC 3339, whole seconds; compares as text."""
    deleting: bool

    @classmethod
    def of(cls, body: JSON) -> Meta[UID]:
        meta = body["metadata"]
        return cls(
            namespace=meta.get("namespace", ""),
            name=meta["name"],
            uid=meta["uid"],
            version=int(meta["resourceVersion"]),
            generation=meta.get("generation", 0),
            created=meta.get("creationTimestamp", ""),
            deleting="deletionTimestamp" in meta,
        )


@dataclass(frozen=True, slots=True)
class Session:
    """An AgentSession."""

    meta: Meta[SessionUID]
    spec: AgentSessionSpec
    status: AgentSessionStatus

    @classmethod
    def of(cls, body: JSON) -> Session:
        """Raises UnreadableObject."""
        try:
            return cls(
                Meta.of(body),
                AgentSessionSpec.model_validate(body["spec"]),
                AgentSessionStatus.model_validate(body.get("status") or {}),
            )
        except (KeyError, ValidationError) as error:
            raise UnreadableObject(str(error)) from error

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition; ("Unknown", "") where it is not there."""
        for condition in self.status.conditions:
            if condition.type == kind:
                return condition.status, condition.reason
        return "Unknown", ""

    @property
    def admitted(self) -> bool:
        return self.condition("Admitted")[0] == "True"

    @property
    def finished(self) -> bool:
        return self.condition("Finished")[0] == "True"


@dataclass(frozen=True, slots=True)
class SessionClass:
    """An AgentSessionClass."""

    meta: Meta[str]
    spec: AgentSessionClassSpec
    is_default: bool

    @classmethod
    def of(cls, body: JSON) -> SessionClass:
        """Raises UnreadableObject."""
        annotations = body["metadata"].get("annotations") or {}
        try:
            spec = AgentSessionClassSpec.model_validate(body.get("spec") or {})
        except ValidationError as error:
            raise UnreadableObject(str(error)) from error
        return cls(Meta.of(body), spec, annotations.get(DEFAULT_CLASS_ANNOTATION) == "true")


@dataclass(frozen=True, slots=True)
class Quota:
    """A SessionQuota. `spec` is None where it cannot be read: then nothing is admitted under it."""

    meta: Meta[str]
    spec: SessionQuotaSpec | None
    status: JSON

    @classmethod
    def of(cls, body: JSON) -> Quota:
        try:
            spec: SessionQuotaSpec | None = SessionQuotaSpec.model_validate(body.get("spec") or {})
        except ValidationError:
            spec = None
        return cls(Meta.of(body), spec, body.get("status") or {})


@dataclass(frozen=True, slots=True)
class Pod:
    """A session's pod."""

    meta: Meta[PodUID]
    session_uid: SessionUID
    session_name: str
    user: str
    phase: str
    conditions: Sequence[JSON]
    containers: Sequence[JSON]
    """Their statuses, those of init containers first."""
    reason: str
    message: str

    @classmethod
    def of(cls, body: JSON) -> Pod:
        """Raises UnreadableObject for a pod that carries the label and not the name that goes with it: anybody who may
        create pods can set labels, and such a pod must neither hold a slot nor speak for a session."""
        meta, status = body["metadata"], body.get("status") or {}
        session_uid = (meta.get("labels") or {}).get(SESSION_UID_LABEL, "")
        session_name = (meta.get("annotations") or {}).get(SESSION_NAME_ANNOTATION, "")
        if meta["name"] != pod_name(session_name, session_uid):
            raise UnreadableObject(f"the label {SESSION_UID_LABEL} is on a pod that the operator did not make")
        return cls(
            meta=Meta.of(body),
            session_uid=session_uid,
            session_name=session_name,
            user=(meta.get("annotations") or {}).get(USER_ANNOTATION, ""),
            phase=status.get("phase", "Pending"),
            conditions=status.get("conditions") or (),
            containers=[*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())],
            reason=status.get("reason", ""),
            message=status.get("message", ""),
        )

    @property
    def ended(self) -> bool:
        """Whether all its containers have stopped for good."""
        return self.phase in ("Succeeded", "Failed")


def choose_class(classes: Mapping[str, SessionClass], name: str | None) -> SessionClass | None:
    """The class that a session names, or else the default one; of several defaults the newest, as with StorageClass."""
    if name is not None:
        return classes.get(name)
    defaults = [candidate for candidate in classes.values() if candidate.is_default]
    return max(defaults, key=lambda candidate: (candidate.meta.created, candidate.meta.name), default=None)
