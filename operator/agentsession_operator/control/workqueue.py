"""A queue of keys: each is there once, is worked on by one worker at a time, and backs off by itself when its work fails."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from agentsession_operator import metrics

FIRST_BACKOFF: Final = 0.2
LONGEST_BACKOFF: Final = 60.0


class WorkQueue:
    """As client-go's rate-limiting queue: a key that is added while it is worked on comes again afterwards, once."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}

    def add(self, key: str) -> None:
        """Work on the key soon."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)
            metrics.QUEUE_LENGTH.set(len(self._queued))

    def add_after(self, key: str, seconds: float) -> None:
        """Work on the key in some time; an earlier appointment stands."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(seconds, 0)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    def _due(self, key: str) -> None:
        del self._timers[key]
        self.add(key)

    async def get(self) -> str:
        """The next key; call `done` with it afterwards, whatever came of it."""
        key = await self._ready.get()
        self._queued.discard(key)
        self._working.add(key)
        metrics.QUEUE_LENGTH.set(len(self._queued))
        return key

    def done(self, key: str, *, failed: bool) -> None:
        """The work on the key has ended. A failure makes it come again, later each time, without a limit of tries."""
        self._working.discard(key)
        if failed:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            self.add_after(key, backoff(failures, random.random()))  # noqa: S311 - spreads load, keeps no secret
        else:
            self._failures.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)


def backoff(failures: int, chance: float) -> float:
    """Seconds to wait after so many failures in a row; `chance` in [0, 1) spreads them by half."""
    return min(FIRST_BACKOFF * 2.0 ** min(failures, 16), LONGEST_BACKOFF) * (0.75 + chance / 2)
