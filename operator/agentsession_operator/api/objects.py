"""What the operator knows of the cluster's objects, as values made from the API's JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NewType, TypeVar

from pydantic import ValidationError

from agentsession_operator.api.conditions import ConditionType
from agentsession_operator.api.meta import (
    DEFAULT_CLASS_ANNOTATION,
    POD_MAC_ANNOTATION,
    SESSION_FINALIZER,
    SESSION_NAME_ANNOTATION,
    SESSION_UID_LABEL,
    USER_ANNOTATION,
    WORKSPACE_ANNOTATION,
    Condition,
    Schema,
)
from agentsession_operator.api.names import is_mac, pod_name
from agentsession_operator.api.quota import QuotaScope, SessionQuotaSpec
from agentsession_operator.api.session import AgentSessionSpec, AgentSessionStatus
from agentsession_operator.api.session_class import AgentSessionClassSpec
from agentsession_operator.api.workspace import WorkspaceStatus

JSON = Mapping[str, Any]

SessionUID = NewType("SessionUID", str)
PodUID = NewType("PodUID", str)
UID = TypeVar("UID", bound=str)
"""Which kind of object a UID belongs to, so that mypy reports a pod's UID where a session's is meant."""
SchemaT = TypeVar("SchemaT", bound=Schema)


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
        """Raises KeyError, TypeError or ValueError for what is no object of the API."""
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
    whole: bool = True
    """Whether the spec is here as it was applied. The cache leaves long texts out (cluster/thrift.py)."""

    @classmethod
    def of(cls, body: JSON) -> Session:
        """Raises UnreadableObject."""
        try:
            return cls(
                Meta.of(body),
                AgentSessionSpec.model_validate(body["spec"]),
                _status(_mapping(body.get("status"))),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableObject(str(error)) from error

    def condition(self, kind: ConditionType) -> tuple[str, str]:
        """Status and reason of a condition; ("Unknown", "") where it is not there."""
        for condition in self.status.conditions:
            if condition.type == kind:
                return condition.status, condition.reason
        return "Unknown", ""

    @property
    def admitted(self) -> bool:
        return self.condition(ConditionType.ADMITTED)[0] == "True"

    @property
    def finished(self) -> bool:
        return self.condition(ConditionType.FINISHED)[0] == "True"


@dataclass(frozen=True, slots=True)
class SessionClass:
    """An AgentSessionClass."""

    meta: Meta[str]
    spec: AgentSessionClassSpec | None
    """None where it cannot be read: a session of this class is misconfigured, and never runs by an older version of it."""
    is_default: bool

    @classmethod
    def of(cls, body: JSON) -> SessionClass:
        """Raises UnreadableObject for what is no object of the API."""
        meta = _meta(body)
        annotations = _mapping(body["metadata"].get("annotations"))
        spec = _readable(AgentSessionClassSpec, body.get("spec") or {})
        return cls(meta, spec, annotations.get(DEFAULT_CLASS_ANNOTATION) == "true")


@dataclass(frozen=True, slots=True)
class Quota:
    """A SessionQuota."""

    meta: Meta[str]
    spec: SessionQuotaSpec | None
    """None where it cannot be read: then nothing that it may count is admitted."""
    scope: QuotaScope | None
    """Which sessions it counts; None where not even that can be read, and then it may be any."""
    status: JSON

    @classmethod
    def of(cls, body: JSON) -> Quota:
        """Raises UnreadableObject for what is no object of the API."""
        meta, raw = _meta(body), body.get("spec") or {}
        spec = _readable(SessionQuotaSpec, raw)
        scope = spec if spec is not None else _readable(QuotaScope, raw)
        return cls(meta, spec, scope, _mapping(body.get("status")))


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace: what quotas select it by."""

    meta: Meta[str]
    labels: Mapping[str, str]

    @classmethod
    def of(cls, body: JSON) -> Namespace:
        """Raises UnreadableObject for what is no object of the API."""
        meta = _meta(body)
        labels = _mapping(body["metadata"].get("labels"))
        return cls(meta, {str(key): str(value) for key, value in labels.items()})


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that says it is a session's. Whether the operator created it, `manifests.ownership.is_ours` knows."""

    meta: Meta[PodUID]
    session_uid: SessionUID
    session_name: str
    user: str
    mac: str
    """The operator's mark, in hexadecimal; empty where there is none."""
    workspace: WorkspaceStatus | None
    """The persistent workspace that the pod was created with."""
    marked: bool
    """Whether its label and its annotations say that it is a session's, as the operator wrote them."""
    protected: bool
    """Whether it carries our finalizer, so that it cannot vanish unseen."""
    grace_seconds: int | None
    """The grace period of its deletion, where it is being deleted."""
    phase: str
    conditions: Sequence[JSON]
    containers: Sequence[JSON]
    """Their statuses, those of init containers first."""
    gates: Sequence[str]
    """Scheduling gates that hold it back."""
    reason: str
    message: str

    @classmethod
    def of(cls, body: JSON) -> Pod:
        """Raises UnreadableObject for what carries none of our marks. Other odd fields (a status can be written by
        anyone who may) count as absent."""
        try:
            meta, spec, status = body["metadata"], _mapping(body.get("spec")), _mapping(body.get("status"))
            annotations, labels = _mapping(meta.get("annotations")), _mapping(meta.get("labels"))
            grace = meta.get("deletionGracePeriodSeconds")
            return cls(
                meta=Meta.of(body),
                session_uid=SessionUID(str(labels[SESSION_UID_LABEL])),
                session_name=str(annotations.get(SESSION_NAME_ANNOTATION, "")),
                user=str(annotations.get(USER_ANNOTATION, "")),
                mac=str(annotations.get(POD_MAC_ANNOTATION, "")),
                workspace=_workspace(annotations.get(WORKSPACE_ANNOTATION)),
                marked=True,
                protected=SESSION_FINALIZER in (meta.get("finalizers") or ()),
                grace_seconds=grace if isinstance(grace, int) else None,
                phase=str(status.get("phase", "Pending")),
                conditions=_mappings(status.get("conditions")),
                containers=[*_mappings(status.get("initContainerStatuses")), *_mappings(status.get("containerStatuses"))],
                gates=[str(gate.get("name", "")) for gate in _mappings(spec.get("schedulingGates"))],
                reason=str(status.get("reason", "")),
                message=str(status.get("message", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableObject(f"not a session's pod: {type(error).__name__}: {error}") from error

    @classmethod
    def following(cls, known: Pod, body: JSON) -> Pod:
        """A later version of a pod that is known to be ours: its UID says so, even if its label and annotations changed.

        Raises UnreadableObject for what is no object of the API.
        """
        meta = _mapping(body.get("metadata"))
        annotations, labels = _mapping(meta.get("annotations")), _mapping(meta.get("labels"))
        restored = {
            **annotations,
            SESSION_NAME_ANNOTATION: known.session_name,
            USER_ANNOTATION: known.user,
            POD_MAC_ANNOTATION: known.mac,
        }
        marked = labels.get(SESSION_UID_LABEL) == known.session_uid and all(
            annotations.get(key) == value for key, value in restored.items()
        )
        whole = {**meta, "labels": {**labels, SESSION_UID_LABEL: known.session_uid}, "annotations": restored}
        pod = cls.of({**body, "metadata": whole})
        return replace(pod, marked=marked, workspace=pod.workspace or known.workspace)

    @property
    def ended(self) -> bool:
        """Whether its slot is free: all its containers have stopped for good, or only finalizers keep it (it was forced, or
        deleted before a node had it)."""
        return self.phase in ("Succeeded", "Failed") or (self.meta.deleting and self.grace_seconds == 0)


def is_ours(pod: Pod, key: bytes) -> bool:
    """Whether the operator created the pod: it bears the operator's mark for exactly this name, session and user.

    Anyone who may create pods can write any name, label and annotation; the mark cannot be made without the key.
    """
    meta = pod.meta
    return meta.name == pod_name(pod.session_name, pod.session_uid) and is_mac(
        key, pod.mac, meta.namespace, meta.name, pod.session_uid, pod.user
    )


def _meta(body: JSON) -> Meta[str]:
    """Raises UnreadableObject for what is no object of the API."""
    try:
        return Meta.of(body)
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableObject(str(error)) from error


def _readable(model: type[SchemaT], raw: object) -> SchemaT | None:
    """What an object says, or None where it cannot be read."""
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None


def _status(raw: JSON) -> AgentSessionStatus:
    """A session's status. A field that cannot be read (edited by hand, or stored under another schema) is an absent one."""
    try:
        return AgentSessionStatus.model_validate(raw)
    except ValidationError as error:
        odd = {detail["loc"][0] for detail in error.errors()}
    readable = {name: value for name, value in raw.items() if name not in odd}
    if "conditions" in odd:
        readable["conditions"] = readable_conditions(raw.get("conditions"))
    return AgentSessionStatus.model_validate(readable)


def readable_conditions(raw: object) -> list[Condition]:
    """Those of a status's conditions that can be read."""
    found: list[Condition] = []
    for item in _mappings(raw):
        with contextlib.suppress(ValidationError):
            found.append(Condition.model_validate(item))
    return found


def _mapping(value: object) -> JSON:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> Sequence[JSON]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, Sequence) else ()


def _workspace(text: object) -> WorkspaceStatus | None:
    """The annotation of a persistent session's pod: a WorkspaceStatus as JSON."""
    try:
        return WorkspaceStatus.model_validate_json(str(text)) if text else None
    except ValidationError:
        return None


def choose_class(classes: Mapping[str, SessionClass], name: str | None) -> SessionClass | None:
    """The class that a session names, or else the default one; of several defaults the newest, as with StorageClass."""
    if name is not None:
        return classes.get(name)
    defaults = [candidate for candidate in classes.values() if candidate.is_default]
    return max(defaults, key=lambda candidate: (candidate.meta.created, candidate.meta.name), default=None)
