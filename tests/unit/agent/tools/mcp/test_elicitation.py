"""What servers of the official SDK ask a person in the middle of a call, over each transport and either protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.question import MAX_MESSAGE, Question, QuestionAnswer
from agent.testing import calls, says
from agent.tools.mcp.connection import McpConnection
from agent.tools.mcp.server import McpServer
from agent.tools.router import ToolRouter
from agent.tools.tool import ToolResult
from support.agent import mcp_server
from support.agent.canned_mcp import canned_app, reply, tools
from support.agent.mcp_http import http, mcp_app
from support.agent.processes import until
from support.agent.stage import interrupt, stage

pytestmark = pytest.mark.anyio

ACCEPT = QuestionAnswer("accept", {"seat": "window"})


@contextlib.asynccontextmanager
async def connected(how: str) -> AsyncIterator[ToolRouter]:
    """A router with the server `a`: over `stdio` or `http`, perhaps of an older protocol."""
    legacy = how.endswith("legacy")
    async with contextlib.AsyncExitStack() as stack:
        if how.startswith("http"):
            server = McpServer("a", url=await stack.enter_async_context(http(mcp_app(legacy=legacy))))
        else:
            server = McpServer("a", command=(sys.executable, mcp_server.__file__, *(["legacy"] if legacy else [])))
        yield await stack.enter_async_context(ToolRouter(sources=(McpConnection(server),)))


EVERY = pytest.mark.parametrize("how", ["stdio", "stdio legacy", "http", "http legacy"])


class Person:
    """Answers, and remembers what was asked."""

    def __init__(self, *answers: QuestionAnswer) -> None:
        self.asked: list[Question] = []
        self._answers = list(answers)

    async def __call__(self, question: Question) -> QuestionAnswer:
        self.asked.append(question)
        return self._answers.pop(0)


@EVERY
async def test_a_servers_question_is_put_to_who_is_asked_by_the_call(how: str) -> None:
    person = Person(ACCEPT, QuestionAnswer("decline"), QuestionAnswer("cancel"))
    async with connected(how) as router:
        outputs = [(await router.call("a__seat", {"where": "Rome"}, person)).output for _ in range(3)]
    assert outputs == ["Rome: accept {'seat': 'window'}", "Rome: decline None", "Rome: cancel None"]
    assert person.asked[0].message == "Which seat to Rome?"
    assert person.asked[0].server == "a"
    assert person.asked[0].form is not None
    assert person.asked[0].form["properties"]["seat"]["enum"] == ["window", "aisle"]


@EVERY
async def test_an_address_to_visit_is_put_to_the_person(how: str) -> None:
    person = Person(QuestionAnswer("accept"))
    async with connected(how) as router:
        assert (await router.call("a__visit", {}, person)).output == "accept"
    assert person.asked == [Question("a", "Pay there.", url="https://pay.example/1")]


@EVERY
async def test_an_interrupt_ends_a_servers_question_at_once(how: str) -> None:
    async with connected(how) as router:
        s = stage(calls(("a__seat", {"where": "Rome"})), calls(("a__add", {"a": 1, "b": 2})), says("done"), tools=router.tools)
        turn = asyncio.create_task(s.agent.run_turn("go"))
        await until(lambda: s.agent.questions)
        await interrupt(s, turn)
        assert s.agent.questions == ()
        await s.agent.run_turn("and now?")
        assert s.data("tool_output")[-1]["output"] == "3"


@pytest.mark.parametrize("how", ["stdio", "http", "http legacy"])
async def test_of_parallel_calls_each_gets_its_own_answer(how: str) -> None:
    asked: dict[str, asyncio.Future[QuestionAnswer]] = {}

    async def call(where: str) -> ToolResult:
        async def person(question: Question) -> QuestionAnswer:
            assert where in question.message
            asked[where] = asyncio.get_running_loop().create_future()
            return await asked[where]

        return await router.call("a__seat", {"where": where}, person)

    async with connected(how) as router:
        results = [asyncio.create_task(call(where)) for where in ("Rome", "Oslo")]
        await until(lambda: len(asked) == 2)
        asked["Oslo"].set_result(QuestionAnswer("decline"))
        asked["Rome"].set_result(ACCEPT)
        assert [(await result).output for result in results] == ["Rome: accept {'seat': 'window'}", "Oslo: decline None"]


# What servers write themselves.


def asking_app(params: dict[str, Any], answers: list[dict[str, Any]], *, late: bool = False) -> Any:
    """A server that asks this in a call of `t` (`late`: after its answer, on the same stream), and says "fine"."""

    async def respond(request: dict[str, Any], send: Any) -> bool:
        if request.get("method") is None and "id" in request:
            answers.append(request)
            await reply(send, 202)
            return True
        if request.get("method") != "tools/call":
            return False
        question = {"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": params}
        result = {"jsonrpc": "2.0", "id": request["id"], "result": {"content": [{"type": "text", "text": "fine"}]}}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for message in (result, question) if late else (question, result):
            if message is result and not late:
                await until(lambda: answers)
            await send({"type": "http.response.body", "body": f"data: {json.dumps(message)}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body"})
        return True

    return canned_app({"tools/list": tools("t")}, respond=respond)


FORM = {"type": "object", "properties": {"a": {"type": "string"}}}


async def ask(params: dict[str, Any], person: Person) -> tuple[str, dict[str, Any]]:
    """The call's output, and what the server got for its question."""
    answers: list[dict[str, Any]] = []
    async with (
        http(asking_app(params, answers)) as url,
        ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router,
    ):
        output = (await router.call("a__t", {}, person)).output
    return output, answers[0]


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"message": "?", "requestedSchema": {"type": "object", "properties": {"a": {"type": "object"}}}}, "a is none of"),
        ({"mode": "url", "message": "?", "url": "javascript:alert(1)", "elicitationId": "1"}, "no http or https address"),
    ],
)
async def test_a_question_that_cannot_be_put_is_an_error_to_the_server(params: dict[str, Any], why: str) -> None:
    person = Person()
    output, answer = await ask(params, person)
    assert (output, person.asked) == ("fine", [])
    assert answer["error"]["code"] in (-32602, -32603)
    assert why in answer["error"]["message"] or "invalid" in answer["error"]["message"].lower()


async def test_a_long_or_odd_question_is_made_readable() -> None:
    person = Person(QuestionAnswer("accept", {"a": "x"}))
    _, answer = await ask({"message": "\ud800" + "long " * 4_000, "requestedSchema": FORM}, person)
    assert answer["result"] == {"action": "accept", "content": {"a": "x"}}
    assert len(person.asked[0].message) < MAX_MESSAGE + 100
    assert person.asked[0].message.startswith("\N{REPLACEMENT CHARACTER}long")


async def test_a_question_outside_of_calls_is_declined() -> None:
    answers: list[dict[str, Any]] = []
    person = Person()
    app = asking_app({"message": "?", "requestedSchema": FORM}, answers, late=True)
    async with http(app) as url, ToolRouter(sources=(McpConnection(McpServer("a", url=url)),)) as router:
        assert (await router.call("a__t", {}, person)).output == "fine"
    assert (person.asked, [answer["result"]["action"] for answer in answers]) in (([], []), ([], ["decline"]))
