"""Interrupts and undos that meet the end of the process: they are as durable as any submission."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.conversation import Conversation
from agent.messages import Message, ToolCall
from agent.testing import says
from session_runtime.session.facts import Facts
from session_runtime.session.store import DATABASE, Commit, Store, Submitted
from session_runtime.session.submissions import Interrupt, Undo, UserInput, canonical
from support.runtime.harness import DEADLINE, AnsweringModel, eventually, runtime_process
from support.runtime.life import RESEARCH, life

pytestmark = pytest.mark.anyio

INPUT = Submitted("s", "user_input", canonical(UserInput(text="go")), "2026-01-01T00:00:00.000Z")
SAID = Conversation().with_said("go")
CALLING = SAID.with_message(Message("assistant", "", (ToolCall("c", "look", '{"what": "tea"}'),)))


def crashed(folder: Path, conversation: Conversation, started: bool, facts: Facts) -> None:
    """A database as a kill has left it."""
    with closing(Store(folder)) as store:
        store.load()
        store.apply(Commit(accepted=(INPUT,), started=("s",) if started else (), conversation=conversation, facts=facts))


async def told(life_: Any) -> list[tuple[str, Any]]:
    frames = [json.loads(frame.body) for frame in await life_.journal.read(0)]
    return [(f["type"], f["data"]) for f in frames]


@pytest.mark.parametrize(
    ("conversation", "started"),
    [
        (Conversation(), False),
        (SAID, True),
        (CALLING, True),
        (replace(CALLING, started=("c",)), True),
        (SAID.closed("x"), True),
    ],
    ids=["not begun", "in the model", "before a call", "in a call", "closed"],
)
async def test_an_interrupt_ends_the_turn_in_the_next_process(
    tmp_path: Path, conversation: Conversation, started: bool
) -> None:
    crashed(tmp_path, conversation, started, Facts(interrupted="s"))
    bought: list[str] = []
    async with life(tmp_path, bought, says("on"), says("on")) as now:
        await now.idle()
        events = await told(now)
        assert events[-1] == ("interrupted", {"reason": "by the user"})
        assert now.session.conversation.messages[0].content == "go"
        assert not now.session.conversation.in_turn
    assert bought == []


async def test_a_turn_that_was_closed_without_its_event_is_interrupted(tmp_path: Path) -> None:
    crashed(tmp_path, SAID.closed("x"), True, Facts())
    async with life(tmp_path, []) as now:
        await now.idle()
        kind, data = (await told(now))[-1]
        assert (kind, "container exited" in data["reason"]) == ("interrupted", True)


async def test_an_interrupt_answered_before_a_kill_is_kept(short_path: Path) -> None:
    script = ({"text": "a long story " * 400, "piece": 10, "delay": 0.05}, {"text": "on"})
    async with runtime_process(short_path, *script) as run, run.client() as client, asyncio.timeout(DEADLINE):
        await client.submit("user_input", text="go", id="s")
        await run.until("assistant_chunk")
        await client.submit("interrupt")
        assert run.process is not None
        run.process.kill()
        await run.process.communicate()
        await run.start(keep_port=True)
        events = [event async for event in client.events(submission="s")]
        assert events[-1].type == "interrupted"


async def test_an_undo_is_one_transaction(tmp_path: Path) -> None:
    async with life(tmp_path, [], model=AnsweringModel({**RESEARCH, "first": (says("one"),)})) as now:
        await now.submit(UserInput(text="first"))
        await now.submit(UserInput(text="go"))
        assert now.session.snapshot().pending, "a call of a sub-agent is open"
        seen: list[tuple[list[str], int]] = []

        def look(commit: Commit, drafts: Any) -> None:
            with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
                (messages,) = database.execute("SELECT count(*) FROM messages WHERE agent = ''").fetchone()
            seen.append(([draft.type for draft in drafts], messages))

        now.journal.listeners.append(look)
        before = len(now.session.conversation.messages)
        await now.submit(Undo(id="u"))
        await eventually(lambda: now.session.snapshot().activity == "Idle")
        types, messages = seen[-1]
        assert types == ["tool_output", "undo_complete"]
        assert (messages, before) == (2, 4)
        assert all(count == before for _, count in seen[:-1])


async def test_an_interrupt_between_turns_does_not_end_the_next_one(tmp_path: Path) -> None:
    async with life(tmp_path, [], says("one"), says("two")) as now:
        await now.submit(UserInput(text="first"))
        await now.submit(Interrupt())
        await now.submit(UserInput(text="second"))
        assert (await told(now))[-1][0] == "turn_complete"
