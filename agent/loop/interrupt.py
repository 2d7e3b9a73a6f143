"""Ends a wait at once when somebody says stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

GRACE = 0.05
"""Seconds that interrupted work has for cleaning up before it is left behind; of the 100 ms that an interrupt has."""


class Interrupted(Exception):
    """The turn was interrupted."""


class CancelledInside(Exception):
    """Something in the work cancelled it: a library's own task group, or a future that was cancelled. As a CancelledError it
    would look like the end of the process."""


class InterruptSignal:
    """One turn's stop sign. Create it on the event loop."""

    def __init__(self) -> None:
        self._stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def set(self) -> None:
        if not self._stop.done():
            self._stop.set_result(None)

    @property
    def is_set(self) -> bool:
        return self._stop.done()

    async def guard(self, work: Coroutine[Any, Any, T], over: asyncio.Future[None] | None = None) -> T:
        """The result of `work`; or Interrupted, as soon as the signal is set, with `work` cancelled.

        The same, but with TimeoutError, as soon as `over` is set. CancelledInside if something else cancels the work.

        Work that does not end within the grace time (a thread that cannot be stopped, a tool that swallows its
        cancellation) is left behind. A result that is there already wins over the signal.
        """
        if self.is_set:
            work.close()
            raise Interrupted
        task = asyncio.ensure_future(work)
        task.add_done_callback(retrieve)
        try:
            ends = (task, self._stop) if over is None else (task, self._stop, over)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if task.cancelled():
                raise CancelledInside("the work was cancelled, and nobody asked for that")
            if task.done():
                return task.result()
            if self.is_set or over is None:
                raise Interrupted
            over.result()
            raise TimeoutError
        finally:
            if not task.done():  # interrupted, or this very wait is being cancelled
                task.cancel()
                await asyncio.wait({task}, timeout=GRACE)


def retrieve(task: asyncio.Future[Any]) -> None:
    """Look at a task's outcome, so that asyncio does not report it as forgotten when nobody waits for it any more."""
    if not task.cancelled():
        task.exception()
