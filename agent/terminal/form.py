"""A server's question at a terminal: shows it, and reads the answer field by field."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agent.question import CANCELLED, DECLINED, FormField, Question, QuestionAnswer, form_fields

Ask = Callable[[str], Awaitable[str | None]]
"""Shows a prompt and returns the line that the person types, None at the end of the input."""

HELP = "  An empty line takes the value in brackets. /decline refuses, /cancel dismisses the question."

_YES = {"y": True, "yes": True, "n": False, "no": False}


class _Ended(Exception):
    """The person does not want to fill in the form."""

    def __init__(self, answer: QuestionAnswer) -> None:
        super().__init__(answer.action)
        self.answer = answer


async def fill_in(question: Question, tool: str, ask: Ask, show: Callable[[str], None]) -> QuestionAnswer:
    """Put the question to the person. Raises EOFError at the end of the input."""
    show(f"? {question.server} asks, for {tool}: {question.message}")
    try:
        if question.url is not None:
            show(f"  {question.url}")
            return await _agree("  visit this address? [y]es once you have, [n]o: ", ask)
        fields = form_fields(question.form or {})
        if not fields:
            return await _agree("  agree? [y]es, [n]o: ", ask)
        show(HELP)
        content: dict[str, Any] = {}
        for field in fields:
            await _read(field, content, ask, show)
    except _Ended as end:
        return end.answer
    return QuestionAnswer("accept", content)


async def _agree(prompt: str, ask: Ask) -> QuestionAnswer:
    while True:
        yes = _YES.get((await _line(prompt, ask)).lower())
        if yes is not None:
            return QuestionAnswer("accept") if yes else DECLINED


async def _read(field: FormField, content: dict[str, Any], ask: Ask, show: Callable[[str], None]) -> None:
    """Ask for one field until its value can be used. An optional one without a value is left out."""
    if field.description:
        show(f"  {field.description}")
    for number, (value, label) in enumerate(field.choices, 1):
        show(f"    {number}. {label}" + (f" ({value})" if label != value else ""))
    while True:
        text = await _line(f"  {field.title}{_hint(field)}: ", ask)
        if not text and (field.default is not None or not field.required):
            return
        if not text:
            show(f"  {field.title} is required")
            continue
        try:
            content[field.name] = field.read(text)
        except ValueError as error:
            show(f"  {field.title} {error}")
            continue
        return


async def _line(prompt: str, ask: Ask) -> str:
    line = await ask(prompt)
    if line is None:
        raise EOFError
    text = line.strip()
    if text in ("/cancel", "/decline"):
        raise _Ended(DECLINED if text == "/decline" else CANCELLED)
    return text


def _hint(field: FormField) -> str:
    kinds = {"number": "a number", "integer": "a whole number", "boolean": "yes or no", "choices": "several, with commas"}
    notes = [kinds.get(field.kind, ""), "required" if field.required and field.default is None else ""]
    hint = f" ({', '.join(note for note in notes if note)})" if any(notes) else ""
    if field.default is None:
        return hint
    shown = {True: "yes", False: "no"}[field.default] if field.kind == "boolean" else field.default
    return f"{hint} [{', '.join(shown) if isinstance(shown, list) else shown}]"
