"""One object is never written in a storm, and a healthy one never waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.decisions.pacing import BURST, RECOVERY_SECONDS, Pace


def paced(count: int, start: float = 0.0) -> tuple[Pace, float]:
    """A pace after `count` writes that were sent as early as allowed, and the time of the last."""
    pace, now = Pace(), start
    for _ in range(count):
        now += pace.wait(now)
        pace = pace.written(now)
    return pace, now


def test_a_burst_is_written_without_waiting() -> None:
    _, now = paced(BURST)
    assert now == 0.0


def test_after_a_burst_one_write_is_allowed_in_ten_seconds() -> None:
    pace, now = paced(BURST + 30)
    assert pace.wait(now) == pytest.approx(RECOVERY_SECONDS)
    assert now == pytest.approx(30 * RECOVERY_SECONDS)


def test_a_quiet_object_is_forgiven() -> None:
    pace, now = paced(BURST + 5)
    later = now + RECOVERY_SECONDS * (2 * BURST)
    assert pace.wait(later) == 0.0
    assert pace.forgotten(later)
    assert not pace.forgotten(now)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_no_minute_has_more_than_a_burst_and_what_is_forgiven(pauses: list[float]) -> None:
    pace, now, sent = Pace(), 0.0, []
    for pause in pauses:
        now += pause
        if pace.wait(now) == 0.0:
            pace = pace.written(now)
            sent.append(now)
    for first in sent:
        assert len([moment for moment in sent if first <= moment < first + 60]) <= BURST + 60 / RECOVERY_SECONDS + 1
