"""A session over an agent that asks for approval: decisions, restarts while one is pending, outcomes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.conversation import Conversation
from agent.messages import Message, ToolCall
from agent.testing import calls, says
from session_runtime.session.events import Draft
from session_runtime.session.facts import Facts, Resumes
from session_runtime.session.outcome import CUT_OFF, Ending, after_turn, explained
from session_runtime.session.refusals import IdReused, QueueFull, SessionFinished
from session_runtime.session.session import MAX_QUEUE, MAX_RESUMES
from session_runtime.session.store import Commit, Store, Submitted
from session_runtime.session.submissions import Approval, Decision, Shutdown, Undo, UserInput, canonical
from support.runtime.harness import AnsweringModel, eventually
from support.runtime.life import RESEARCH, life

pytestmark = pytest.mark.anyio

SCRIPT = (calls(("buy", {"what": "tea"}), ("buy", {"what": "cake"})), says("bought"))


async def test_a_pending_approval_survives_a_restart_and_is_decided(tmp_path: Path) -> None:
    bought: list[str] = []
    async with life(tmp_path, bought, *SCRIPT) as now:
        await now.submit(UserInput(text="shop"))
        snapshot = now.session.snapshot()
        assert snapshot.activity == "AwaitingApproval"
        assert [call.arguments["what"] for call in snapshot.pending] == ["tea", "cake"]
        ids = [call.tool_call_id for call in snapshot.pending]
    async with life(tmp_path, bought, *SCRIPT) as now:
        assert now.session.snapshot().activity == "AwaitingApproval"
        assert [call.tool_call_id for call in now.session.snapshot().pending] == ids
        await now.submit(Approval(decisions=[Decision(tool_call_id=ids[1], approved=True)]))  # the other one is denied
        assert bought == ["cake"]
        snapshot = now.session.snapshot()
        assert (snapshot.activity, snapshot.last_message, snapshot.pending) == ("Idle", "bought", ())
        assert snapshot.ending is None


async def test_a_question_of_a_sub_agent_survives_a_restart_and_is_decided(tmp_path: Path) -> None:
    looked: list[str] = []
    async with life(tmp_path, looked, model=AnsweringModel(RESEARCH)) as first:
        await first.submit(UserInput(text="go"))
        (pending,) = first.session.snapshot().pending
        assert (pending.tool, pending.arguments) == ("look", {"what": "tea"})
    async with life(tmp_path, looked, model=AnsweringModel(RESEARCH)) as second:
        assert second.session.snapshot().pending == (pending,)
        await second.submit(Approval(decisions=[Decision(tool_call_id=pending.tool_call_id, approved=True)]))
        assert looked == ["tea"]
        assert second.session.snapshot().last_message == "done"
        frames = [json.loads(frame.body) for frame in await second.journal.read(0)]
    told = [(f["type"], f["data"]["tool"], f["data"].get("parent")) for f in frames if f["type"].startswith("tool_")]
    research, _, _, output = (f["data"] for f in frames if f["type"].startswith("tool_"))
    assert told == [
        ("tool_call", "research", None),
        ("tool_call", "look", research["tool_call_id"]),
        ("tool_output", "look", research["tool_call_id"]),
        ("tool_output", "research", None),
    ]
    assert output["output"] == "found"


async def test_a_turn_cut_off_in_a_sub_agent_ends_all_begun_calls(tmp_path: Path) -> None:
    """As it stands in the database of a process that ended again and again while a sub-agent's call was under way."""
    wanted, theirs = ToolCall("r", "research", '{"task": "find tea"}'), ToolCall("l", "look", '{"what": "tea"}')
    sub = replace(Conversation().with_said("find tea").with_message(Message("assistant", "", (theirs,))), started=("l",))
    at_work = Conversation().with_said("go").with_message(Message("assistant", "", (wanted,)))
    at_work = replace(at_work, started=("r",), subagents={"r": sub})
    submitted = Submitted("s", "user_input", canonical(UserInput(text="go")), "2026-01-01T00:00:00.000Z")
    store = Store(tmp_path)
    store.load()
    facts = Facts(resumes=Resumes("s", MAX_RESUMES))
    store.apply(Commit(accepted=(submitted,), started=("s",), conversation=at_work, facts=facts))
    store.close()
    async with life(tmp_path, []) as run:
        await run.idle()
        frames = [json.loads(frame.body) for frame in await run.journal.read(0)]
        assert run.session.conversation.subagents == {}
    outputs = [f["data"] for f in frames if f["type"] == "tool_output"]
    assert [(o["tool_call_id"], o.get("parent"), o["output"]) for o in outputs] == [("l", "r", CUT_OFF), ("r", None, CUT_OFF)]
    assert frames[len(outputs)]["type"] == "error"


async def test_text_in_place_of_a_decision_abandons_the_call(tmp_path: Path) -> None:
    async with life(tmp_path, [], SCRIPT[0], says("never mind then")) as now:
        await now.submit(UserInput(text="shop"))
        await now.submit(UserInput(text="no, wait"))
        assert now.bought == []
        assert now.session.snapshot().last_message == "never mind then"


async def test_a_decision_about_nothing_is_an_error_of_that_submission(tmp_path: Path) -> None:
    async with life(tmp_path, []) as now:
        await now.submit(Approval(id="a", decisions=[]))
        frames = await now.journal.read(0)
        assert '"nothing_pending"' in frames[-1].body
        submitted = now.session.submission("a")
        assert submitted is not None
        assert submitted.ended_by == frames[-1].seq


