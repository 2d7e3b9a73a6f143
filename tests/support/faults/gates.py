"""Where requests and watches wait for the test, for time to pass, or for their turn. All of it ends when the proxy stops."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from support.faults.rules import Reorder


class Unanswered(Exception):
    """The operator gets no answer to this request."""


class _Turns:
    """Requests that are collected to be forwarded in reverse order."""

    def __init__(self) -> None:
        self.waiting: list[tuple[asyncio.Event, asyncio.Event]] = []
        """For each: it may go, and it has ended."""
        self.complete = asyncio.Event()


class Gates:
    """Each wait raises Unanswered where the proxy stops meanwhile: what was held is not let loose then."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._gates: dict[str, asyncio.Event] = {}
        self._held: dict[str, int] = {}
        self._turns: dict[object, _Turns] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def held(self, key: str) -> int:
        """How many wait for a key."""
        return self._held.get(key, 0)

    def release(self, key: str) -> None:
        """Let go what waits for a key, or will."""
        self._gate(key).set()

    def stop(self) -> None:
        """End every wait."""
        self.stopping.set()
        for task in self._tasks:
            task.cancel()
        for gate in self._gates.values():
            gate.set()
        for turns in self._turns.values():
            for go, _ in turns.waiting:
                go.set()

    async def hold(self, key: str) -> None:
        """Wait until the key is released."""
        self._held[key] = self.held(key) + 1
        try:
            await self._gate(key).wait()
        finally:
            self._held[key] -= 1
        self._check()

    async def sleep(self, seconds: float) -> None:
        """Wait some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        self._check()

    async def wait_for_turn(self, rule: object, step: Reorder) -> None:
        """Wait until enough requests have come, and those that came later have been answered."""
        turns = self._turns.get(rule)
        if turns is None:
            turns = self._turns[rule] = _Turns()
            task: asyncio.Task[Any] = asyncio.create_task(self._take_turns(rule, turns, step))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        go, ended = asyncio.Event(), asyncio.Event()
        turns.waiting.append((go, ended))
        if len(turns.waiting) == step.size:
            turns.complete.set()
        await go.wait()
        self._check()

    def turn_ended(self, rule: object) -> None:
        """The request whose turn it was has its answer."""
        for turns in [self._turns[rule]] if rule in self._turns else ():
            for go, ended in turns.waiting:
                if go.is_set():
                    ended.set()

    async def _take_turns(self, rule: object, turns: _Turns, step: Reorder) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(step.within):
                await turns.complete.wait()
        while turns.waiting:
            go, ended = turns.waiting[-1]
            go.set()
            await ended.wait()
            turns.waiting.remove((go, ended))
        del self._turns[rule]

    def _gate(self, key: str) -> asyncio.Event:
        return self._gates.setdefault(key, asyncio.Event())

    def _check(self) -> None:
        if self.stopping.is_set():
            raise Unanswered
