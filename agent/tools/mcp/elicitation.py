"""A server's question to the person in the middle of a call: in the loop's terms, and for as long as its call lasts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from agent.question import CANCELLED, DECLINED, MAX_MESSAGE, Question, QuestionAnswer, UnusableQuestion, checked
from agent.redaction import Redactor
from agent.tools.mcp import wire
from agent.tools.tool import Ask, asking, cut_output

if TYPE_CHECKING:
    import mcp_types


class AskingCalls:
    """The calls of one server that run now, and may ask the person something."""

    def __init__(self) -> None:
        self._running: list[tuple[Ask, asyncio.Future[None]]] = []
        """What each asks through and its end, the oldest call first."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """A call runs. Its questions end with it."""
        call = (asking.get(), asyncio.get_running_loop().create_future())
        self._running.append(call)
        try:
            yield
        finally:
            self._running.remove(call)
            call[1].set_result(None)

    async def elicit(
        self, server: str, params: mcp_types.ElicitRequestParams, redactor: Redactor
    ) -> mcp_types.ElicitResult | mcp_types.ErrorData:
        """What a server gets for its question. Without a call that it could belong to, it is declined."""
        import mcp_types  # late: it imports slowly, and most sessions have no MCP server

        try:
            question = question_of(server, params, redactor)
        except UnusableQuestion as error:
            return mcp_types.ErrorData(code=mcp_types.INVALID_PARAMS, message=str(error))
        answer = await self._put(question)
        content = None if answer.content is None else dict(answer.content)
        return mcp_types.ElicitResult(action=answer.action, content=content)

    async def _put(self, question: Question) -> QuestionAnswer:
        """The person's answer; dismissed when the call ends before."""
        if not self._running:
            return DECLINED
        # On stdio, before the protocol of 2026, nothing says to which of several calls a question belongs.
        ask, ended = next((call for call in self._running if call[0] is asking.get()), self._running[0])
        asked = asyncio.ensure_future(ask(question))
        ends: set[asyncio.Future[Any]] = {asked, ended}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return asked.result() if asked.done() else CANCELLED
        finally:
            asked.cancel()


def question_of(server: str, params: mcp_types.ElicitRequestParams, redactor: Redactor) -> Question:
    """The question, with what the connection keeps secret masked. Raises UnusableQuestion."""
    message = cut_output(redactor.text(wire.clean(params.message)), MAX_MESSAGE)
    if params.mode == "url":
        return checked(Question(server, message, url=redactor.text(wire.clean(params.url))))
    form: dict[str, Any] = redactor.value(wire.clean(params.requested_schema))
    return checked(Question(server, message, form=form))
