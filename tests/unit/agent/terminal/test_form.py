"""A server's question at a terminal: what is shown, and what a person's lines become."""

from __future__ import annotations

from typing import Any

import pytest

from agent.question import CANCELLED, DECLINED, Question, QuestionAnswer
from agent.terminal.form import HELP, fill_in

pytestmark = pytest.mark.anyio


async def answered(question: Question, *lines: str) -> tuple[QuestionAnswer, list[str]]:
    """The answer that these lines make, and all that was shown. After the lines the input ends."""
    shown: list[str] = []
    typed = list(lines)

    async def ask(prompt: str) -> str | None:
        shown.append(prompt)
        return typed.pop(0) if typed else None

    answer = await fill_in(question, "travel__book", ask, shown.append)
    assert not typed
    return answer, shown


def form(*required: str, **properties: Any) -> Question:
    return Question("travel", "Which trip?", {"properties": properties, "required": list(required)})


TRIP = form(
    "where",
    "people",
    where={"type": "string", "title": "Where to", "description": "A city"},
    people={"type": "integer", "default": 1},
    seat={"type": "string", "oneOf": [{"const": "w", "title": "Window"}, {"const": "a", "title": "a"}]},
    meals={"type": "array", "items": {"type": "string", "enum": ["m", "v"]}, "default": ["m", "v"]},
    sure={"type": "boolean", "default": False},
)


async def test_a_form_is_filled_in_field_by_field() -> None:
    answer, shown = await answered(TRIP, "", "Rome", "two", "2", "1", "", "yes")
    assert answer == QuestionAnswer("accept", {"where": "Rome", "people": 2, "seat": "w", "sure": True})
    assert shown == [
        "? travel asks, for travel__book: Which trip?",
        HELP,
        "  A city",
        "  Where to (required): ",
        "  Where to is required",
        "  Where to (required): ",
        "  people (a whole number) [1]: ",
        "  people must be a whole number",
        "  people (a whole number) [1]: ",
        "    1. Window (w)",
        "    2. a",
        "  seat: ",
        "    1. m",
        "    2. v",
        "  meals (several, with commas) [m, v]: ",
        "  sure (yes or no) [no]: ",
    ]


@pytest.mark.parametrize(("line", "expected"), [("/decline", DECLINED), (" /cancel ", CANCELLED)])
async def test_a_person_can_refuse_at_any_field(line: str, expected: QuestionAnswer) -> None:
    assert (await answered(TRIP, "Rome", line))[0] == expected


@pytest.mark.parametrize("lines", [(), ("Rome",), ("",)])
async def test_the_end_of_the_input_is_no_answer(lines: tuple[str, ...]) -> None:
    with pytest.raises(EOFError):
        await answered(TRIP, *lines)


@pytest.mark.parametrize("question", [form(), Question("pay", "Agreed?"), Question("pay", "Pay.", url="https://pay.example/1")])
async def test_without_fields_a_person_agrees_or_does_not(question: Question) -> None:
    assert (await answered(question, "what?", "Y"))[0] == QuestionAnswer("accept")
    assert (await answered(question, "no"))[0] == DECLINED


async def test_an_address_to_visit_is_shown_whole() -> None:
    _, shown = await answered(Question("pay", "Pay.", url="https://pay.example/" + "1" * 500), "n")
    assert shown[1] == "  https://pay.example/" + "1" * 500
