"""Questions that tools' servers ask the person in the middle of a call.

They are in memory only, because the call that waits for the answer is: a call that a restart cuts off gets the result that all
such calls get, and its question is gone with it. A question ends with an answer, with its call, or with the turn.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, Final, Protocol

from agent.events import EventType
from agent.loop.interrupt import InterruptSignal
from agent.question import CANCELLED, DECLINED, MAX_MESSAGE, OpenQuestion, Question, QuestionAnswer, complete, problems_with
from agent.redaction import Redactor
from agent.tools.tool import Ask, cut_output

MAX_OPEN: Final = 8
"""Questions that are open at the same time; further ones are dismissed."""

MAX_ASKED: Final = 20
"""Questions of one call; a server that asks without end is declined, and fills no log."""

NOBODY: Final = "nobody answers questions in this session"


class Run(Protocol):
    """What a question needs of the work that it is asked in; `agent.loop.run_context.RunContext` is one."""

    redactor: Redactor
    signal: InterruptSignal | None

    @property
    def parent(self) -> str | None: ...

    async def emit(self, event: EventType, **data: object) -> None: ...


class Questions:
    """The open questions of one agent."""

    def __init__(self, somebody: bool) -> None:
        self._somebody = somebody
        self._open: dict[str, tuple[OpenQuestion, asyncio.Future[QuestionAnswer]]] = {}

    @property
    def open(self) -> tuple[OpenQuestion, ...]:
        return tuple(question for question, _ in self._open.values())

    def settle(self, question_id: str, answer: QuestionAnswer) -> OpenQuestion | None:
        """Answer a question; None when it is not open. Raises ValueError for an answer that does not fit."""
        question, answered = self._open.get(question_id, (None, None))
        if question is None or answered is None or answered.done():
            return None
        problems = problems_with(question.question, answer)
        if problems:
            raise ValueError("; ".join(f"{name} {problem}".strip() for name, problem in problems.items()))
        answered.set_result(complete(question.question, answer))
        del self._open[question_id]
        return question

    def dismiss(self) -> None:
        """End all questions: the turn is over."""
        for _, answered in self._open.values():
            if not answered.done():
                answered.set_result(CANCELLED)
        self._open.clear()

    def of_call(self, run: Run, call_id: str, tool: str, arguments: Callable[[], dict[str, Any]]) -> Ask:
        """What the call asks through. `arguments` are the call's, masked; `run` emits, and masks what is asked."""
        asked = 0

        async def ask(question: Question) -> QuestionAnswer:
            nonlocal asked
            asked += 1
            if asked > MAX_ASKED:
                return DECLINED
            if run.signal is None or run.signal.is_set or len(self._open) >= MAX_OPEN:
                return CANCELLED
            masked = Question(
                question.server,
                cut_output(run.redactor.text(question.message), MAX_MESSAGE),
                None if question.form is None else run.redactor.value(question.form),
                None if question.url is None else run.redactor.text(question.url),
            )
            return await self._put(run, OpenQuestion(new_id(), call_id, tool, arguments(), masked, run.parent))

        return ask

    async def _put(self, run: Run, question: OpenQuestion) -> QuestionAnswer:
        asked = question.question
        data = {"question_id": question.id, "tool_call_id": question.tool_call_id, "tool": question.tool}
        what = {"server": asked.server, "message": asked.message, "form": asked.form, "url": asked.url}
        if not self._somebody:
            await run.emit("question", **data, **what, declined=NOBODY)
            return DECLINED
        answered: asyncio.Future[QuestionAnswer] = asyncio.get_running_loop().create_future()
        self._open[question.id] = (question, answered)
        try:
            await run.emit("question", **data, **what)
            return await answered
        finally:
            self._open.pop(question.id, None)


def new_id() -> str:
    """The id of a question."""
    return f"question_{uuid.uuid4().hex}"
