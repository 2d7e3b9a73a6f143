"""Prompt caching where it must be asked for, and what cached tokens cost."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.events import Event
from agent.loop.agent import Agent
from agent.messages import Message, ToolCall, Usage
from agent.model.model import LiteLLMModel
from agent.model.prompt_cache import MARK, marked, takes_marks
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, parameters
from support.agent.openai_server import Answer, anthropic, serve

pytestmark = pytest.mark.anyio

CLAUDE = "anthropic/claude-sonnet-4-5"
WRITTEN, READ, FRESH, OUT = 300_000, 500_000, 200_000, 1_000


async def echo(arguments: dict[str, Any]) -> str:
    return str(arguments["text"])


ECHO = Tool("echo", "Say it again.", parameters("text", text={"type": "string"}), echo)


def marks(value: Any) -> list[Any]:
    """Every block with a mark in a request, in order."""
    if isinstance(value, list):
        return [mark for item in value for mark in marks(item)]
    if isinstance(value, dict):
        inner = [mark for item in value.values() for mark in marks(item)]
        return [*inner, value] if value.get("cache_control") == MARK else inner
    return []


def with_cache(answer: Answer) -> Answer:
    """The answer with a count that has cached tokens in it."""
    usage = '{"input_tokens": 10, "output_tokens": 5}'
    counted = {
        "input_tokens": FRESH,
        "output_tokens": OUT,
        "cache_creation_input_tokens": WRITTEN,
        "cache_read_input_tokens": READ,
    }
    assert usage in str(answer.raw)
    return replace(answer, raw=str(answer.raw).replace(usage, json.dumps(counted)))


async def test_each_step_with_claude_reads_the_last_one_from_the_cache() -> None:
    call: list[dict[str, Any]] = [
        {"type": "tool_use", "id": "toolu_1", "name": "echo", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"text": "again"}'},
    ]
    said = [{"type": "text", "text": ""}, {"type": "text_delta", "text": "Done."}]

    async def emit(event: Event) -> None:
        pass

    answers = (*[anthropic(call, stop="tool_use")] * 2, with_cache(anthropic(said, stop="end_turn")))
    async with serve(*answers) as server:
        model = LiteLLMModel(CLAUDE, base_url=server.url.removesuffix("/v1"), api_key="k")
        agent = Agent(AgentConfig(CLAUDE), model, ToolRouter((ECHO,)), emit)
        before = Usage()
        assert (await agent.run_turn("go")).message == "Done."
    first, second, third = server.requests
    assert [len(marks(request)) for request in (first, second, third)] == [2, 3, 3]
    for request in (first, second, third):
        assert marks(request["system"])
        assert marks(request["messages"][-1])
    # Each request is marked where the one before it had its end.
    assert [marks(message) != [] for message in second["messages"]] == [True, False, True]
    assert [marks(message) != [] for message in third["messages"]] == [False, False, True, False, True]
    used = agent.usage
    assert used.input_tokens - 20 == FRESH + READ + WRITTEN
    assert used.cached_tokens - before.cached_tokens == READ
    prices = (FRESH, 3.0), (READ, 0.30), (WRITTEN, 3.75), (OUT, 15.0)  # dollars for a million, as Anthropic lists them
    expected = sum(tokens * price / 1e6 for tokens, price in prices) + 2 * (10 * 3.0 + 5 * 15.0) / 1e6
    assert used.cost_usd == pytest.approx(expected)


async def test_cached_tokens_of_an_openai_compatible_server_have_their_price() -> None:
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 400_000}}
    async with serve(Answer(({"content": "Hi."},), usage=usage)) as server:
        model = LiteLLMModel("openai/gpt-5-mini", base_url=server.url, api_key="k")
        chunks = [chunk async for chunk in model.stream((Message("user", "hi"),), [])]
    (used,) = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert used.cost_usd == pytest.approx(0.6 * 0.25 + 0.4 * 0.025)


def test_a_request_that_nothing_follows_is_not_written_to_the_cache() -> None:
    wire = [message.to_wire() for message in (Message("system", "Summarize."), Message("user", "a long text"))]
    assert marked(wire, with_tools=False) == wire
    talk = [*wire, Message("assistant", "short").to_wire(), Message("user", "and?").to_wire()]
    assert [at for at, message in enumerate(marked(talk, with_tools=False)) if "cache_control" in message] == [0, 1, 3]
    continued = [*wire, Message("assistant", "", (ToolCall("a", "b", "{}"),)).to_wire()]
    assert [at for at, message in enumerate(marked(continued, with_tools=True)) if "cache_control" in message] == [0, 1]


@pytest.mark.parametrize(
    ("name", "info", "expected"),
    [
        (CLAUDE, {"supports_prompt_caching": True}, True),
        ("claude-next", None, True),
        ("bedrock/eu.anthropic.claude-sonnet-4-5-20250929-v1:0", {"supports_prompt_caching": True}, True),
        ("bedrock/anthropic.claude-v2", {"supports_prompt_caching": False}, False),
        ("openai/claude-sonnet-4-5", None, False),
        ("gemini/gemini-2.5-pro", {"supports_prompt_caching": True}, False),
    ],
)
def test_marks_are_for_claude_at_providers_that_take_them(name: str, info: dict[str, Any] | None, expected: bool) -> None:
    assert takes_marks(name, info) is expected
