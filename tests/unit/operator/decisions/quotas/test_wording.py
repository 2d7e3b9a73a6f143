"""The words of a wait that no limit explains, and of users who are counted together."""

from __future__ import annotations

from agentsession_operator.api.conditions import AdmittedReason
from agentsession_operator.decisions.quotas import wording
from agentsession_operator.decisions.quotas.lanes import Blocked
from support.control_plane.claims import admission, capped, claim


def test_others_are_first_where_no_limit_is_full() -> None:
    (limit,) = admission([], capped(1, 1)).ledger.limits.values()
    told = wording.wait(Blocked(AdmittedReason.QUEUED, limit), None)
    assert (told.reason, told.message) == (
        "Queued",
        "Queued: others are first (SessionQuota default). The session starts by itself.",
    )


def test_between_two_batches_nobody_has_moved_because_of_a_limit() -> None:
    of = admission([claim(f"s{number}", f"u{number}", number) for number in range(3)], capped(3, 1))
    assert of.decide(1).more
    assert of.moved(50) == ["s1", "s2"]
    assert of.verdict("s1") is None
