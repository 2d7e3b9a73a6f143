"""The workspace of a session: in its class, and in its status."""

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
    """Where the model's commands run, and whether their files are kept. A session keeps the type and size that it started
    with: a change of the class applies to sessions that start later."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": RULES})

    type: Literal["Ephemeral", "Persistent"] = "Ephemeral"
    """Ephemeral: conversation and files are lost with the pod. Persistent: they are kept on a PersistentVolumeClaim for each
    session, so that the session continues when its pod is lost. The claim is deleted with the session."""
    size: StorageSize | None = None
    """Size of the claim for the conversation and the files, for example 5Gi. Required when type is Persistent."""
    storage_class_name: StorageClassName | None = None
    """StorageClass of the claims. Unset means the cluster's default. It must offer ReadWriteOnce. Do not use NFS: the
    conversation is in a database that needs reliable file locks."""
    image: ImageName | None = None
    """Image in which the model's commands run: any Linux image with the tools that the model needs, and Python 3.9 or later
    as python3. The workspace's server is copied into it when the pod starts. Unset means the agent's image."""


class WorkspaceStatus(Schema):
    """The session's persistent workspace."""

    claim_name: str
    """The PersistentVolumeClaim with the conversation and the files, in the session's namespace."""
    size: str
    """The size that the claim requests."""
    storage_class_name: str | None = None
    """StorageClass of the claim. Unset means the cluster's default."""


class LostPods(Schema):
    """Pods of the session that were lost or rejected in a row, within ten minutes of one another, and are created again."""

    count: int
    """How many. The seventh is still replaced, the eighth fails the session. 0: the last pod ended because it was told to."""
    last_time: str = Timestamp
    """When the last one ended."""
    pod_uid: Annotated[str | None, Field(alias="podUID")] = None
    """UID of the pod that ended last. Its end is recorded, so the pod itself may go."""
