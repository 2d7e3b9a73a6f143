"""Quotas as a judge reads them: by plain rules of its own, without the operator's ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentsession_operator.api.objects import Quota
from agentsession_operator.decisions.quotas.claims import Claim
from support.control_plane.builders import classes, pod_status, quota, session_class

CLASSES = classes(
    session_class(),
    session_class("kept", default=False, workspace={"type": "Persistent", "size": "5Gi"}),
    session_class("urgent", default=False, priority=5),
)
REJECTED = pod_status("Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu")
ENDLESS = 10**9
LABELS: dict[str, dict[str, str]] = {"team": {"team": "a"}, "lab": {}}


@dataclass(frozen=True)
class JudgedQuota:
    """One quota, or the built-in limits."""

    name: str = ""
    cap: int = 50
    per_user: int = 10
    team: str | None = None
    """The value of the label `team` that a namespace must have."""
    class_name: str | None = None
    together: int | None = None
    """How many sessions all users named ci:* may have together; None where each counts alone."""
    exempt: str | None = None
    heavy: str | None = None
    """A user with the weight 2."""
    held: bool = False
    when_full: str = "Queue"
    stop_policy: str = "None"
    max_waiting: int = 1_000
    readable: bool = True

    @property
    def written(self) -> Quota:
        """As it is stored in the cluster."""
        rules: list[dict[str, Any]] = []
        if self.together is not None:
            rules.append({"match": "ci:*", "countAs": "Together", "maxSessions": self.together})
        if self.exempt is not None:
            rules.append({"match": self.exempt, "exempt": True})
        if self.heavy is not None:
            rules.append({"match": self.heavy, "weight": 2})
        spec: dict[str, Any] = {
            "maxSessions": self.cap if self.readable else "many",
            "maxSessionsPerUser": self.per_user,
            "userRules": rules,
            "whenFull": self.when_full,
            "stopPolicy": self.stop_policy,
            "maxWaiting": self.max_waiting,
        }
        if self.team is not None:
            spec["namespaceSelector"] = {"matchLabels": {"team": self.team}}
        if self.class_name is not None:
            spec["classNames"] = [self.class_name]
        return quota(self.name, **spec)

    @staticmethod
    def and_built_in(quotas: list[JudgedQuota]) -> list[JudgedQuota]:
        return [*quotas, JudgedQuota()]

    @staticmethod
    def of_session(quotas: list[JudgedQuota], claim: Claim, labels: Mapping[str, Mapping[str, str]]) -> list[JudgedQuota]:
        """Those that count a session; where it may be that none does, the built-in limits too."""
        found, certain = [], False
        for each in quotas:
            if each.team is not None and labels[claim.namespace].get("team") != each.team:
                continue
            unknown = each.class_name is not None and claim.class_name is None
            if each.class_name is not None and not unknown and claim.class_name != each.class_name:
                continue
            found.append(each)
            certain = certain or not unknown
        return found if certain else [*found, JudgedQuota()]

    def group(self, user: str) -> str:
        return "True:ci:*" if self.together is not None and user.startswith("ci:") else f"False:{user}"

    def cap_of(self, group: str) -> int:
        together, user = group.split(":", 1)
        if together == "True":
            return self.together if self.together is not None else ENDLESS
        return ENDLESS if not self.readable or user == self.exempt else self.per_user

    def share(self, user: str, counts: Counter[str]) -> float:
        weight = 2 if user == self.heavy else 1
        return counts[self.group(user)] / (max(1, self.cap) * weight)

    def blocks(self, user: str, counts: Counter[str]) -> bool:
        group = self.group(user)
        return self.held or counts.total() >= self.cap or counts[group] >= self.cap_of(group)


QUOTAS: dict[str, list[JudgedQuota]] = {
    "none": [],
    "one": [JudgedQuota("all", cap=2, per_user=1)],
    "wider": [JudgedQuota("all", cap=4, per_user=3, exempt="ada", heavy="bob", together=1)],
    "closed": [JudgedQuota("all", cap=0)],
    "overlapping": [
        JudgedQuota("all", cap=4, per_user=2, when_full="ReplaceOldestIdle"),
        JudgedQuota("a", cap=2, per_user=2, team="a", when_full="ReplaceOldestIdle"),
        JudgedQuota("kept", cap=1, per_user=1, class_name="kept", heavy="bob"),
    ],
    "rejecting": [JudgedQuota("all", cap=2, per_user=1, when_full="Reject"), JudgedQuota("a", cap=1, team="a", max_waiting=1)],
    "held": [JudgedQuota("a", cap=3, team="a", held=True, stop_policy="Hold"), JudgedQuota("all", cap=3)],
    "drained": [JudgedQuota("all", cap=3, held=True, stop_policy="HoldAndDrain")],
    "unreadable": [JudgedQuota("a", team="a", cap=50, per_user=10, held=True, readable=False), JudgedQuota("all", cap=3)],
}
"""Sets of quotas that a cluster may have."""
