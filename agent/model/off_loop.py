"""Runs a model's client on an event loop of its own.

Clients transform the whole history with each request, which takes them 200 ms for 2,000 messages. On the agent's event loop
interrupts, health checks and everybody who follows the session would wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from functools import cache
from typing import TypeVar

T = TypeVar("T")


async def off_loop(make: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """What the generator that `make` returns yields and raises, while it runs on the loop of another thread.

    `make` is called there. When this generator is closed, the other one is cancelled, and not waited for.
    """
    here = asyncio.get_running_loop()
    # Unbounded: an answer fits into memory, and is taken out of the socket as it comes.
    arrived: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue()

    def put(item: tuple[T] | BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody is there any more
            here.call_soon_threadsafe(arrived.put_nowait, item)

    async def run() -> None:
        try:
            async with contextlib.aclosing(make()) as items:
                async for item in items:
                    put((item,))
        except asyncio.CancelledError as error:
            # As a CancelledError it would look like the end of the caller.
            put(RuntimeError(f"the model's client cancelled itself: {error!r}"))
            raise
        except BaseException as error:
            put(error)
        else:
            put(None)

    running = asyncio.run_coroutine_threadsafe(run(), _other_loop())
    try:
        while (item := await arrived.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        running.cancel()


@cache
def _other_loop() -> asyncio.AbstractEventLoop:
    """One for the process, so that clients keep their connections. Its thread ends with the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="model-client", daemon=True).start()
    return loop
