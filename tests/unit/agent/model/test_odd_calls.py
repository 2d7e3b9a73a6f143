"""Calls and characters as servers really cut, name and number them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.events import Event
from agent.loop.agent import Agent
from agent.messages import Message, ToolCall
from agent.model import answer as answers
from agent.model.answer import ModelChunk, SurrogatePairs, ToolCallDelta
from agent.model.model import LiteLLMModel
from agent.testing import calls, says
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, parameters
from support.agent.openai_server import Answer, serve
from support.agent.stage import Stage, stage
from support.agent.validity import check_request

pytestmark = pytest.mark.anyio


def piece(name: str | None = None, arguments: str = "", call_id: str | None = None, index: int = 0) -> ToolCallDelta:
    return ToolCallDelta(index, call_id, name, arguments)


def collected(*pieces: ToolCallDelta) -> list[tuple[str, str]]:
    answer = answers.Answer()
    for one in pieces:
        answer.add(ModelChunk(tool_calls=(one,)))
    return [(call.name, call.arguments) for call in answer.tool_calls]


def test_parallel_calls_with_one_index_and_no_ids_stay_apart() -> None:
    assert collected(piece("look", '{"at": 1}'), piece("look", '{"at": 2}')) == [("look", '{"at": 1}'), ("look", '{"at": 2}')]
    assert collected(piece("look", '{"at"'), piece(None, ": 1}"), piece("show", "{"), piece(None, "}")) == [
        ("look", '{"at": 1}'),
        ("show", "{}"),
    ]
    assert collected(piece("look"), piece("show")) == [("look", ""), ("show", "")]


def test_a_call_whose_pieces_all_have_its_name_is_one() -> None:
    assert collected(piece("look", '{"at"'), piece("look", ": 1}")) == [("look", '{"at": 1}')]
    assert collected(piece("look", '{"at"', "a"), piece("look", ": 1}", "a")) == [("look", '{"at": 1}')]
    assert collected(piece("look", "", "a"), piece("look", "{}", "")) == [("look", "{}")]


@pytest.mark.parametrize("cut", range(1, 5))
async def test_a_character_that_is_split_over_pieces_is_whole(cut: int) -> None:
    """In text that is shown, in text that is kept, and in arguments that run."""
    text = "a\ud83d\ude00b"  # as a server with UTF-16 strings has it
    ran: list[str] = []

    async def keep(arguments: dict[str, Any]) -> str:
        ran.append(arguments["text"])
        return "kept"

    def halves(make: Any) -> list[dict[str, Any]]:
        return [make(text[:cut]), make(text[cut:])]

    function = {"name": "keep", "arguments": '{"text": "'}
    begin = {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": function}]}
    arguments = halves(lambda part: {"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
    end = {"tool_calls": [{"index": 0, "function": {"arguments": '"}'}}]}
    script = (
        Answer((*halves(lambda part: {"content": part}), begin, *arguments, end), "tool_calls"),
        Answer(({"content": "done"},)),
    )
    events: list[Event] = []

    async def emit(event: Event) -> None:
        events.append(event)

    tool = Tool("keep", "", parameters("text", text={"type": "string"}), keep)
    async with serve(*script) as server, asyncio.timeout(60):
        agent = Agent(AgentConfig("m"), LiteLLMModel("m", base_url=server.url), ToolRouter((tool,)), emit)
        await agent.run_turn("go")
    assert ran == ["a😀b"]
    assert agent.conversation.messages[1].content == "a😀b"
    assert "".join(str(e.data["text"]) for e in events if e.type == "assistant_chunk") == "a😀bdone"


def test_half_a_character_that_stays_alone_is_not_held_for_ever() -> None:
    pairs = SurrogatePairs()
    chunks = [ModelChunk("a\ud83d"), ModelChunk("b"), ModelChunk("\ud83d"), ModelChunk("", finish_reason="stop")]
    assert [pairs.join(chunk).text for chunk in chunks] == ["a", "\ud83db", "", "\ud83d"]


def look() -> tuple[list[dict[str, Any]], Tool]:
    ran: list[dict[str, Any]] = []

    async def call(arguments: dict[str, Any]) -> str:
        ran.append(arguments)
        return "seen"

    return ran, Tool("look", "", parameters(at={"type": "integer"}), call)


def stored(s: Stage) -> list[ToolCall]:
    return [call for message in s.agent.conversation.messages for call in message.tool_calls]


def results(s: Stage) -> list[str]:
    return [message.content for message in s.agent.conversation.messages if message.role == "tool"]


@pytest.mark.parametrize(
    "name", ["functions.look", "look", "functions.look:0", "look<|channel|>commentary", "tools.look", " look"]
)
async def test_a_tool_is_found_by_the_names_that_models_write(name: str) -> None:
    ran, tool = look()
    s = stage(calls((name, {"at": 1})), says("done"), tools=(tool,))
    await s.agent.run_turn("go")
    assert ran == [{"at": 1}]
    assert stored(s)[0].name == "look"


@pytest.mark.parametrize("odd", ["x" * 41, "call:1", "functions.look:0", "toolu 1", "ü", ""])
async def test_ids_that_providers_refuse_do_not_go_back_to_them(odd: str) -> None:
    _, tool = look()
    s = stage(calls(("look", {}), ids=(odd,)), calls(("look", {"at": 1}), ids=("call_1",)), says("done"), tools=(tool,))
    await s.agent.run_turn("go")
    for request in s.model.requests:
        check_request(request)
    assert stored(s)[0].id != odd
    assert stored(s)[1].id == "call_1"


async def test_signed_thoughts_in_an_id_are_kept() -> None:
    _, tool = look()
    signed = "call_1__thought__" + "c2lnbmF0dXJl+/=" * 20
    s = stage(calls(("look", {}), ids=(signed,)), says("done"), tools=(tool,))
    await s.agent.run_turn("go")
    assert stored(s)[0].id == signed


async def test_a_call_cut_off_before_its_arguments_is_told_why() -> None:
    ran, tool = look()
    s = stage(calls(("look", ""), finish_reason="length"), calls(("look", "")), says("done"), tools=(tool,))
    await s.agent.run_turn("go")
    assert "it reached the limit for one answer" in results(s)[0]
    assert ran == [{}]  # without a cut, no arguments are none


def test_what_was_split_is_stored_as_json() -> None:
    assert json.loads(Message("user", answers.paired("\ud83d\ude00")).wire_json)["content"] == "😀"
