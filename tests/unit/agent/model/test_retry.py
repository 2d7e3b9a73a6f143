from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.model.retry import (
    ContextOverflowError,
    ModelError,
    ModelUnavailableError,
    RateLimitedError,
    retry_after,
    retry_wait,
)


def test_the_schedule_of_retries() -> None:
    assert [retry_wait(ModelUnavailableError(""), n) for n in (1, 2, 3)] == [5, 15, None]
    assert [retry_wait(RateLimitedError(""), n) for n in (1, 2, 3, 4)] == [30, 60, 120, None]
    assert retry_wait(RateLimitedError("", retry_after=7), 3) == 7
    assert retry_wait(RateLimitedError("", retry_after=86_400), 1) is None
    assert retry_wait(ModelError(""), 1) is None
    assert retry_wait(ContextOverflowError(""), 1) is None


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
        ("", None),
    ],
)
def test_a_retry_after_in_each_of_its_forms(header: str, seconds: float | None) -> None:
    assert retry_after(header, datetime(1994, 11, 6, 8, 49, tzinfo=UTC)) == seconds
