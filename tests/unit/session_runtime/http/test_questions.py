"""What MCP servers ask in the middle of a call, in the session's API: shown, answered, and gone with the call."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.loop.agent import IN_FLIGHT
from agent.testing import calls, says
from session_runtime.wire import AgentSettings, McpServerSettings
from support.agent.mcp_http import http, mcp_app
from support.runtime.harness import Runtime, eventually, runtime, runtime_process

pytestmark = pytest.mark.anyio

SEAT = calls(("trips__seat", {"where": "Rome"}))


def trips(url: str) -> AgentSettings:
    return AgentSettings(model="scripted", mcp_servers=(McpServerSettings(name="trips", url=url),))


@asynccontextmanager
async def asked(folder: Path, *replies: Any, legacy: bool = False) -> AsyncIterator[tuple[Runtime, dict[str, Any]]]:
    """A session in the middle of a call whose server asks for a seat, and the question as the API shows it."""
    async with http(mcp_app(legacy=legacy)) as url, runtime(folder, SEAT, *replies, agent=trips(url)) as run:
        await run.submit("user_input", id="go", text="Book.")
        await run.until("question")
        (pending,) = (await info(run))["pending_approval"]
        yield run, pending


async def info(run: Runtime) -> dict[str, Any]:
    state: dict[str, Any] = (await run.http.get("/v1/session")).json()
    return state


@pytest.mark.parametrize("legacy", [False, True], ids=["2026", "legacy"])
async def test_a_question_is_pending_until_it_is_answered(short_path: Path, legacy: bool) -> None:
    async with asked(short_path, says("Booked."), legacy=legacy) as (run, pending):
        state = await info(run)
        assert (state["activity"], state["is_processing"]) == ("AwaitingApproval", True)
        assert (pending["tool"], pending["arguments"]) == ("trips__seat", {"where": "Rome"})
        assert pending["reason"] == "the MCP server trips asks: Which seat to Rome?"
        question = pending["question"]
        assert (question["server"], question["message"], question["url"]) == ("trips", "Which seat to Rome?", None)
        assert question["form"]["properties"]["seat"]["enum"] == ["window", "aisle"]
        assert b"agentsession_pending_approvals 1.0" in (await run.http.get("/metrics")).content
        answer = {"id": "mine", "question_id": question["id"], "action": "accept"}
        receipt = await run.submit("answer", **answer)
        assert (receipt.status_code, receipt.json()["state"], receipt.json()["position"]) == (202, "done", None)
        events = await run.events(submission="go")
        assert [event.type for event in events if event.type.startswith(("question", "tool_"))] == [
            "tool_call",
            "question",
            "question_closed",
            "tool_output",
        ]
        outputs = [event.data for event in events if event.type == "tool_output"]
        assert outputs[0]["output"] == "Rome: accept {'seat': 'aisle'}"
        state = await info(run)
        assert (state["activity"], state["pending_approval"]) == ("Idle", [])
        again = await run.submit("answer", **answer)
        assert (again.status_code, again.json()) == (202, receipt.json())
        late = await run.submit("answer", question_id=question["id"], action="decline")
        assert (late.status_code, late.json()["type"]) == (409, "urn:agentsession:problem:question-closed")
        assert (await run.http.get("/v1/events", params={"submission": "mine"})).status_code == 204


async def test_an_answer_that_does_not_fit_names_the_fields(short_path: Path) -> None:
    async with asked(short_path, says("Booked.")) as (run, pending):
        mine = {"question_id": pending["question"]["id"]}
        refused = await run.submit("answer", **mine, action="accept", content={"seat": "roof", "hat": 1})
        assert refused.status_code == 422
        assert {error["field"]: error["detail"] for error in refused.json()["errors"]} == {
            "body.content.hat": "the form has no such field",
            "body.content.seat": "must be of: window, aisle",
        }
        declined = await run.submit("answer", **mine, action="decline", content={"seat": "aisle"})
        assert [error["field"] for error in declined.json()["errors"]] == ["body.content"]
        assert (await run.submit("answer", **mine, action="perhaps")).status_code == 422
        assert (await run.submit("answer", question_id="another", action="accept")).status_code == 409
        assert (await info(run))["pending_approval"] == [pending]
        await run.submit("answer", **mine, action="decline")
        output = (await run.until("tool_output")).data
        assert output["output"] == "Rome: decline None"


async def test_other_input_dismisses_a_question(short_path: Path) -> None:
    async with asked(short_path, says("Then not."), says("Yes?")) as (run, _):
        await run.submit("user_input", id="other", text="Forget it.")
        assert (await run.until("tool_output")).data["output"] == "Rome: cancel None"
        assert (await run.events(submission="other"))[-1].type == "turn_complete"


async def test_an_interrupt_leaves_no_question(short_path: Path) -> None:
    async with asked(short_path) as (run, pending):
        await run.submit("interrupt")
        await run.until("interrupted")
        state = await info(run)
        assert (state["activity"], state["pending_approval"]) == ("Idle", [])
        late = await run.submit("answer", question_id=pending["question"]["id"], action="accept")
        assert late.status_code == 409


async def test_a_task_declines_what_nobody_can_answer(short_path: Path) -> None:
    async with http(mcp_app()) as url:
        task: dict[str, Any] = {"mode": "Task", "prompt": "Book.", "agent": trips(url)}
        async with runtime(short_path, SEAT, says("Not booked."), **task) as run:
            events = await run.events()
            assert await run.ended() == 0
    assert [event.data["output"] for event in events if event.type == "tool_output"] == ["Rome: decline None"]
    (question,) = (event.data for event in events if event.type == "question")
    assert question["declined"] == "nobody answers questions in this session"


async def test_after_a_kill_the_call_is_cut_off_and_the_question_gone(short_path: Path) -> None:
    script = {"calls": [["trips__seat", {"where": "Rome"}]]}, {"text": "I could not book."}
    async with http(mcp_app()) as url, runtime_process(short_path, *script, agent=trips(url)) as run:
        async with run.client() as client:
            await client.submit("user_input", text="Book.")
        question = await run.until("question")
        await run.end(signal.SIGKILL)
        await run.start()
        ended = await run.until("turn_complete")
        assert ended.data["message"] == "I could not book."
        output = await run.until("tool_output", question.seq)
        assert (output.data["tool_call_id"], output.data["output"]) == (question.data["tool_call_id"], IN_FLIGHT)
        state = (await run.get("/v1/session")).json()
        assert (state["activity"], state["pending_approval"]) == ("Idle", [])


async def test_of_two_answers_at_once_the_first_counts(short_path: Path) -> None:
    async with asked(short_path, says("Booked.")) as (run, pending):
        mine = {"question_id": pending["question"]["id"], "action": "accept"}
        both = await asyncio.gather(*(run.submit("answer", **mine, content={"seat": seat}) for seat in ("window", "aisle")))
        assert sorted(answer.status_code for answer in both) == [202, 409]
        winner = ("window", "aisle")[[answer.status_code for answer in both].index(202)]
        assert (await run.until("tool_output")).data["output"] == f"Rome: accept {{'seat': '{winner}'}}"
        await eventually(lambda: _is_idle(run))


async def _is_idle(run: Runtime) -> bool:
    return bool((await info(run))["activity"] == "Idle")
