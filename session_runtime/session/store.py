"""The session's database: events, submissions, the conversation and a few facts, in one SQLite file.

Each `apply` is one transaction, so that a kill at any moment leaves the events, the conversation and the state of the
submissions telling the same story. All methods block; callers run them in a thread. One thread writes; reading
has a connection of its own, which write-ahead logging keeps out of the writer's way.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from agent.conversation import Conversation
from agent.messages import Message
from session_runtime.session import stored_images
from session_runtime.session.events import Frame, earliest
from session_runtime.session.facts import NO_FACTS, Facts
from session_runtime.session.reserve import Reserve
from session_runtime.session.store_errors import DAMAGED, StoreError, unusable

DATABASE: Final = "session.db"

RETAIN_CHARACTERS: Final = 200_000_000
"""Events are kept up to this size, as JSON; the volume's limit is ten times that."""

RETAIN_SHARE: Final = 0.05
"""The share of its volume that events may take. The workspace's server leaves 15% to the database (`limits.py`)."""

MIGRATIONS: Final = (
    """
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE submissions (
        position INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        type TEXT NOT NULL,
        body TEXT NOT NULL,
        accepted_at TEXT NOT NULL,
        started INTEGER NOT NULL DEFAULT 0,
        ended_by INTEGER
    );
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY, submission_id TEXT, time TEXT NOT NULL, body TEXT NOT NULL, size INTEGER NOT NULL
    );
    CREATE TABLE messages (position INTEGER PRIMARY KEY, body TEXT NOT NULL);
    """,
    """
    ALTER TABLE messages RENAME TO old_messages;
    CREATE TABLE messages (
        agent TEXT NOT NULL, position INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (agent, position)
    ) WITHOUT ROWID;
    INSERT INTO messages SELECT '', position, body FROM old_messages;
    DROP TABLE old_messages;
    """,
    stored_images.TABLE,
)
"""Scripts that bring a database from version n to n + 1; `PRAGMA user_version` says where it stands."""


HELD: Final = b"1"
"""What the lock's file says once the folder has held a database."""

DIGEST: Final = "sha256:"
"""Prefix of a digest in place of a body, which begins with a brace."""


def digest(body: str) -> str:
    """What is kept of a body that is not needed any more, so that the same id with another body is still noticed."""
    return body if body.startswith(DIGEST) else DIGEST + hashlib.sha256(body.encode()).hexdigest()


@dataclass(frozen=True)
class Submitted:
    """A submission as the queue keeps it."""

    id: str
    type: str
    body: str
    """The submission as JSON, in one canonical form, so that equal submissions have equal bodies; once it has ended, the
    digest of that."""
    accepted_at: str
    started: bool = False
    ended_by: int | None = None
    """Number of the event that ended it; None while it is queued or runs."""

    def says(self, body: str) -> bool:
        """Whether this is its body."""
        return self.body in (body, digest(body))


@dataclass(frozen=True)
class Commit:
    """Everything that one transaction writes."""

    frames: tuple[Frame, ...] = ()
    accepted: tuple[Submitted, ...] = ()
    started: tuple[str, ...] = ()
    ended: Mapping[str, int] = field(default_factory=dict)
    """Ids of submissions, with the number of the event that ended them."""
    conversation: Conversation | None = None
    facts: Facts = NO_FACTS
    only_chunks: bool = False
    """Nothing but pieces of a message that will be written whole later on."""


@dataclass(frozen=True)
class Loaded:
    """What a database holds when it is opened."""

    last_seq: int
    submissions: tuple[Submitted, ...]
    conversation: Conversation
    facts: Facts


