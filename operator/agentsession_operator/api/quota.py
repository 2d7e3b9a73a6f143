"""SessionQuota: how many sessions may run at once."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from agentsession_operator.api.meta import Condition, Schema

DEFAULT_MAX_SESSIONS: Final = 50
DEFAULT_MAX_SESSIONS_PER_USER: Final = 10


class SessionQuotaSpec(Schema):
    """Caps on the sessions of the whole cluster. Where there are several quotas, a session needs room in every one."""

    max_sessions: Annotated[int, Field(ge=0, le=1_000_000)] = DEFAULT_MAX_SESSIONS
    """Sessions that may hold a slot at once. With 0 nothing new starts; what runs goes on."""
    max_sessions_per_user: Annotated[int, Field(ge=0, le=1_000_000)] = DEFAULT_MAX_SESSIONS_PER_USER
    """Sessions that one user may hold at once."""


class SessionQuotaStatus(Schema):
    """How full the quota is. Refreshed at most every 5 s."""

    used: int = 0
    """Sessions that hold a slot: admitted ones, and pods that have not ended yet."""
    queued: int = 0
    """Sessions that wait for a slot."""
    observed_generation: int = 0
    """The metadata.generation that `used` and `queued` were counted under."""
    conditions: Annotated[
        list[Condition],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = []
    """Ready: True while the operator enforces the quota."""
