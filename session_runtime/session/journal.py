"""The session's event log: numbers events, makes them durable, and only then shows them to followers.

A follower has a position and no queue: it reads on from there, from the latest events in memory or from the database
when it is behind. So nothing can be lost or doubled between replay and live, a slow follower costs nothing but its
position, and it holds up nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from agent.conversation import Conversation
from session_runtime.session.events import Draft, Frame, earliest, gap, joined, latest, number, timestamp
from session_runtime.session.facts import NO_FACTS, Facts
from session_runtime.session.store import Commit, Store, Submitted
from session_runtime.session.store_errors import is_full

logger = logging.getLogger(__name__)

CHUNK_SECONDS: Final = 0.25
"""While nobody follows, pieces of a message are written at most this often, which is four commits a second; the first of a
burst is written at once."""

FOLLOWED_SECONDS: Final = 0.04
"""The same while somebody follows. Text that comes 60 ms late looks as if it flowed, and writing takes some of these."""

FOLLOWERS: Final = 20
"""With more followers than this the interval grows with their number, so that the wake-ups in a second stay as many."""

TAIL_CHARACTERS: Final = 2_000_000
"""Latest events kept in memory, at least, and at most twice that, by the size of their JSON; older ones are read from
the database."""

BATCH: Final = 256
"""Events that a follower gets at once, at most."""

BATCH_CHARACTERS: Final = 128 * 1024
"""Their size as JSON, at most, unless one alone is longer: what waits in memory for a follower that is stuck."""

RETAIN: Final = timedelta(days=30)
"""Older events are deleted."""

PRUNE_EVERY: Final = 1000
"""Events after which the journal looks for some that can be deleted."""

FULL_SECONDS: Final = 1.0
"""Seconds between two tries on a full volume."""

VOLUME_FULL: Final = (
    "the session's volume is full, also the room reserved for the database. The session continues when there is room: "
    "remove files or enlarge the volume"
)

T = TypeVar("T")

Listener = Callable[[Commit, Sequence[Draft]], None]


@dataclass(frozen=True)
class Change:
    """Something to be written: all of it in one transaction, or nothing."""

    draft: Draft | None = None
    conversation: Conversation | None = None
    accepted: Submitted | None = None
    started: tuple[str, ...] = ()
    """Ids of submissions that are being worked on."""
    ended: tuple[str, ...] = ()
    """Ids of submissions that the event ends; without an event, the latest one counts as their end."""
    facts: Facts = NO_FACTS

    @property
    def is_chunk(self) -> bool:
        """Nothing but a piece of a message, which may wait a moment for the next one."""
        return self == Change(draft=self.draft) and self.draft is not None and self.draft.type == "assistant_chunk"


def chunk_seconds(followers: int) -> float:
    """The shortest time between two writes of pieces of a message."""
    return CHUNK_SECONDS if not followers else min(CHUNK_SECONDS, FOLLOWED_SECONDS * max(1.0, followers / FOLLOWERS))


def assemble(changes: Sequence[Change], last_seq: int) -> Commit:
    """One transaction of these changes, with their events numbered on from `last_seq`."""
    frames: list[Frame] = []
    ended: dict[str, int] = {}
    facts = NO_FACTS
    for change in changes:
        if change.draft is not None:
            last_seq += 1
            frames.append(number(change.draft, last_seq))
        ended.update(dict.fromkeys(change.ended, last_seq))
        facts = facts.updated(change.facts)
    return Commit(
        frames=tuple(frames),
        accepted=tuple(change.accepted for change in changes if change.accepted is not None),
        started=tuple(submission_id for change in changes for submission_id in change.started),
        ended=ended,
        conversation=next((c.conversation for c in reversed(changes) if c.conversation is not None), None),
        facts=facts,
        only_chunks=all(change.is_chunk for change in changes),
    )


class Journal:
    """The one way into the database. `run` must be running for changes to be written; when it fails, the process
    must end, because what it knows is then ahead of what is durable.
    """

    def __init__(self, store: Store, last_seq: int, clock: Callable[[], datetime], tail: int = TAIL_CHARACTERS) -> None:
        self.listeners: list[Listener] = []
        """Called for each transaction when it is durable, before any follower sees it."""
        self.problem: str | None = None
        """What keeps changes from being written at the moment."""
        self._store = store
        self._last_seq = last_seq
        self._clock = clock
        self._pending: list[tuple[Change, asyncio.Future[Commit] | None]] = []
        self._something = asyncio.Event()
        self._urgent = asyncio.Event()
        self._tail: list[Frame] = []
        self._long: WeakValueDictionary[int, Frame] = WeakValueDictionary()
        self._tail_size = 0
        self._tail_limit = tail
        self._followers = 0
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed = False
        self._failure: BaseException | None = None
        # Blocking file work stays off the event loop. Two threads, because a long replay must not hold up a commit.
        self._write_thread = ThreadPoolExecutor(1, "database-writer")
        self._read_thread = ThreadPoolExecutor(1, "database-reader")

    @property
    def last_seq(self) -> int:
        """Number of the latest durable event, 0 before the first."""
        return self._last_seq

    def draft(self, type_: str, data: Mapping[str, object], submission_id: str | None = None) -> Draft:
        """An event of this moment."""
        return Draft(type_, data, self._clock(), submission_id)

    def chunk(self, draft: Draft) -> None:
        """Take a piece of a message; it is written within `chunk_seconds`, or with the next change."""
        if self._pending and self._pending[-1][0].is_chunk:
            last = self._pending[-1][0].draft
            together = joined(last, draft) if last is not None else None
            if together is not None:
                self._pending[-1] = (Change(draft=together), None)
                return
        self._pending.append((Change(draft=draft), None))
        self._something.set()

    async def write(self, *changes: Change) -> Commit:
        """Write changes in one transaction, behind all that came before them; they are durable when this returns.

        Cancelling the call takes nothing back. Raises what the database raised, which also ends `run`.
        """
        if self._failure is not None:
            raise self._failure
        done: asyncio.Future[Commit] = asyncio.get_running_loop().create_future()
        *first, last = changes
        self._pending.extend((change, None) for change in first)  # without a wait between them they are one batch
        self._pending.append((last, done))
        self._something.set()
        self._urgent.set()
        return await done

    async def run(self) -> None:
        """Write what is pending, until cancelled. Raises what the database raises, and from then on so does `write`."""
        try:
            await self._run()
        except BaseException as error:
            self._failure = error
            for _, done in self._pending:
                if done is not None and not done.done():
                    done.set_exception(error)
            raise

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        last_chunks = -math.inf
        next_prune = self._last_seq
        while True:
            if self._last_seq >= next_prune:
                next_prune = self._last_seq + PRUNE_EVERY
                await self._prune(timestamp(self._clock() - RETAIN))
            await self._something.wait()
            if not self._urgent.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(last_chunks + chunk_seconds(self._followers)):
                        await self._urgent.wait()
            batch, self._pending = self._pending, []
            self._something.clear()
            self._urgent.clear()
            await self._commit(batch)
            if any(change.is_chunk for change, _ in batch):
                last_chunks = loop.time()

    async def _prune(self, older_than: str) -> None:
        try:
            await self._in(self._write_thread, lambda: self._store.prune(older_than))
        except sqlite3.Error as error:
            if not is_full(error):
                raise
        await self._in(self._write_thread, self._store.reserve)

    async def _commit(self, batch: Sequence[tuple[Change, asyncio.Future[Commit] | None]]) -> None:
        waiting = [done for _, done in batch if done is not None]
        changes = [change for change, _ in batch]
        commit = assemble(changes, self._last_seq)
        try:
            await self._apply(commit)
        except BaseException as error:
            for done in waiting:
                if not done.done():
                    done.set_exception(error)
                    done.exception()  # the waiting task may be gone
            raise
        drafts = [change.draft for change in changes if change.draft is not None]
        for listener in self.listeners:
            listener(commit, drafts)
        self._show(commit.frames)
        for done in waiting:
            if not done.done():
                done.set_result(commit)

    async def _apply(self, commit: Commit) -> None:
        """Write the commit. On a full volume it waits for room: the session stays, and its commands may still remove files."""
        while True:
            try:
                await asyncio.shield(self._in(self._write_thread, lambda: self._store.apply(commit)))
            except sqlite3.Error as error:
                if not is_full(error):
                    raise
                if self.problem is None:
                    self.problem = VOLUME_FULL
                    logger.error("%s", VOLUME_FULL)
                await asyncio.sleep(FULL_SECONDS)
                continue
            if self.problem is not None:
                logger.info("the session's volume has room again")
                self.problem = None
            return

    def _show(self, frames: Sequence[Frame]) -> None:
        if not frames:
            return
        self._last_seq = frames[-1].seq
        self._tail.extend(frames)
        self._tail_size += sum(len(frame.body) for frame in frames)
        if self._tail_size > 2 * self._tail_limit:
            self._tail = latest(self._tail, self._tail_limit)
            self._tail_size = sum(len(frame.body) for frame in self._tail)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    async def changed(self) -> None:
        """Wait for the next durable event, or for the end."""
        if not self._closed:
            await asyncio.shield(self._changed)

    async def read(self, after: int) -> list[Frame]:
        """The next events behind number `after`, as many as make a batch; none when there are no more yet."""
        if after >= self._last_seq:
            return []
        if self._tail and self._tail[0].seq <= after + 1:
            skip = after + 1 - self._tail[0].seq
            return earliest(self._tail[skip : skip + BATCH], BATCH_CHARACTERS)
        frames = await self._in(self._read_thread, lambda: self._store.frames(after, BATCH, BATCH_CHARACTERS))
        return [self._shared(frame) for frame in frames]

    def _shared(self, frame: Frame) -> Frame:
        """A long event is once in memory, even if many followers read it from the database: it can have megabytes."""
        return frame if len(frame.body) <= BATCH_CHARACTERS else self._long.setdefault(frame.seq, frame)

    async def follow(self, after: int, keep_alive: float) -> AsyncGenerator[list[Frame], None]:
        """Events behind number `after` for as long as the session lasts, in batches; an empty one after each
        `keep_alive` seconds of silence.

        Where events are gone, or `after` is a number that this session never gave (its volume was lost, and it
        started again), one `gap` event says so, and the rest follows. Close it when it is no longer read (`aclosing`): while
        somebody follows, text is written more often.
        """
        self._followers += 1
        if self._followers == 1 and self._pending:
            self._urgent.set()  # what waits was to be written in the interval of a session that nobody follows
        try:
            async for frames in self._follow(after, keep_alive):
                yield frames
        finally:
            self._followers -= 1

    async def _follow(self, after: int, keep_alive: float) -> AsyncIterator[list[Frame]]:
        asked = after
        after = after if after <= self._last_seq else 0
        while True:
            changed = self._changed  # before reading: what comes in between is then not waited for
            frames = await self.read(after)
            if frames:
                if frames[0].seq != asked + 1:
                    frames = [gap(asked, frames[0].seq, self._clock()), *frames]
                asked = after = frames[-1].seq
            elif self._closed:
                return
            else:
                await asyncio.wait([changed], timeout=keep_alive)
                if changed.done():
                    continue
            yield frames

    def close(self) -> None:
        """No more events will come: followers get what there is, and then their end."""
        self._closed = True
        self._wake()

    async def checkpoint(self) -> None:
        """See `Store.checkpoint`."""
        await self._in(self._write_thread, self._store.checkpoint)

    async def release(self) -> None:
        """Let the threads and the database go. Call it when `run` and all followers have ended."""
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._write_thread.shutdown()
        self._read_thread.shutdown()
        self._store.close()

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
