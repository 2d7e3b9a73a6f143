"""Images in the session's database: each once, for as long as the conversation has it."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.conversation import Conversation
from agent.images import Image
from agent.messages import Message, ToolCall
from session_runtime.session.events import Frame
from session_runtime.session.store import DATABASE, MIGRATIONS, Commit, Store
from session_runtime.session.store_errors import StoreError
from session_runtime.wire import AgentSettings
from support.agent.openai_server import Answer, serve
from support.agent.pictures import image, png
from support.runtime.harness import runtime_process


def seen(*images: Image) -> Conversation:
    """A conversation in which each of these was read."""
    conversation = Conversation().with_said("look")
    for number, each in enumerate(images):
        conversation = conversation.with_message(Message("assistant", "", (ToolCall(f"c{number}", "read", "{}"),)))
        conversation = conversation.with_result(f"c{number}", "an image", [each])
    return conversation


def kept(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        return {digest for (digest,) in database.execute("SELECT digest FROM images")}


def test_images_survive_a_restart_and_leave_with_their_messages(tmp_path: Path) -> None:
    one, two, three = image(1), image(2), image(3)
    sub = replace(seen(three), in_turn=True)
    states = [seen(one, one), seen(one, two), replace(seen(two), subagents={"c9": sub}), seen(two), Conversation()]
    expected = [{one}, {one, two}, {two, three}, {two}, set[Image]()]
    for state, images in zip(states, expected, strict=True):
        with closing(Store(tmp_path)) as store:
            store.load()
            store.apply(Commit(conversation=state))
            assert kept(tmp_path) == {each.digest for each in images}
        with closing(Store(tmp_path)) as store:
            assert store.load().conversation == state


def test_rows_of_messages_are_small_and_the_database_does_not_grow(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.load()
        sizes = []
        for width in range(1, 21):
            store.apply(Commit(conversation=seen(image(width, padding=1_000_000))))
            store.checkpoint()
            with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
                (pages,) = database.execute("PRAGMA page_count").fetchone()
                (longest,) = database.execute("SELECT max(length(body)) FROM messages").fetchone()
            sizes.append(pages * 4096)
            assert longest < 1000
        assert sizes[-1] == sizes[2] < 3_000_000


def test_a_transaction_that_fails_keeps_the_images_as_they_were(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.load()
        store.apply(Commit(conversation=seen(image(1))))
        with pytest.raises(sqlite3.IntegrityError):
            store.apply(Commit((Frame(1, None, "t", "x"),) * 2, conversation=seen(image(2))))
        store.apply(Commit(conversation=seen(image(1), image(2))))
    with closing(Store(tmp_path)) as store:
        assert store.load().conversation == seen(image(1), image(2))


@pytest.mark.anyio
async def test_a_session_sees_an_image_and_still_has_it_after_a_crash(short_path: Path) -> None:
    """With a real process, workspace and server. The image goes into requests and the database, not into events or logs."""
    content = png(640, 480, padding=3_000_000)
    (short_path / "work").mkdir()
    (short_path / "work" / "shot").write_bytes(content)
    call = {"index": 0, "id": "one", "type": "function", "function": {"name": "read", "arguments": '{"path": "shot"}'}}
    answers = (
        Answer(({"tool_calls": [call]},), "tool_calls"),
        Answer(({"content": "a wall"},)),
        Answer(({"content": "gray"},)),
    )
    async with serve(*answers) as server:
        settings = AgentSettings(model="local", base_url=server.url, images=True)
        async with runtime_process(short_path, prompt="What is it?", agent=settings) as run:
            events = await run.events(submission="prompt")
            _, printed = await run.end(signal.SIGKILL)
            await run.start(keep_port=True)
            async with run.client() as client:
                assert (await client.run("Which color?")).data["message"] == "gray"
            messages = (await run.get("/v1/messages")).json()["messages"]
            later = await run.events(submission=events[-1].submission_id)
    seen = Image.of(content)
    assert [str(request).count(seen.data) for request in server.requests] == [0, 1, 1]
    [output] = [event.data["output"] for event in events if event.type == "tool_output"]
    assert output == f"shot: {seen.description}"
    assert sum(len(str(event.data)) for event in (*events, *later)) < 10_000
    assert seen.data[:100] not in printed
    assert [message["images"] for message in messages if message["role"] == "tool"] == [[seen.facts()]]


def test_a_database_without_its_images_is_damaged(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.load()
        store.apply(Commit(conversation=seen(image())))
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        database.execute("DELETE FROM images")
        database.commit()
    with closing(Store(tmp_path)) as store, pytest.raises(StoreError, match="damaged"):
        store.load()


def test_a_database_of_the_second_version_gets_the_table(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        database.executescript(f"{MIGRATIONS[0]} {MIGRATIONS[1]} PRAGMA user_version = 2;")
    with closing(Store(tmp_path)) as store:
        store.load()
        store.apply(Commit(conversation=seen(image())))
    with closing(Store(tmp_path)) as store:
        assert store.load().conversation == seen(image())
