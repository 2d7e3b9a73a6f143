"""Quotas as the ledger counts by them: which sessions a quota counts, who shares one count, and what is left.

Which sessions those are is certain unless the labels of their namespace or their class are not known (yet), or the quota's own
selectors cannot be read. Then it may be any, and they are counted: a limit is kept by everybody whom it may concern.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from agentsession_operator.api.quota import QuotaScope, SessionQuotaSpec, UserRule
from agentsession_operator.api.selector import LabelSelector, Requirement

BUILT_IN: Final = ""
"""The name of the limits that hold where no quota counts a session."""


@dataclass(slots=True, eq=False)
class Group:
    """Those who share one count under a limit: a user, or all users whom a rule counts together."""

    name: str
    """The user's name, or the rule's glob."""
    together: bool
    cap: int | None
    weight: int
    held: int = 0
    waiting: int = 0
    """Sessions whose place in the queue is theirs."""

    @property
    def full(self) -> bool:
        return self.cap is not None and self.held >= self.cap


class Limit:
    """One quota, or the built-in limits."""

    def __init__(self, name: str, spec: SessionQuotaSpec | None, scope: QuotaScope | None) -> None:
        self.name, self.spec, self.scope = name, spec, scope
        # What cannot be read counts as a hold, so its numbers matter to nobody.
        self.rules = spec if spec is not None else SessionQuotaSpec()
        self.held = 0
        self.waiting = 0
        """Sessions whose place in the queue is theirs."""
        self._groups: dict[tuple[bool, str], Group] = {}

    @property
    def held_up(self) -> bool:
        """Whether nobody is admitted, however few hold a slot."""
        return self.spec is None or self.rules.stop_policy != "None"

    @property
    def drains(self) -> bool:
        """Whether those who hold a slot are to give it back when they are idle."""
        return self.rules.stop_policy == "HoldAndDrain"

    @property
    def full(self) -> bool:
        return self.held >= self.rules.max_sessions

    @property
    def closed(self) -> bool:
        """Whether it lets nobody in."""
        return self.held_up or self.full

    def groups(self) -> list[Group]:
        """Those that anybody is in."""
        return list(self._groups.values())

    def counts(self, labels: Mapping[str, str] | None, class_name: str | None) -> bool | None:
        """Whether it counts the sessions of a class in a namespace with these labels. None: it may be."""
        if self.scope is None:
            return None
        answers = (_selects(self.scope.namespace_selector, labels), _names(self.scope.class_names, class_name))
        if False in answers:
            return False
        return None if None in answers else True

    def group_of(self, user: str) -> Group:
        """Those with whom a user shares a count."""
        rules = self.rules.user_rules
        rule = next((rule for rule in rules if fnmatchcase(user, rule.match)), None) if rules else None
        together = rule is not None and rule.count_as == "Together"
        key = (together, rule.match if rule is not None and together else user)
        if (group := self._groups.get(key)) is None:
            group = self._groups[key] = Group(key[1], together, self._cap(rule), rule.weight if rule is not None else 1)
        return group

    def _cap(self, rule: UserRule | None) -> int | None:
        if rule is None or (rule.max_sessions is None and not rule.exempt):
            return self.rules.max_sessions_per_user
        return rule.max_sessions

    def forget(self, group: Group) -> None:
        """Nobody is in this group any more. There may be a newer one of the same name."""
        key = group.together, group.name
        if self._groups.get(key) is group:
            del self._groups[key]


def _names(names: list[str] | None, name: str | None) -> bool | None:
    if names is None:
        return True
    return None if name is None else name in names


def _selects(selector: LabelSelector | None, labels: Mapping[str, str] | None) -> bool | None:
    if selector is None or not (selector.match_labels or selector.match_expressions):
        return True
    if labels is None:
        return None
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _meets(labels, requirement) for requirement in selector.match_expressions
    )


def _meets(labels: Mapping[str, str], requirement: Requirement) -> bool:
    """As Kubernetes has it: NotIn holds for a label that is not there, too."""
    match requirement.operator:
        case "In":
            return labels.get(requirement.key) in requirement.values
        case "NotIn":
            return labels.get(requirement.key) not in requirement.values
        case "Exists":
            return requirement.key in labels
        case _:
            return requirement.key not in labels
