"""Watches a stream of the model in which nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self


class Silence:
    """For the time of one model call: reports a long silence once, and sets `over` when it has lasted too long.

    Only content ends a silence. Servers and proxies send comments and empty pieces while what is behind them hangs.
    """

    def __init__(self, notice: float, limit: float, report: Callable[[float], Awaitable[None]]) -> None:
        """`notice` and `limit` are seconds; `report` gets the seconds of silence so far."""
        loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = loop.create_future()
        self._now = loop.time
        self._heard_at = loop.time()
        self._notice, self._limit = notice, limit
        self._report = report
        self._ended = asyncio.Event()

    def heard(self) -> None:
        """There was content."""
        self._heard_at = self._now()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()  # not a cancellation: a report that has begun is made
        await self._task
        if not self.over.cancel() and not self.over.cancelled():
            self.over.exception()  # it has been raised, or came too late to matter

    async def _watch(self) -> None:
        reported: float | None = None
        try:
            while not self._ended.is_set():
                silent = self._now() - self._heard_at
                if silent >= self._notice and reported != self._heard_at:
                    reported = self._heard_at
                    await self._report(silent)
                if self._now() - self._heard_at >= self._limit:  # a report takes time, and content may have come meanwhile
                    self.over.set_result(None)
                    return
                due = self._limit if reported == self._heard_at else min(self._notice, self._limit)
                try:
                    async with asyncio.timeout_at(self._heard_at + due):
                        await self._ended.wait()
                except TimeoutError:
                    continue
        except Exception as error:  # what receives the events failed: that ends the turn
            self.over.set_exception(error)
