"""An event loop on which time passes only when there is nothing else to do, and then at once.

A module whose async tests run on it overrides the fixture:

    @pytest.fixture
    def anyio_backend() -> Backend:
        return VIRTUAL_TIME

A single test uses `@pytest.mark.parametrize("anyio_backend", [VIRTUAL_TIME])`. The examples of a hypothesis test share one
loop, so they compare times with the time at their start.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any, Final


class _Selector(selectors.DefaultSelector):
    """Advances the clock instead of sleeping."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not events:
            if timeout is None:
                raise AssertionError("every task waits, and no timer is due")
            self.now += timeout
        return events


class Loop(asyncio.SelectorEventLoop):
    """Its `time` starts at 0, and `asyncio.sleep` takes no real time."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


Backend = tuple[str, dict[str, Any]]

VIRTUAL_TIME: Final[Backend] = ("asyncio", {"loop_factory": Loop})
"""What the `anyio_backend` fixture of a module returns if its tests run on this clock."""
