"""Background tasks that nothing awaits: an unexpected end of one is reported."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Supervisor:
    """Keeps the process's background tasks."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._ended = asyncio.Event()
        self.problems: dict[str, str] = {}
        """What went wrong, by the task's name."""

    def start(self, name: str, work: Coroutine[Any, Any, Any], *, may_end: bool = False) -> asyncio.Task[Any]:
        """Run `work` in the background. Its end is a problem, unless it was cancelled, or it may end and did well."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._note(name, done, may_end))
        return task

    async def failed(self) -> None:
        """Wait for the first problem."""
        await self._ended.wait()

    async def cancel(self, *names: str) -> None:
        """End these tasks and wait for them."""
        tasks = [self._tasks[name] for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _note(self, name: str, task: asyncio.Task[Any], may_end: bool) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is None and may_end:
            return
        self.problems[name] = "it ended" if error is None else f"{type(error).__name__}: {error}"
        logger.error("the %s task died", name, exc_info=error)
        self._ended.set()
