"""When watches that end again and again make the operator unhealthy, on a clock of the test's own."""

from __future__ import annotations

from agentsession_operator.process import LONGEST_WATCH_BACKOFF, WATCH_DOWN_SECONDS, WATCH_STABLE_SECONDS, WatchHealth


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_watches_that_are_up_are_healthy() -> None:
    clock = Clock()
    watches = WatchHealth(clock)
    assert watches.health() is None
    watches.began()
    clock.now += 10 * WATCH_DOWN_SECONDS
    assert watches.health() is None


def test_watches_that_never_stay_up_are_unhealthy_after_minutes() -> None:
    clock = Clock()
    watches = WatchHealth(clock)
    while clock.now < 1000 + WATCH_DOWN_SECONDS:
        assert watches.health() is None
        watches.began()
        clock.now += 1
        clock.now += watches.ended()
    clock.now += LONGEST_WATCH_BACKOFF
    assert "the watches have ended" in str(watches.health())


def test_watches_that_recovered_are_healthy_and_stay_so() -> None:
    clock = Clock()
    watches = WatchHealth(clock)
    for _ in range(5):
        watches.began()
        watches.ended()
    watches.began()
    clock.now += 10 * WATCH_DOWN_SECONDS
    assert watches.health() is None


def test_the_backoff_grows_to_its_limit_and_starts_again() -> None:
    clock = Clock()
    watches = WatchHealth(clock)
    waits = []
    for _ in range(8):
        watches.began()
        waits.append(watches.ended())
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.5, LONGEST_WATCH_BACKOFF)
    watches.began()
    clock.now += WATCH_STABLE_SECONDS + 1
    assert watches.ended() == 0.5
