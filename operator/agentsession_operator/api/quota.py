"""SessionQuota: which sessions it counts, how many of them may run at once, and what becomes of those that find no room."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from agentsession_operator.api.meta import MAX_NAME, Condition, Schema, Timestamp
from agentsession_operator.api.selector import LabelSelector

DEFAULT_MAX_SESSIONS: Final = 50
DEFAULT_MAX_SESSIONS_PER_USER: Final = 10
DEFAULT_MAX_WAITING: Final = 1_000
DEFAULT_MAX_WAITING_PER_USER: Final = 100
MOST: Final = 1_000_000
"""The largest number of sessions that a limit can name."""

Count = Annotated[int, Field(ge=0, le=MOST)]
WhenFull = Literal["Queue", "Reject", "ReplaceOldestIdle"]
StopPolicy = Literal["None", "Hold", "HoldAndDrain"]
ATOMIC: Final[dict[str, Any]] = {"x-kubernetes-list-type": "atomic"}


class UserRule(Schema):
    """How the sessions of some users are counted."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.exempt) || !self.exempt || !has(self.maxSessions)",
                    "message": "is not allowed with exempt: true",
                    "fieldPath": ".maxSessions",
                }
            ]
        }
    )

    match: Annotated[str, Field(min_length=1, max_length=256)]
    """Glob over user names, for example alice, *@example.com or system:serviceaccount:ci:*."""
    count_as: Literal["Each", "Together"] = "Each"
    """Each: every user that matches has a count of their own. Together: all that match share one count, in `maxSessions`,
    `maxWaitingPerUser` and in the order of the queue."""
    max_sessions: Count | None = None
    """Maximum sessions of each such user, or of all of them together. Unset means the quota's `maxSessionsPerUser`."""
    weight: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Share of the slots when users compete: one with weight 2 gets twice as many as one with weight 1."""
    exempt: bool = False
    """True lifts the limit per user. `maxSessions` of the quota still holds."""

    @model_validator(mode="after")
    def _exempt_has_no_limit(self) -> UserRule:
        """The CRD's rule again: an object that was stored without it cannot be read."""
        if self.exempt and self.max_sessions is not None:
            raise ValueError("maxSessions: not allowed with exempt: true")
        return self


class QuotaScope(Schema):
    """Which sessions a quota counts. Read by itself, so that a quota with a mistake elsewhere stops only these."""

    namespace_selector: LabelSelector | None = None
    """Labels of the namespaces whose sessions are counted. Unset means all namespaces."""
    class_names: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=MAX_NAME)]],
            Field(min_length=1, max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = None
    """Names of the AgentSessionClasses whose sessions are counted. Unset means all classes."""


class SessionQuotaSpec(QuotaScope):
    """Limits on the sessions that the quota counts. A session needs room in every quota that counts it. Sessions that no quota
    counts share the built-in limits: 50 sessions, and 10 of each user."""

    max_sessions: Count = DEFAULT_MAX_SESSIONS
    """Maximum sessions that hold a slot at once. With 0, no session is admitted; running sessions continue."""
    max_sessions_per_user: Count = DEFAULT_MAX_SESSIONS_PER_USER
    """Maximum sessions of one user that hold a slot at once."""
    user_rules: Annotated[list[UserRule], Field(max_length=64, json_schema_extra=ATOMIC)] = []
    """Users who are counted differently. The first rule that matches a user applies."""
    max_waiting: Count = DEFAULT_MAX_WAITING
    """Maximum sessions that wait. A further one finishes at once, with the reason QueueFull."""
    max_waiting_per_user: Count = DEFAULT_MAX_WAITING_PER_USER
    """Maximum sessions of one user that wait. A further one finishes at once, with the reason QueueFull."""
    when_full: WhenFull = "Queue"
    """What happens to a new session that finds no room. Queue: it waits. Reject: it finishes at once. ReplaceOldestIdle: it
    takes the place of the session that has been idle longest, of the same user if the user's own limit is reached. That one is
    suspended if it is persistent, and finishes if not. Sessions that work, wait for an approval or have a higher priority are
    never replaced. A session that resumes always waits."""
    stop_policy: StopPolicy = "None"
    """Hold: no session is admitted, and running ones continue. HoldAndDrain: running ones that are persistent are also
    suspended at the end of their turn, and resume by themselves after the hold. Others run to their end."""


class SessionQuotaStatus(Schema):
    """The quota's current use. Refreshed at most every 5 s."""

    used: int = 0
    """Sessions that hold a slot: admitted sessions, and pods that have not ended."""
    limit: int | None = None
    """The limit in force: `spec.maxSessions`. Unset while the spec cannot be read."""
    waiting: int = 0
    """Sessions that wait, for this quota or for another one that counts them too."""
    oldest_waiting: Annotated[str, Timestamp] | None = None
    """Since when the session that has waited longest has waited."""
    pods_without_session: list[str] = []
    """Pods that hold a slot of this quota although their session is gone, as NAMESPACE/NAME, at most 10. The operator deletes
    such a pod at once. One that stays is held by its node (down, or stopping the pod) or by somebody's finalizer."""
    observed_generation: int = 0
    """The metadata.generation for which `used` and `waiting` were counted."""
    conditions: Annotated[
        list[Condition],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = []
    """Ready: True while the operator enforces the quota. Admitting: True while it admits sessions; False while it is full or
    held."""
