"""The event log: what every follower sees is the exact sequence, whenever it comes, however slow it is."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_runtime.session.events import Draft, Frame, earliest, joined, latest, number, slices
from session_runtime.session.facts import Facts
from session_runtime.session.journal import (
    BATCH,
    BATCH_CHARACTERS,
    CHUNK_SECONDS,
    FOLLOWED_SECONDS,
    FOLLOWERS,
    Change,
    Journal,
    assemble,
    chunk_seconds,
)
from session_runtime.session.store import Submitted
from support.runtime.harness import eventually
from support.runtime.journals import NOW, open_journal

pytestmark = pytest.mark.anyio


def chunk(text: str, message_id: str = "m", submission: str = "s") -> Draft:
    return Draft("assistant_chunk", {"message_id": message_id, "text": text}, NOW, submission)


async def collect(journal: Journal, after: int = 0, pause: float = 0.0) -> list[Frame]:
    seen: list[Frame] = []
    async for frames in journal.follow(after, keep_alive=60.0):
        seen += frames
        await asyncio.sleep(pause)
    return seen


@given(st.lists(st.integers(0, 200), max_size=6), st.integers(40, 100))
def test_frames_are_sent_whole_in_bounded_pieces(sizes: list[int], limit: int) -> None:
    frames = [Frame(seq, None, "t", "x" * size) for seq, size in enumerate(sizes, start=1)]
    pieces = list(slices(frames, limit))
    assert b"".join(pieces).decode() == "".join(f"id: {frame.seq}\ndata: {frame.body}\n\n" for frame in frames)
    assert all(0 < len(piece) <= limit for piece in pieces)


async def test_followers_of_the_database_share_a_long_event(tmp_path: Path) -> None:
    async with open_journal(tmp_path, tail=1) as journal:
        text = "x" * (BATCH_CHARACTERS + 1)
        await journal.write(Change(draft=journal.draft("error", {"message": text})))
        await journal.write(Change(draft=journal.draft("error", {"message": "short"})))
        await journal.write(Change(draft=journal.draft("error", {"message": "short"})))
        (first,), (second,) = await journal.read(0), await journal.read(0)
    assert text in first.body
    assert first is second


def test_an_event_is_one_line_of_ascii_json() -> None:
    frame = number(Draft("error", {"message": "a\nb\u2028\ud800"}, NOW, "s"), 7)
    encoded = b"".join(slices([frame]))
    assert encoded.startswith(b"id: 7\ndata: {")
    assert encoded.count(b"\n") == 3
    assert json.loads(frame.body) == {
        "seq": 7,
        "type": "error",
        "time": "2026-01-02T03:04:05.678Z",
        "submission_id": "s",
        "data": {"message": "a\nb\u2028\ud800"},
    }


def test_only_pieces_of_one_message_are_joined() -> None:
    together = joined(chunk("a"), chunk("b"))
    assert together is not None
    assert together.data["text"] == "ab"
    superseded = Draft("assistant_chunk", {"message_id": "m", "superseded": True}, NOW, "s")
    other_type = Draft("error", {"message_id": "m", "text": "b"}, NOW, "s")
    for second in (chunk("b", message_id="n"), chunk("b", submission="t"), superseded, other_type):
        assert joined(chunk("a"), second) is None
        assert joined(second, chunk("a")) is None


def test_a_transaction_numbers_its_events_and_knows_what_they_end() -> None:
    error = Draft("error", {"message": "x"}, NOW, "s")
    changes = [
        Change(chunk("a")),
        Change(error, ended=("s",), facts=Facts(created_at="then", report_sequence=1)),
        Change(ended=("t",), facts=Facts(report_sequence=2)),
    ]
    commit = assemble(changes, last_seq=4)
    assert [frame.seq for frame in commit.frames] == [5, 6]
    assert commit.ended == {"s": 6, "t": 6}
    assert commit.facts == Facts(created_at="then", report_sequence=2)
    assert not commit.only_chunks
    assert assemble(changes[:1], 0).only_chunks


def test_the_first_and_last_frames_fit_and_are_at_least_one() -> None:
    frames = [Frame(seq, None, "t", "x" * 10) for seq in range(1, 11)]
    assert [f.seq for f in latest(frames, 35)] == [8, 9, 10]
    assert [f.seq for f in latest(frames, 1)] == [10]
    assert [f.seq for f in earliest(frames, 30)] == [1, 2, 3]
    assert [f.seq for f in earliest(frames, 1)] == [1]
    assert latest(frames, 1000) == earliest(frames, 1000) == frames
    assert latest([], 10) == earliest([], 10) == []


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    starts=st.lists(st.tuples(st.integers(0, 7), st.floats(0, 1), st.booleans()), max_size=6),
    tail=st.sampled_from([1, 500, 1_000_000]),
)
async def test_every_follower_sees_the_exact_sequence(
    sizes: list[int], starts: list[tuple[int, float, bool]], tail: int
) -> None:
    """Followers join at any moment of a running stream, from any point before it, slow or fast; some from memory, some
    from the database."""

    with tempfile.TemporaryDirectory() as folder:
        async with open_journal(Path(folder), tail=tail) as journal:
            followers: list[tuple[int, asyncio.Task[list[Frame]]]] = []
            for step, size in enumerate(sizes):
                for at, share, slow in starts:
                    if at == step:
                        after = int(share * journal.last_seq)
                        followers.append((after, asyncio.create_task(collect(journal, after, 0.001 * slow))))
                for piece in range(size):
                    journal.chunk(journal.draft("assistant_chunk", {"message_id": f"{step}.{piece}", "text": "x"}))
                    if piece % 7 == 0:
                        await asyncio.sleep(0)
                await journal.write(Change(journal.draft("turn_complete", {"message": str(step)})))
            journal.close()
            everything = await collect(journal)
            assert [f.seq for f in everything] == list(range(1, sum(sizes) + len(sizes) + 1))
            for after, follower in followers:
                assert await follower == everything[after:]


async def test_reconnecting_anywhere_continues_without_gap_or_duplicate(tmp_path: Path) -> None:
    async with open_journal(tmp_path, tail=2_000) as journal:

        async def speak() -> None:
            for n in range(300):
                await journal.write(Change(journal.draft("usage", {"n": n})))
            journal.close()

        speaking = asyncio.create_task(speak())
        seen: list[int] = []
        while not speaking.done() or (seen[-1] if seen else 0) < journal.last_seq:
            async for frames in journal.follow(seen[-1] if seen else 0, keep_alive=60.0):
                seen += [frame.seq for frame in frames]
                break  # disconnected after each batch
        assert seen == list(range(1, 301))


@pytest.mark.parametrize("tail", [1, 10 * BATCH_CHARACTERS])
async def test_a_batch_is_small_however_large_its_events_are(tmp_path: Path, tail: int) -> None:
    async with open_journal(tmp_path, tail=tail) as journal:
        sizes = [1000, BATCH_CHARACTERS // 2, BATCH_CHARACTERS // 3, 2 * BATCH_CHARACTERS, 1000, 1000, BATCH_CHARACTERS]
        for size in sizes:
            await journal.write(Change(journal.draft("usage", {"padding": "x" * size})))
        journal.close()
        batches = [frames async for frames in journal.follow(0, keep_alive=60.0)]
        assert [frame.seq for frames in batches for frame in frames] == list(range(1, len(sizes) + 1))
        assert all(len(frames) == 1 or sum(len(f.body) for f in frames) <= BATCH_CHARACTERS for frames in batches)


async def test_a_long_replay_comes_in_batches(tmp_path: Path) -> None:
    async with open_journal(tmp_path, tail=1) as journal:
        changes = [journal.write(Change(journal.draft("usage", {"n": n}))) for n in range(3 * BATCH)]
        await asyncio.gather(*changes)
        journal.close()
        sizes = [len(frames) async for frames in journal.follow(0, keep_alive=60.0)]
        assert sum(sizes) == 3 * BATCH
        assert max(sizes) <= BATCH


async def test_streaming_costs_a_few_commits_a_second(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        commits: list[int] = []
        journal.listeners.append(lambda commit, _: commits.append(len(commit.frames)))
        loop = asyncio.get_running_loop()
        started = loop.time()
        pieces = 0
        while loop.time() - started < 1.5:
            journal.chunk(journal.draft("assistant_chunk", {"message_id": "m", "text": "x"}))
            pieces += 1
            await asyncio.sleep(0.002)
        await journal.write(Change())
        took = loop.time() - started
        assert len(commits) <= took / CHUNK_SECONDS + 2  # the first piece goes at once, and the last write does
        assert max(commits) == 1  # all pieces of a commit are one event
        journal.close()
        text = "".join(json.loads(frame.body)["data"]["text"] for frame in await collect(journal))
        assert text == "x" * pieces


def test_text_flows_for_followers_and_is_grouped_for_nobody() -> None:
    assert chunk_seconds(0) == CHUNK_SECONDS
    assert chunk_seconds(1) == chunk_seconds(FOLLOWERS) == FOLLOWED_SECONDS
    assert FOLLOWED_SECONDS < chunk_seconds(2 * FOLLOWERS) < chunk_seconds(1000) == CHUNK_SECONDS


async def test_followers_get_text_that_is_held_back_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_runtime.session.journal.CHUNK_SECONDS", 3600.0)
    async with open_journal(tmp_path) as journal, asyncio.timeout(60):
        commits: list[int] = []
        journal.listeners.append(lambda commit, _: commits.append(len(commit.frames)))
        journal.chunk(chunk("a"))
        await eventually(lambda: commits == [1])
        journal.chunk(chunk("b"))
        async with aclosing(journal.follow(0, keep_alive=60.0)) as following:
            seen = [text async for text in _texts(following, 2)]
            for text in ("c", "d"):
                journal.chunk(chunk(text))
                seen += [text async for text in _texts(following, 1)]
        assert seen == ["a", "b", "c", "d"]
        written = len(commits)
        journal.chunk(chunk("e"))
        journal.chunk(chunk("f"))
        await asyncio.sleep(3 * FOLLOWED_SECONDS)
        assert len(commits) == written  # nobody follows any more
        await journal.write(Change())
        assert journal.last_seq == 5


async def _texts(following: AsyncIterator[list[Frame]], count: int) -> AsyncIterator[str]:
    """The texts of the next events."""
    while count > 0:
        for frame in await anext(following):
            count -= 1
            yield json.loads(frame.body)["data"]["text"]


async def test_a_piece_is_not_held_back_when_nothing_else_comes(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        for text in ("a", "b"):
            changed = asyncio.create_task(journal.changed())
            await asyncio.sleep(0)
            journal.chunk(chunk(text))
            async with asyncio.timeout(5):
                await changed


async def test_silence_is_filled(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        async for frames in journal.follow(0, keep_alive=0.01):
            assert frames == []
            break


async def test_a_cancelled_writer_leaves_the_numbers_dense(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        for n in range(20):
            writing = asyncio.create_task(journal.write(Change(journal.draft("usage", {"n": n}))))
            for _ in range(n % 4):
                await asyncio.sleep(0)
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
        await journal.write(Change(journal.draft("usage", {"n": "last"})))
        journal.close()
        frames = await collect(journal)
        assert all(after.seq == before.seq + 1 for before, after in pairwise(frames))
        assert frames[-1].seq == journal.last_seq


async def test_a_database_that_fails_ends_the_journal_and_every_writer(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        twice = Change(accepted=Submitted("same", "undo", "{}", ""))
        await journal.write(twice)
        for _ in range(2):
            with pytest.raises(sqlite3.IntegrityError):
                await journal.write(twice)
        assert await journal.read(0) == []


async def test_nothing_is_shown_before_it_is_durable(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        reader = sqlite3.connect(tmp_path / "session.db")

        def check(frames: Sequence[Frame]) -> None:
            (stored,) = reader.execute("SELECT max(seq) FROM events").fetchone()
            assert stored >= frames[-1].seq

        async def follow() -> None:
            async for frames in journal.follow(0, keep_alive=60.0):
                check(frames)

        following = asyncio.create_task(follow())
        for n in range(50):
            await journal.write(Change(journal.draft("usage", {"n": n})))
        journal.close()
        await following
        reader.close()


async def test_what_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    async with open_journal(tmp_path, tail=1) as journal:
        for n in range(10):
            await journal.write(Change(journal.draft("usage", {"n": n})))
        with sqlite3.connect(tmp_path / "session.db") as other:
            other.execute("DELETE FROM events WHERE seq <= 6")
        other.close()
        journal.close()
        for after in (0, 3, 5):
            first, *rest = await collect(journal, after)
            assert first.seq == 6
            assert json.loads(first.body)["type"] == "gap"
            assert json.loads(first.body)["data"] == {"after": after, "continues_with": 7}
            assert [frame.seq for frame in rest] == [7, 8, 9, 10]
        for after in (6, 8, 10):
            assert [frame.seq for frame in await collect(journal, after)] == list(range(after + 1, 11))


async def test_a_number_from_another_life_starts_from_the_beginning(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as journal:
        for n in range(3):
            await journal.write(Change(journal.draft("usage", {"n": n})))
        journal.close()
        first, *rest = await collect(journal, 500)
        assert json.loads(first.body)["data"] == {"after": 500, "continues_with": 1}
        assert [first.seq, *(frame.seq for frame in rest)] == [0, 1, 2, 3]
