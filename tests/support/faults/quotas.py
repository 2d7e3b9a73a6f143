"""Quotas as the judge counts by them: caps on holders, read from a SessionQuota's spec by rules of its own. Pure.

Nothing of the operator's ledger is used here: a mistake there must not hide itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

from support.faults.judge import Cap, Holder

Spec: TypeAlias = "Mapping[str, Any]"
DEFAULT_CLASS: Final = "default"
BUILT_IN: Final[Spec] = {"maxSessions": 50, "maxSessionsPerUser": 10}
"""For those whom no quota counts."""


def caps_of(quotas: Mapping[str, Spec], *, default_class: str = DEFAULT_CLASS) -> list[Cap]:
    """The caps of these quotas by name, and of the built-in limits. `default_class` is the class of those that name none."""

    def counted_by(spec: Spec) -> Callable[[Holder], bool]:
        return lambda holder: counts(spec, holder, default_class)

    def counted_by_none(holder: Holder) -> bool:
        return not any(counts(spec, holder, default_class) for spec in quotas.values())

    caps = [cap for name, spec in quotas.items() for cap in _caps(name, spec, counted_by(spec))]
    return [*caps, *_caps("built in", BUILT_IN, counted_by_none)]


def nobody_more(name: str, spec: Spec, *, default_class: str = DEFAULT_CLASS) -> Cap:
    """For a quota that is held or cannot be read: no holder is added to those whom it counts."""
    return Cap(f"{name} held", 0, lambda holder: "all" if counts(spec, holder, default_class) else None)


def counts(spec: Spec, holder: Holder, default_class: str = DEFAULT_CLASS) -> bool:
    """Whether a quota counts a holder. What is not known of one may be anything, and is counted."""
    names = spec.get("classNames")
    if names is not None and holder.class_name is not None and (holder.class_name or default_class) not in names:
        return False
    selector = spec.get("namespaceSelector")
    return selector is None or holder.labels is None or selects(selector, holder.labels)


def selects(selector: Spec, labels: Mapping[str, str]) -> bool:
    """Whether a label selector of Kubernetes selects what has these labels."""
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for demand in selector.get("matchExpressions") or ():
        key, values = demand["key"], demand.get("values") or ()
        met = {
            "In": key in labels and labels[key] in values,
            "NotIn": key not in labels or labels[key] not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[demand["operator"]]
        if not met:
            return False
    return True


def _caps(name: str, spec: Spec, counted: Callable[[Holder], bool]) -> list[Cap]:
    """One on all whom the quota counts, one on each user without a rule, and one for each rule."""
    rules, per_user = spec.get("userRules") or [], spec.get("maxSessionsPerUser", BUILT_IN["maxSessionsPerUser"])

    def rule_of(holder: Holder) -> int | None:
        return next((index for index, rule in enumerate(rules) if fnmatchcase(holder.user, rule["match"])), None)

    def under(index: int | None, together: str | None) -> Callable[[Holder], str | None]:
        def group(holder: Holder) -> str | None:
            return (together or holder.user) if counted(holder) and rule_of(holder) == index else None

        return group

    caps = [
        Cap(name, spec.get("maxSessions", BUILT_IN["maxSessions"]), lambda holder: "all" if counted(holder) else None),
        Cap(f"{name} per user", per_user, under(None, None)),
    ]
    for index, rule in enumerate(rules):
        if not rule.get("exempt"):
            together = rule["match"] if rule.get("countAs") == "Together" else None
            caps.append(Cap(f"{name} rule {index}", rule.get("maxSessions", per_user), under(index, together)))
    return caps