async def test_a_task_waits_for_approval_before_it_has_an_outcome(tmp_path: Path) -> None:
    async with life(tmp_path, [], *SCRIPT, mode="Task", prompt="shop") as now:
        await now.idle()
        assert now.session.snapshot().ending is None
        decisions = [Decision(tool_call_id=call.tool_call_id, approved=True) for call in now.session.snapshot().pending]
        await now.session.submit(Approval(decisions=decisions))
        await now.running
        assert now.bought == ["tea", "cake"]
        assert now.session.snapshot().ending == Ending("Completed", "The task's turn is complete.")
        assert now.session.finished
        with pytest.raises(SessionFinished):
            await now.session.submit(Undo())


async def test_a_kill_between_outcome_and_end_keeps_the_outcome(tmp_path: Path) -> None:
    async with life(tmp_path, [], says("done"), mode="Task", prompt="go") as now:

        def kill(commit: Commit, _: Sequence[Draft]) -> None:
            if commit.facts.outcome is not None:
                now.running.cancel()

        now.journal.listeners.append(kill)
        await asyncio.wait([now.running])
        assert now.running.cancelled()
        assert not now.session.finished
    async with life(tmp_path, [], mode="Task", prompt="go") as now:
        await now.running
        assert now.session.snapshot().ending == Ending("Completed", "The task's turn is complete.")
        assert now.session.finished


async def test_a_shutdown_is_finished_by_the_next_process(tmp_path: Path) -> None:
    async with life(tmp_path, []) as now:
        await now.idle()
        now.running.cancel()
        await asyncio.wait([now.running])
        await now.session.submit(Shutdown(id="end"))
    async with life(tmp_path, []) as now:
        await now.running
        assert now.session.finished
        submitted = now.session.submission("end")
        assert submitted is not None
        assert submitted.ended_by == now.journal.last_seq


async def test_the_queue_is_bounded(tmp_path: Path) -> None:
    async with life(tmp_path, [], says("hm", hangs=True)) as now:
        await now.session.submit(UserInput(text="first"))
        await eventually(lambda: now.session.snapshot().is_processing)
        for n in range(MAX_QUEUE):
            receipt = await now.session.submit(UserInput(text="more"))
            assert receipt.position == n + 1
        with pytest.raises(QueueFull):
            await now.session.submit(UserInput(text="too much"))


@pytest.mark.parametrize(
    ("mode", "event", "data", "expected"),
    [
        ("Interactive", "turn_complete", {}, None),
        ("Interactive", "error", {"kind": "model", "message": "x"}, None),
        ("Task", "approval_required", {}, None),
        ("Task", "turn_complete", {}, "Completed"),
        ("Task", "interrupted", {"reason": "by the user"}, "Failed"),
        ("Task", "error", {"kind": "unavailable", "message": "x"}, "Failed"),
        ("Task", "error", {"kind": "budget", "message": "x"}, "BudgetExceeded"),
        ("Interactive", "error", {"kind": "budget", "message": "x"}, None),
    ],
)
def test_what_a_turns_end_means(mode: Any, event: str, data: dict[str, Any], expected: str | None) -> None:
    ending = after_turn(mode, "m", event, data)
    assert (None if ending is None else ending.outcome) == expected


def test_an_error_is_explained_with_the_model_and_the_remedy() -> None:
    assert explained("gpt", {"kind": "unavailable", "message": "refused."}).startswith("Model gpt: refused. When the")
    assert explained("gpt", {"kind": "iteration_limit", "message": "too long"}) == "too long"


async def test_a_shutdown_ends_everything_that_is_open(tmp_path: Path) -> None:
    async with life(tmp_path, [], says("hm", hangs=True)) as now:
        await now.session.submit(UserInput(id="a", text="first"))
        await eventually(lambda: now.journal.last_seq >= 3)  # ready, processing, a piece of the answer
        now.running.cancel()
        await asyncio.wait([now.running])
        for id_ in ("end", "end-again"):
            await now.session.submit(Shutdown(id=id_))
        await now.session.submit(UserInput(id="b", text="second"))
    async with life(tmp_path, []) as now:
        await now.running
        assert now.session.finished
        for id_ in ("a", "b", "end", "end-again"):
            submitted = now.session.submission(id_)
            assert submitted is not None
            assert submitted.ended_by is not None


async def test_of_two_decisions_on_one_call_the_denial_holds(tmp_path: Path) -> None:
    bought: list[str] = []
    async with life(tmp_path, bought, calls(("buy", {"what": "tea"})), says("not bought")) as now:
        await now.submit(UserInput(text="shop"))
        (pending,) = now.session.snapshot().pending
        both = [Decision(tool_call_id=pending.tool_call_id, approved=approved) for approved in (False, True)]
        await now.submit(Approval(decisions=both))
    assert bought == []


async def test_an_ended_submission_keeps_a_digest_of_its_body(tmp_path: Path) -> None:
    decisions = [Decision(tool_call_id="none", approved=True, feedback="x" * 100_000)]
    for restarted in (False, True):
        async with life(tmp_path, []) as now:
            if not restarted:
                await now.submit(Approval(id="a", decisions=decisions))
            submitted = now.session.submission("a")
            assert submitted is not None
            assert len(submitted.body) < 100
            assert (await now.session.submit(Approval(id="a", decisions=decisions))).state == "done"
            with pytest.raises(IdReused):
                await now.session.submit(Approval(id="a", decisions=[]))
