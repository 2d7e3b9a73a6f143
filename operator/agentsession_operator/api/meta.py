"""Names that the kinds share, and the base of their models."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP: Final = "agentsession.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

SESSIONS: Final = "agentsessions"
CLASSES: Final = "agentsessionclasses"
QUOTAS: Final = "sessionquotas"

SESSION_UID_LABEL: Final = f"{GROUP}/session-uid"
"""On a session's pod: the UID of its session. The operator watches only pods that carry it."""
SESSION_NAME_LABEL: Final = f"{GROUP}/session"
"""On a session's pod: the name of its session, for `kubectl logs -l` (left out where it is too long for a label)."""
SESSION_NAME_ANNOTATION: Final = f"{GROUP}/session"
"""On a session's pod: the name of its session, however long. An orphaning deletion takes the owner away, not this."""
USER_ANNOTATION: Final = f"{GROUP}/user"
"""On a session's pod: its user, so that the slot of a pod whose session is gone is still counted for that user."""
POD_MAC_ANNOTATION: Final = f"{GROUP}/mac"
"""On a session's pod: the operator's mark (names.pod_mac). Names, labels and annotations alone can be forged."""
WORKSPACE_ANNOTATION: Final = f"{GROUP}/workspace"
"""On the pod of a persistent session: its workspace as JSON (api.workspace.WorkspaceStatus), so that an operator that starts
between the pod and the session's first status knows it."""
SESSION_FINALIZER: Final = f"{GROUP}/session"
"""On a session's pod: it cannot vanish before its end is recorded in the session's status (prior art: Job tracking,
KEP-2307)."""
DEFAULT_CLASS_ANNOTATION: Final = f"{GROUP}/is-default-class"

MAX_NAME: Final = 253
Timestamp = Field(json_schema_extra={"format": "date-time"})


class Schema(BaseModel):
    """Base of every model of a kind: camelCase on the wire, docstrings as `kubectl explain` text, unknown fields ignored.

    The API server has already pruned and validated what the operator reads; a field it does not know comes from a newer
    CRD, and must not stop an older operator.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    def to_wire(self) -> dict[str, Any]:
        """The JSON object as it stands in the API: camelCase, without unset fields."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class Condition(Schema):
    """One aspect of the object's state, as in Kubernetes' API conventions."""

    type: str
    """What the condition is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str
    """Why, in one CamelCase word that programs may rely on."""
    message: str = ""
    """Why, for people."""
    last_transition_time: str = Timestamp
    """When `status` last changed."""
    observed_generation: int = 0
    """The metadata.generation that this was decided on."""
