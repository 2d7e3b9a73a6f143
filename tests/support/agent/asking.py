"""A tool whose server asks the person something in the middle of the call, and says what the answer was."""

from __future__ import annotations

from typing import Any

from agent.question import Question
from agent.tools.tool import Tool, asking, parameters

SEAT = Question(
    "travel",
    "Which seat?",
    {"type": "object", "properties": {"seat": {"type": "string", "enum": ["window", "aisle"], "default": "aisle"}}},
)


def asking_tool(question: Question = SEAT, *, times: int = 1, read_only: bool = False, timeout: float = 60.0) -> Tool:
    """`book`, which asks so many times before it ends."""

    async def book(arguments: dict[str, Any]) -> str:
        answers = [await asking.get()(question) for _ in range(times)]
        return ", ".join(f"{answer.action} {answer.content}" for answer in answers)

    where = parameters("to", to={"type": "string"})
    return Tool("book", "Book it.", where, book, read_only=read_only, timeout=timeout)
