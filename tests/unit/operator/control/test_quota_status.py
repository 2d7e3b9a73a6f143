"""How full a quota says it is."""

from __future__ import annotations

from agentsession_operator.control.quota_status import quota_status
from support.control_plane.builders import STAMP, quota


def test_the_status_holds_the_counts_and_their_generation() -> None:
    status = quota_status(quota(maxSessions=5), used=3, queued=2, now=STAMP)
    assert (status["used"], status["queued"], status["observedGeneration"]) == (3, 2, 1)
    (ready,) = status["conditions"]
    assert (ready["type"], ready["status"], ready["reason"], ready["lastTransitionTime"]) == (
        "Ready",
        "True",
        "Enforced",
        STAMP,
    )


def test_a_quota_that_cannot_be_read_says_what_follows() -> None:
    (ready,) = quota_status(quota(maxSessions="many"), used=0, queued=0, now=STAMP)["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "Unreadable")
    assert "No session is admitted" in ready["message"]


def test_a_status_that_holds_is_computed_as_it_is() -> None:
    first = quota_status(quota(), used=3, queued=2, now=STAMP)
    assert quota_status(quota(status=first), used=3, queued=2, now="2026-06-01T00:00:00Z") == first
