"""Conditions as Kubernetes' API conventions want them: `lastTransitionTime` moves only when `status` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from agentsession_operator.api.conditions import ConditionType
from agentsession_operator.api.meta import Condition

Status = Literal["True", "False", "Unknown"]
MAX_MESSAGE: Final = 2048
"""Longest message, in characters."""


class ConditionSet:
    """The conditions of one object while a new status is being decided."""

    def __init__(self, current: Iterable[Condition], *, generation: int, now: str) -> None:
        """`now` is RFC 3339, as `api.times.rfc3339` writes it."""
        self._before = {condition.type: condition for condition in current}
        self._conditions = dict(self._before)
        self._generation, self._now = generation, now

    def set(self, kind: ConditionType, status: Status, reason: str, message: str = "") -> None:
        """Set one condition; keeps the time of its last transition where `status` stays the same."""
        previous = self._before.get(kind)
        self._conditions[kind] = Condition(
            type=kind.value,
            status=status,
            reason=str(reason),
            message=message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…",
            last_transition_time=(previous.last_transition_time if previous and previous.status == status else self._now),
            observed_generation=self._generation,
        )

    def remove(self, kind: ConditionType) -> None:
        """Remove a condition, as those that are only there while they hold."""
        self._conditions.pop(kind, None)

    def get(self, kind: ConditionType) -> Condition | None:
        """The condition as it stands now, or None."""
        return self._conditions.get(kind)

    def holds(self, kind: ConditionType) -> bool:
        """Whether the condition is True."""
        condition = self._conditions.get(kind)
        return condition is not None and condition.status == "True"

    def as_list(self) -> list[Condition]:
        """All conditions, in the order in which they first appeared."""
        return list(self._conditions.values())
