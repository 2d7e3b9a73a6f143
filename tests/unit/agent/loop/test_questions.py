"""Questions in the middle of a call: put to the person, answered while the call waits, and gone with the call."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from agent.loop.questions import MAX_ASKED, MAX_OPEN, NOBODY
from agent.question import CANCELLED, DECLINED, Question, QuestionAnswer
from agent.testing import calls, says
from agent.tools.research import research_tool
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, asking, parameters
from support.agent.asking import SEAT, asking_tool
from support.agent.processes import until
from support.agent.stage import Stage, interrupt, stage

pytestmark = pytest.mark.anyio

BOOK = ("book", {"to": "Rome"})
ACCEPT = QuestionAnswer("accept")


async def asked(s: Stage, count: int = 1) -> str:
    """The id of the newest question, when there are so many."""
    await until(lambda: len(s.agent.questions) == count)
    return s.agent.questions[-1].id


def outputs(s: Stage) -> list[object]:
    return [data["output"] for data in s.data("tool_output")]


async def test_a_question_waits_in_its_call_and_is_answered() -> None:
    s = stage(calls(BOOK), says("done"), tools=(asking_tool(),))
    turn = asyncio.create_task(s.agent.run_turn("go"))
    question = await asked(s)
    [open_question] = s.agent.questions
    assert (open_question.tool, open_question.tool_call_id, open_question.arguments) == ("book", "call_1_0", {"to": "Rome"})
    assert open_question.question == SEAT
    assert await s.agent.answer(question, QuestionAnswer("accept", {"seat": "window"}))
    assert (await turn).status == "complete"
    assert outputs(s) == ["accept {'seat': 'window'}"]
    assert s.agent.questions == ()
    of_call = {"question_id": question, "tool_call_id": "call_1_0"}
    what = {"server": "travel", "message": "Which seat?", "form": SEAT.form, "url": None}
    assert s.data("question") == [{**of_call, "tool": "book", **what}]
    assert s.data("question_closed") == [{**of_call, "action": "accept"}]
    assert [kind for kind in s.types() if kind.startswith(("question", "tool"))] == [
        "tool_call",
        "question",
        "question_closed",
        "tool_output",
    ]


async def test_defaults_are_applied_and_what_does_not_fit_is_refused() -> None:
    s = stage(calls(BOOK), says("done"), tools=(asking_tool(),))
    turn = asyncio.create_task(s.agent.run_turn("go"))
    question = await asked(s)
    with pytest.raises(ValueError, match="seat must be of: window, aisle"):
        await s.agent.answer(question, QuestionAnswer("accept", {"seat": "roof"}))
    assert not await s.agent.answer("another", ACCEPT)
    assert await s.agent.answer(question, ACCEPT)
    assert not await s.agent.answer(question, DECLINED)  # somebody was faster
    await turn
    assert outputs(s) == ["accept {'seat': 'aisle'}"]


@pytest.mark.parametrize("answer", [DECLINED, CANCELLED])
async def test_a_call_hears_that_the_person_did_not_want_to(answer: QuestionAnswer) -> None:
    s = stage(calls(BOOK), says("done"), tools=(asking_tool(),))
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await s.agent.answer(await asked(s), answer)
    await turn
    assert outputs(s) == [f"{answer.action} None"]


async def test_where_nobody_answers_a_question_is_declined_at_once() -> None:
    s = stage(calls(BOOK), says("done"), tools=(asking_tool(),), somebody_answers=False)
    assert (await s.agent.run_turn("go")).status == "complete"
    assert outputs(s) == ["decline None"]
    assert [data["declined"] for data in s.data("question")] == [NOBODY]
    assert s.data("question_closed") == []


async def test_an_interrupt_ends_a_question_at_once() -> None:
    s = stage(calls(BOOK), tools=(asking_tool(),))
    turn = asyncio.create_task(s.agent.run_turn("go"))
    question = await asked(s)
    await interrupt(s, turn)
    assert s.agent.questions == ()
    assert not await s.agent.answer(question, ACCEPT)
    assert s.data("question_closed") == []


async def test_a_question_of_work_that_was_left_behind_is_dismissed() -> None:
    """A tool that swallows its cancellation, and asks when nobody listens any more."""
    answers: list[QuestionAnswer] = []

    async def stubborn(arguments: dict[str, Any]) -> str:
        try:
            answers.append(await asking.get()(SEAT))
        except asyncio.CancelledError:
            await until(lambda: not s.agent.is_processing)
            answers.append(await asking.get()(SEAT))
        return ""

    s = stage(calls(("stubborn", {})), tools=(Tool("stubborn", "", parameters(), stubborn),))
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await asked(s)
    await interrupt(s, turn)
    await until(lambda: answers)
    assert answers == [CANCELLED]
    assert len(s.data("question")) == 1


async def test_a_call_that_asks_without_end_is_declined() -> None:
    s = stage(calls(BOOK), says("done"), tools=(asking_tool(times=MAX_ASKED + 2),), somebody_answers=False)
    await s.agent.run_turn("go")
    assert len(s.data("question")) == MAX_ASKED
    assert outputs(s) == [", ".join(["decline None"] * (MAX_ASKED + 2))]


async def test_more_questions_than_a_person_can_see_are_dismissed() -> None:
    async def crowd(arguments: dict[str, Any]) -> str:
        ask = asking.get()
        answers = await asyncio.gather(*(ask(SEAT) for _ in range(MAX_OPEN + 1)))
        return ", ".join(answer.action for answer in answers)

    s = stage(calls(("crowd", {})), says("done"), tools=(Tool("crowd", "", parameters(), crowd),))
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await asked(s, MAX_OPEN)
    for question in s.agent.questions:
        await s.agent.answer(question.id, ACCEPT)
    await turn
    assert outputs(s) == [", ".join(["accept"] * MAX_OPEN + ["cancel"])]


async def test_a_question_and_its_call_are_shown_without_secrets() -> None:
    telling = replace(SEAT, message="Is it s3cret-value?", url="https://x.example/s3cret-value")
    s = stage(calls(("book", {"to": "s3cret-value"})), says("done"), tools=(asking_tool(telling),), secrets=("s3cret-value",))
    turn = asyncio.create_task(s.agent.run_turn("go"))
    question = await asked(s)
    [open_question] = s.agent.questions
    assert open_question.arguments == {"to": "[REDACTED]"}
    assert open_question.question.message == "Is it [REDACTED]?"
    assert s.data("question")[0]["url"] == "https://x.example/[REDACTED]"
    await s.agent.answer(question, ACCEPT)
    await turn


async def test_a_question_of_a_sub_agent_names_the_call_it_works_for() -> None:
    tools = (asking_tool(read_only=True), research_tool())
    s = stage(calls(("research", {"task": "find it"})), calls(BOOK), says("found"), says("done"), tools=tools)
    turn = asyncio.create_task(s.agent.run_turn("go"))
    question = await asked(s)
    assert s.agent.questions[0].parent == "call_1_0"
    await s.agent.answer(question, ACCEPT)
    await turn
    for kind in ("question", "question_closed"):
        assert [data["parent"] for data in s.data(kind)] == ["call_1_0"]


async def test_parallel_calls_ask_each_for_itself() -> None:
    s = stage(calls(BOOK, ("book", {"to": "Oslo"})), says("done"), tools=(asking_tool(read_only=True),))
    turn = asyncio.create_task(s.agent.run_turn("go"))
    await asked(s, 2)
    for question in s.agent.questions:
        seat = {"Rome": "window", "Oslo": "aisle"}[question.arguments["to"]]
        await s.agent.answer(question.id, QuestionAnswer("accept", {"seat": seat}))
    await turn
    results = {data["tool_call_id"]: data["output"] for data in s.data("tool_output")}
    assert results == {"call_1_0": "accept {'seat': 'window'}", "call_1_1": "accept {'seat': 'aisle'}"}


# The clock of a call.


async def test_a_calls_time_stands_still_while_a_person_is_asked() -> None:
    async def slow_person(question: Question) -> QuestionAnswer:
        later = time.monotonic() + 0.3
        await until(lambda: time.monotonic() > later)
        return ACCEPT

    router = ToolRouter((asking_tool(times=2, timeout=0.2),))
    assert (await router.call("book", {"to": "Rome"}, slow_person)).output == "accept None, accept None"


async def test_a_calls_time_continues_after_the_answer() -> None:
    async def asks_and_hangs(arguments: dict[str, Any]) -> str:
        await asking.get()(SEAT)
        await asyncio.get_running_loop().create_future()
        return ""

    async def person(question: Question) -> QuestionAnswer:
        return ACCEPT

    router = ToolRouter((Tool("hang", "", parameters(), asks_and_hangs, timeout=0.2),))
    assert (await router.call("hang", {}, person)).output == "hang did not finish within 0.2 s."


async def test_without_anybody_to_ask_a_call_is_declined() -> None:
    assert (await ToolRouter((asking_tool(),)).call("book", {"to": "Rome"})).output == "decline None"
