from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.config import Patience
from agent.model.classify import retry_after
from agent.model.failure import ContextOverflowError, ModelError, ModelUnavailableError, NoAnswerError, RateLimitedError
from agent.model.waiting import Tries

DEFAULT = Patience()

MIDDLE = 0.5
"""The chance that neither shortens nor lengthens a wait."""


def waits(failure: ModelError, patience: Patience = DEFAULT, most: int = 100) -> list[float]:
    """All waits until it gives up, each as long as it says."""
    tries, now = Tries(patience), 1000.0
    found: list[float] = []
    while len(found) < most and (wait := tries.next_wait(failure, now, MIDDLE)) is not None:
        found.append(wait)
        now += wait
    return found


def test_waits_grow_up_to_the_horizon_of_their_class() -> None:
    unavailable = waits(ModelUnavailableError(""))
    assert unavailable[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert sum(unavailable) == 900
    limited = waits(RateLimitedError(""), Patience(rate_limited=300))
    assert limited == [5, 10, 20, 40, 60, 60, 60, 45]
    assert waits(NoAnswerError("")) == [0, 1]
    assert waits(ModelUnavailableError(""), Patience(unavailable=0)) == []
    for hopeless in (ModelError(""), ContextOverflowError("")):
        assert waits(hopeless) == []


def test_each_class_of_failure_has_a_count_of_its_own() -> None:
    tries = Tries(Patience())
    failures = [RateLimitedError(""), RateLimitedError(""), ModelUnavailableError(""), NoAnswerError(""), RateLimitedError("")]
    assert [tries.next_wait(failure, 0.0, MIDDLE) for failure in failures] == [5, 10, 1, 0, 20]
    assert tries.count == 5
    assert tries.summary(30.0) == " Tried 5 times in 30 s."
    assert tries.summary(600.0) == " Tried 5 times in 10 min."
    assert Tries(Patience()).summary(0.0) == ""


def test_chance_spreads_the_waits() -> None:
    assert [Tries(Patience()).next_wait(ModelUnavailableError(""), 0.0, chance) for chance in (0.0, 1.0)] == [0.75, 1.25]


@pytest.mark.parametrize("failure", [ModelUnavailableError, RateLimitedError])
def test_the_provider_s_own_wish_decides_within_the_horizon(failure: type[ModelError]) -> None:
    assert Tries(Patience()).next_wait(failure("", retry_after=7), 0.0, MIDDLE) == 7
    assert Tries(Patience()).next_wait(failure("", retry_after=86_400), 0.0, MIDDLE) is None
    at_once = waits(failure("", retry_after=0), most=8)
    assert at_once[:3] == [0, 0, 0]
    assert all(wait > 0 for wait in at_once[3:])


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("-7", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 37.0),
        ("Sun Nov  6 08:49:37 1994", 37.0),
        ("Sun, 06 Nov 1994 08:48:00 GMT", 0.0),
        ("Sun, 36 Nov 1994 08:48:00 GMT", None),
        ("Sun, 06 Nov 99999999999999999999 08:48:00 GMT", None),
        ("tomorrow", None),
        ("nan", None),
        ("", None),
    ],
)
def test_a_retry_after_in_each_of_its_forms(header: str, seconds: float | None) -> None:
    assert retry_after(header, datetime(1994, 11, 6, 8, 49, tzinfo=UTC)) == seconds