class Store:
    """An open session database. Raises StoreError when another process has it open, or when it is of a newer version."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(directory / "lock")
        except OSError as error:
            raise unusable(f"{directory} cannot be used", error, directory) from error
        self.path = directory / DATABASE
        self._reserve = Reserve(self.path)
        self._writer = self._open()
        self._reader = _connect(self.path)
        self._reader.execute("PRAGMA query_only = 1")
        self._stored: Mapping[str, tuple[Message, ...]] = {}
        self._measure()

    def _open(self) -> sqlite3.Connection:
        """The connection that writes. Raises StoreError."""
        try:
            self._check_not_lost()
            self._reserve.give()
            writer = _connect(self.path)
            try:
                writer.execute("PRAGMA journal_mode = WAL")
                _migrate(writer, self.path)
            except BaseException:
                writer.close()
                raise
            self._reserve.take()
            with suppress(OSError):
                os.pwrite(self._lock, HELD, 0)
        except (sqlite3.Error, OSError) as error:
            os.close(self._lock)
            raise unusable(f"{self.path} cannot be opened", error, self.path.parent) from error
        except BaseException:
            os.close(self._lock)
            raise
        return writer

    def _check_not_lost(self) -> None:
        """SQLite takes an empty file for a new database, so a session that has lost its file would start again from nothing."""
        if os.pread(self._lock, len(HELD), 0) == HELD and (not self.path.exists() or self.path.stat().st_size == 0):
            raise StoreError(
                f"{self.path} is empty or missing, but it held a session before. "
                "Restore it from a snapshot or an archive of the session, or start a new session"
            )

    def load(self) -> Loaded:
        """What the database holds. Call it once, before the first `apply`. Raises StoreError when it is damaged."""
        try:
            return self._load()
        except (sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.path} cannot be read: {type(error).__name__}: {error}. {DAMAGED}") from error

    def _load(self) -> Loaded:
        rows = self._writer.execute("SELECT id, type, body, accepted_at, started, ended_by FROM submissions ORDER BY position")
        submissions = tuple(Submitted(i, t, body, at, bool(started), end) for i, t, body, at, started, end in rows)
        facts = Facts.from_rows(self._writer.execute("SELECT name, value FROM facts"))
        images = stored_images.load(self._writer)
        bodies = self._writer.execute("SELECT agent, body FROM messages ORDER BY agent, position")
        self._stored = {
            agent: tuple(stored_images.message_of(body, images) for _, body in of_agent)
            for agent, of_agent in groupby(bodies, key=itemgetter(0))
        }
        state = Conversation() if facts.conversation is None else Conversation.from_json(facts.conversation)
        return Loaded(
            last_seq=facts.last_seq or 0,
            submissions=submissions,
            conversation=_with_messages(state, self._stored),
            facts=facts,
        )

    def apply(self, commit: Commit) -> None:
        """Write all of it, or, when an exception comes out, nothing.

        It is on the disk when this returns. Only pieces of a message are not waited for so long: a process that is
        killed loses none, a machine that loses power may lose the last of them, and the turn is cut off then anyway.
        """
        self._writer.execute(f"PRAGMA synchronous = {'NORMAL' if commit.only_chunks else 'FULL'}")
        with _transaction(self._writer) as database:
            database.executemany(
                "INSERT INTO submissions (id, type, body, accepted_at) VALUES (?, ?, ?, ?)",
                [(s.id, s.type, s.body, s.accepted_at) for s in commit.accepted],
            )
            database.executemany("UPDATE submissions SET started = 1 WHERE id = ?", [(s,) for s in commit.started])
            database.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                [(frame.seq, frame.submission_id, frame.time, frame.body, len(frame.body)) for frame in commit.frames],
            )
            database.executemany(
                "UPDATE submissions SET ended_by = ?, body = digest(body) WHERE id = ?",
                [(seq, s) for s, seq in commit.ended.items()],
            )
            facts = commit.facts
            if commit.frames:
                facts = replace(facts, last_seq=commit.frames[-1].seq)
            if commit.conversation is not None:
                facts = replace(facts, conversation=self._write_conversation(database, commit.conversation))
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.to_rows())
        self._size += sum(len(frame.body) for frame in commit.frames)
        if commit.conversation is not None:
            self._stored = _messages(commit.conversation)

    def retained(self) -> int:
        """The size up to which events are kept: less on a small volume."""
        with suppress(OSError):
            status = os.statvfs(self.path)
            return min(RETAIN_CHARACTERS, int(status.f_blocks * status.f_frsize * RETAIN_SHARE))
        return RETAIN_CHARACTERS

    def prune(self, older_than: str, characters: int | None = None) -> None:
        """Delete the oldest events: those older than a timestamp, and, when all together are longer than `characters`,
        so many that a quarter of that becomes free. The latest event always stays.
        """
        characters = self.retained() if characters is None else characters
        oldest = self._writer.execute("SELECT time FROM events ORDER BY seq LIMIT 1").fetchone()
        if oldest is None or (oldest[0] >= older_than and self._size <= characters):
            return
        excess = self._size - characters * 3 // 4 if self._size > characters else 0
        rows = self._writer.execute("SELECT seq, time, size FROM events ORDER BY seq")
        last_seq = freed = 0
        for seq, time, size in rows:
            if freed >= excess and time >= older_than:
                break
            last_seq, freed = seq, freed + size
        rows.close()
        with _transaction(self._writer) as database:
            kept = "(SELECT max(seq) FROM events)"
            database.execute(f"DELETE FROM events WHERE seq <= ? AND seq < {kept}", (last_seq,))  # noqa: S608 - a constant
        self._measure()

    def _measure(self) -> None:
        (self._size,) = self._writer.execute("SELECT coalesce(sum(size), 0) FROM events").fetchone()

    def frames(self, after: int, limit: int, characters: int) -> list[Frame]:
        """The events behind number `after`, in order: at most `limit`, and no more than fit into so many characters."""
        rows = self._reader.execute(
            "SELECT seq, submission_id, time, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
        )
        with closing(rows):
            return earliest((Frame(*row) for row in rows), characters)

    def checkpoint(self) -> None:
        """Bring everything into the one database file, so that a copy of it is the whole session."""
        self._writer.execute("PRAGMA wal_checkpoint(RESTART)")  # TRUNCATE would give the log's reserved blocks away

    def reserve(self) -> None:
        """Reserve again what has been used of the room for the database."""
        self._reserve.take()

    def close(self) -> None:
        self._reserve.keep()
        self._reader.close()
        self._writer.close()
        os.close(self._lock)

    def _write_conversation(self, database: sqlite3.Connection, conversation: Conversation) -> str:
        """Write the messages that differ from the stored ones; returns the rest of the conversation as JSON.

        A turn adds messages at the end, and rarely changes one, so that a step costs its own size and not the
        conversation's.
        """
        messages = _messages(conversation)
        stored_images.write(database, chain(*self._stored.values()), chain(*messages.values()))
        for agent in self._stored.keys() | messages.keys():
            now = messages.get(agent, ())
            kept = common_prefix(self._stored.get(agent, ()), now)
            database.execute("DELETE FROM messages WHERE agent = ? AND position >= ?", (agent, kept))
            database.executemany(
                "INSERT INTO messages VALUES (?, ?, ?)",
                [(agent, position, stored_images.row_of(message)) for position, message in enumerate(now[kept:], kept)],
            )
        # Read and written again for the escapes: a lone surrogate in a call's arguments cannot be stored as UTF-8.
        return json.dumps(
            json.loads(_with_messages(conversation, dict.fromkeys(messages, ())).to_json()), separators=(",", ":")
        )


def _messages(conversation: Conversation) -> dict[str, tuple[Message, ...]]:
    """The messages of the agent, under an empty name, and those of its sub-agents, under the calls they work for."""
    return {"": conversation.messages, **{call_id: sub.messages for call_id, sub in conversation.subagents.items()}}


def _with_messages(conversation: Conversation, messages: Mapping[str, tuple[Message, ...]]) -> Conversation:
    """The conversation with these messages in place of its own; `messages` is as `_messages` has it."""
    subs = {
        call_id: replace(sub, messages=messages.get(call_id, sub.messages)) for call_id, sub in conversation.subagents.items()
    }
    return replace(conversation, messages=messages.get("", conversation.messages), subagents=subs)


def common_prefix(before: Sequence[Message], after: Sequence[Message]) -> int:
    """How many messages both begin with."""
    pairs = zip(before, after, strict=False)
    same = (at for at, (a, b) in enumerate(pairs) if a is not b and a != b)
    return next(same, min(len(before), len(after)))


def _lock(path: Path) -> int:
    """Keep a second process out for as long as this one lives, however it ends."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise StoreError(
            f"{path.parent} is in use by another process. Stop that process, or name another --state-dir"
        ) from error
    return handle


def _connect(path: Path) -> sqlite3.Connection:
    # Threads take turns at it, each connection has its own; sqlite3's check would only see that they differ.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.create_function("digest", 1, digest, deterministic=True)
    return connection


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} has version {version}, but this runtime supports versions up to {len(MIGRATIONS)}. "
            "Use the runtime that wrote it, or a newer one"
        )
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        database.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
