"""The database: all or nothing, and the same after it is opened again."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.conversation import Conversation, PendingApproval
from agent.messages import Message, ToolCall
from session_runtime.session.events import Frame
from session_runtime.session.facts import Facts, Resumes
from session_runtime.session.outcome import Ending
from session_runtime.session.store import DATABASE, MIGRATIONS, Commit, Store, Submitted, common_prefix, digest
from session_runtime.session.store_errors import StoreError

CONVERSATION = Conversation(
    messages=(
        Message("user", "hi \ud800"),
        Message("assistant", "", (ToolCall("c1", "bash", '{"command": "ls"}'), ToolCall("c2", "read", "{}"))),
        Message("tool", "a.txt", tool_call_id="c1"),
    ),
    pending=(PendingApproval("c2", "read", {"path": "\udfff"}, "why"),),
    in_turn=True,
    subagents={"c2": Conversation((Message("user", "find \ud800"), Message("assistant", "found")), in_turn=True)},
)


def test_what_was_applied_is_there_after_opening_it_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.load().conversation == Conversation()
    frames = tuple(Frame(seq, "s" if seq % 2 else None, "t", f"body {seq}") for seq in range(1, 6))
    submitted = Submitted("s", "user_input", "{}", "now")
    first = Facts(created_at="then", last_activity_time="now", resumes=Resumes("s", 1))
    second = Facts(resumes=Resumes("s", 2), outcome=Ending("Failed", "why"), finished="later", report_sequence=3)
    store.apply(Commit(frames, accepted=(submitted,), started=("s",), conversation=CONVERSATION, facts=first))
    store.apply(Commit(ended={"s": 5}, facts=second))
    store.close()
    again = Store(tmp_path)
    loaded = again.load()
    assert loaded.last_seq == 5
    assert loaded.submissions == (replace(submitted, body=digest("{}"), started=True, ended_by=5),)
    assert loaded.conversation == CONVERSATION
    assert replace(loaded.facts, last_seq=None, conversation=None) == first.updated(second)
    assert again.frames(2, 2, 10**6) == list(frames[2:4])
    again.close()


some_messages = st.lists(st.integers(0, 2).map(lambda n: Message("user", str(n))), max_size=6).map(tuple)
some_states = st.builds(
    Conversation,
    messages=some_messages,
    subagents=st.dictionaries(st.sampled_from(["a", "b"]), st.builds(Conversation, messages=some_messages)),
)


@given(st.lists(some_states, max_size=8))
def test_the_stored_messages_follow_every_change(tmp_path_factory: pytest.TempPathFactory, states: list[Conversation]) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = Store(folder)
    store.load()
    for conversation in states:
        store.apply(Commit(conversation=conversation))
    store.close()
    again = Store(folder)
    assert again.load().conversation == (states[-1] if states else Conversation())
    again.close()


def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    before = Conversation((Message("user", "hi"), Message("assistant", "hello")))
    database = sqlite3.connect(tmp_path / DATABASE)
    database.executescript(f"{MIGRATIONS[0]} PRAGMA user_version = 1;")
    bodies = [(at, json.dumps(message.to_dict())) for at, message in enumerate(before.messages)]
    database.executemany("INSERT INTO messages VALUES (?, ?)", bodies)
    database.execute("INSERT INTO facts VALUES ('conversation', ?)", (replace(before, messages=()).to_json(),))
    database.commit()
    database.close()
    store = Store(tmp_path)
    assert store.load().conversation == before
    after = replace(before, messages=(*before.messages, Message("user", "go on")))
    store.apply(Commit(conversation=after))
    store.close()
    again = Store(tmp_path)
    assert again.load().conversation == after
    again.close()


def test_the_common_prefix_is_by_value() -> None:
    a, b = Message("user", "a"), Message("user", "b")
    assert common_prefix((), (a,)) == 0
    assert common_prefix((a, b), (a,)) == 1
    assert common_prefix((a, b), (replace(a), b, a)) == 2
    assert common_prefix((a, b), (b, b)) == 0


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.load()
    twice = Submitted("s", "undo", "{}", "now")
    store.apply(Commit(accepted=(twice,)))
    with pytest.raises(sqlite3.IntegrityError):
        store.apply(Commit(frames=(Frame(1, None, "t", "x"),), accepted=(twice,), facts=Facts(created_at="then")))
    store.apply(Commit(frames=(Frame(1, None, "t", "y"),)))
    assert store.frames(0, 10, 10**6) == [Frame(1, None, "t", "y")]
    store.close()


def stored(store: Store) -> list[int]:
    return [frame.seq for frame in store.frames(0, 1000, 10**6)]


def test_the_oldest_events_are_deleted_by_size_and_by_age(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.load()
    store.prune("9", 0)
    for seq in range(1, 11):
        store.apply(Commit((Frame(seq, None, f"{seq:02}", "x" * 10),)))
    store.prune("00", 100)
    assert stored(store) == list(range(1, 11))
    store.prune("03", 100)
    assert stored(store) == list(range(3, 11))
    store.prune("00", 79)
    assert stored(store) == list(range(6, 11))
    store.close()
    again = Store(tmp_path)
    again.prune("00", 10)
    assert stored(again) == [10]
    again.prune("99", 0)
    assert stored(again) == [10]
    assert again.load().last_seq == 10
    again.close()


def test_a_database_in_use_is_refused_with_the_remedy(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError, match=r"in use by another process\. .*--state-dir"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    database = sqlite3.connect(tmp_path / DATABASE)
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    with pytest.raises(StoreError, match="newer one"):
        Store(tmp_path)
