"""SessionQuota: how many sessions may run at once."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from agentsession_operator.api.meta import Condition, Schema

DEFAULT_MAX_SESSIONS: Final = 50
DEFAULT_MAX_SESSIONS_PER_USER: Final = 10


class SessionQuotaSpec(Schema):
    """Limits on the sessions of the whole cluster. If there are several quotas, a session needs room in each."""

    max_sessions: Annotated[int, Field(ge=0, le=1_000_000)] = DEFAULT_MAX_SESSIONS
    """Maximum sessions that hold a slot at once. With 0, no session is admitted; running sessions continue."""
    max_sessions_per_user: Annotated[int, Field(ge=0, le=1_000_000)] = DEFAULT_MAX_SESSIONS_PER_USER
    """Maximum sessions of one user that hold a slot at once."""


class SessionQuotaStatus(Schema):
    """The quota's current use. Refreshed at most every 5 s."""

    used: int = 0
    """Sessions that hold a slot: admitted sessions, and pods that have not ended."""
    queued: int = 0
    """Sessions that are queued for a slot."""
    pods_without_session: list[str] = []
    """Pods that hold a slot although their session is gone, as NAMESPACE/NAME, at most 10. The operator deletes such a pod at
    once. One that stays is held by its node (down, or stopping the pod) or by somebody's finalizer."""
    observed_generation: int = 0
    """The metadata.generation for which `used` and `queued` were counted."""
    conditions: Annotated[
        list[Condition],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = []
    """Ready: True while the operator enforces the quota."""
