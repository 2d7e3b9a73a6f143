"""The work queue: the sessions to reconcile. The life of a key:

1. `add` puts it on the queue. A key is on the queue at most once: news that comes while it waits changes nothing, because the
   worker reads the newest facts when it starts.
2. `get` hands it to one worker. While that worker is busy, no other worker gets the key; an `add` is only noted.
3. `done` ends the work. A noted `add` puts the key on the queue again, once. A failure makes an appointment with a backoff,
   which doubles with each further failure of this key, up to LONGEST_BACKOFF, without a limit of tries. A success ends the
   backoff. News does not wait for the backoff.
4. `add_after` makes an appointment for a decision that depends on time. A key has one appointment, the earliest; when it is
   due, it is an `add`.

A key that has no news, no worker and no appointment leaves nothing behind. client-go's rate-limiting queue works the same way.

Only `get` awaits. The other methods change several collections that must agree, so they must not await: asyncio runs nothing
else in between.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from agentsession_operator import metrics

FIRST_BACKOFF: Final = 0.2
"""Seconds to wait after the first failure."""
LONGEST_BACKOFF: Final = 60.0
"""Seconds."""
SHORTEST_WAIT: Final = 0.001
"""Seconds until an appointment, at least. asyncio calls what is due within a nanosecond: a wait that rounding leaves, of less
than that, would be an appointment for now, again and again."""

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """See the module's docstring."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._queued: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    # No await from here to `get`.

    def add(self, key: K) -> None:
        """Work on the key soon."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)
            metrics.QUEUE_LENGTH.set(len(self._queued))

    def add_after(self, key: K, seconds: float) -> None:
        """Work on the key in this many seconds. An earlier appointment stays."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(seconds, SHORTEST_WAIT)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def done(self, key: K, *, failed: bool) -> None:
        """The work on the key has ended. If it failed, the key comes again after a backoff."""
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

    async def get(self) -> K:
        """The next key. Call `done` with it afterwards, also when the work raised."""
        # A queue with keys does not suspend its reader. Thousands of keys that need no request would keep everything else from
        # running until the last one was done: the lease would run out.
        await asyncio.sleep(0)
        key = await self._ready.get()
        # No await from here on: the key must not be out of both sets.
        self._queued.discard(key)
        self._working.add(key)
        metrics.QUEUE_LENGTH.set(len(self._queued))
        return key


def backoff(failures: int, chance: float) -> float:
    """Seconds to wait after this many earlier failures in a row; `chance` in [0, 1) spreads the wait by a quarter each way."""
    return min(FIRST_BACKOFF * 2.0 ** min(failures, 16), LONGEST_BACKOFF) * (0.75 + chance / 2)
