"""The workspace of a session: what its class offers, and what the session got."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, JsonValue

from agentsession_operator.api.meta import MAX_NAME, Schema, Timestamp

StorageSize = Annotated[str, Field(max_length=32, pattern=r"^[1-9][0-9]*(\.[0-9]+)?(M|G|T|P|Mi|Gi|Ti|Pi)$")]
ImageName = Annotated[str, Field(min_length=1, max_length=512)]
StorageClassName = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


def _only_persistent(field: str) -> JsonValue:
    return {
        "rule": f"self.type == 'Persistent' || !has(self.{field})",
        "message": "is for type Persistent only; set type to Persistent, or leave this out",
        "fieldPath": f".{field}",
        "reason": "FieldValueForbidden",
    }


RULES: Final[list[JsonValue]] = [
    {
        "rule": "self.type != 'Persistent' || has(self.size)",
        "message": "is required when type is Persistent",
        "fieldPath": ".size",
        "reason": "FieldValueRequired",
    },
    _only_persistent("size"),
    _only_persistent("storageClassName"),
]


class WorkspaceSpec(Schema):
    """Where the model's commands run, and what is kept of it. Whether it is persistent, and how large, a session keeps as it
    got it: a change of the class is for those that start later."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": RULES})

    type: Literal["Ephemeral", "Persistent"] = "Ephemeral"
    """Ephemeral lasts as long as the session's pod. Persistent keeps the conversation and the files on a
    PersistentVolumeClaim, one for each session and deleted with it: the session goes on when its pod is lost."""
    size: StorageSize | None = None
    """Room for the conversation and the files together, for example 5Gi. Required when type is Persistent."""
    storage_class_name: StorageClassName | None = None
    """StorageClass of the claims; unset means the cluster's default. ReadWriteOnce is enough, and NFS will not do: the
    conversation is in a database."""
    image: ImageName | None = None
    """Image in which the model's commands run: any Linux image with Python 3.9 or later as python3, and the tools that the
    model should find. Unset means the agent's image. The agent's server is put into it when the pod starts."""


class WorkspaceStatus(Schema):
    """The persistent workspace that the session got."""

    claim_name: str
    """The PersistentVolumeClaim with the conversation and the files, in the session's namespace."""
    size: str
    """What the claim asks for."""
    storage_class_name: str | None = None
    """StorageClass of the claim; unset means the cluster's default."""


class LostPods(Schema):
    """Pods of a persistent session that were lost in a row, within ten minutes of one another."""

    count: int
    """How many. The seventh is still replaced, the eighth fails the session."""
    last_time: str = Timestamp
    """When the last one was lost."""
