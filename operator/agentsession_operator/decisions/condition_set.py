"""Conditions as Kubernetes' API conventions want them: `lastTransitionTime` moves only when `status` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from agentsession_operator.api.meta import Condition

Status = Literal["True", "False", "Unknown"]
MAX_MESSAGE = 2048


class ConditionSet:
    """The conditions of one object while a new status is being decided."""

    def __init__(self, current: Iterable[Condition], *, generation: int, now: str) -> None:
        self._before = {condition.type: condition for condition in current}
        self._conditions = dict(self._before)
        self._generation, self._now = generation, now

    def set(self, kind: str, status: Status, reason: str, message: str = "") -> None:
        """Set one condition; keeps the time of its last transition where `status` stays the same."""
        previous = self._before.get(kind)
        self._conditions[kind] = Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…",
            last_transition_time=(previous.last_transition_time if previous and previous.status == status else self._now),
            observed_generation=self._generation,
        )

    def remove(self, kind: str) -> None:
        """Take a condition away, as those that are only there while they hold."""
        self._conditions.pop(kind, None)

    def get(self, kind: str) -> Condition | None:
        return self._conditions.get(kind)

    def holds(self, kind: str) -> bool:
        condition = self._conditions.get(kind)
        return condition is not None and condition.status == "True"

    def as_list(self) -> list[Condition]:
        return list(self._conditions.values())
