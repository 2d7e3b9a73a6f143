"""Claims and quotas for tests of the admission, without sessions and pods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from agentsession_operator.api.objects import Quota
from agentsession_operator.decisions.quotas.admission import Admission, Plan
from agentsession_operator.decisions.quotas.claims import Claim
from agentsession_operator.decisions.quotas.verdict import TurnedAway, Wait
from support.control_plane.builders import quota


def claim(uid: str, user: str = "ada", second: int = 0, **fields: Any) -> Claim:
    """A session that asks for its first slot, `second` seconds after ten o'clock."""
    namespace = str(fields.pop("namespace", "team"))
    asks = Claim(
        uid=uid,
        user=user,
        namespace=namespace,
        class_name="default",
        arrival=(f"2026-05-04T10:{second // 60:02}:{second % 60:02}Z", namespace, uid),
    )
    return replace(asks, **fields)


def holder(uid: str, user: str = "ada", **fields: Any) -> Claim:
    """A session that holds a slot."""
    return claim(uid, user, holds=True, **fields)


def admission(claims: Iterable[Claim] = (), *quotas: Quota) -> Admission:
    """An admission that knows these claims and quotas, and no label of any namespace but `team`, which has none."""
    made = Admission()
    made.set_namespace("team", {})
    made.set_quotas(quotas)
    for each in claims:
        made.put(each.uid, each)
    return made


def capped(sessions: int, per_user: int, **fields: Any) -> Quota:
    """A quota for everybody."""
    return quota(maxSessions=sessions, maxSessionsPerUser=per_user, **fields)


def decided(claims: Iterable[Claim], *quotas: Quota) -> tuple[Admission, Plan]:
    """An admission and its first decision on these claims."""
    made = admission(claims, *quotas)
    return made, made.decide(10_000)


def wait(of: Admission, uid: str) -> Wait:
    """Why a session waits; fails where it does not."""
    verdict = of.verdict(uid)
    assert isinstance(verdict, Wait), verdict
    return verdict


def turned_away(of: Admission, uid: str) -> TurnedAway:
    """Why a session was turned away; fails where it was not."""
    verdict = of.verdict(uid)
    assert isinstance(verdict, TurnedAway), verdict
    return verdict
