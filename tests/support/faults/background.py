"""An event loop in a thread of its own: proxy and recorder run there while the test, which is not asynchronous, waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Runs coroutines for a thread that has no event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="faults", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], *, within: float = 30.0) -> T:
        """The result of a coroutine. Raises TimeoutError after `within` seconds."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(within)

    def stop(self) -> None:
        """Cancel what still runs, and end the thread."""
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _cancel_all(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # TLS connections say goodbye after their session has been closed (aiohttp, "Graceful shutdown").
        await asyncio.sleep(0.2)
