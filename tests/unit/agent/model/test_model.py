"""The real litellm against a scripted server: what goes over the wire, and what comes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.events import Event
from agent.loop.agent import Agent
from agent.messages import Message, ToolCall
from agent.model import answer as answers
from agent.model.answer import ModelChunk
from agent.model.failure import (
    ContextOverflowError,
    CredentialsError,
    ModelError,
    ModelUnavailableError,
    RateLimitedError,
    RequestRefusedError,
)
from agent.model.model import LiteLLMModel
from agent.tools.router import ToolRouter
from agent.tools.workspace import workspace_tools
from agent.workspace.local import LocalWorkspace
from support.agent.openai_server import Answer, OpenAIServer, anthropic, serve

pytestmark = pytest.mark.anyio

HELLO = (Message("user", "hi"),)


async def read(model: LiteLLMModel) -> list[ModelChunk]:
    return [chunk async for chunk in model.stream(HELLO, [])]


async def test_a_turn_with_a_tool_call_through_the_real_client(tmp_path: Path) -> None:
    first, second = '{"comm', 'and": "echo 42"}'
    asks = Answer(
        (
            {"role": "assistant", "content": "Let me "},
            {"content": "see."},
            {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "bash", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": first}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": second}}]},
        ),
        "tool_calls",
    )
    events: list[Event] = []

    async def emit(event: Event) -> None:
        events.append(event)

    async with serve(asks, Answer(({"content": "It is 42."},))) as server:
        model = LiteLLMModel("some-model", base_url=server.url)
        tools = ToolRouter(workspace_tools(LocalWorkspace(tmp_path)))
        outcome = await Agent(AgentConfig("some-model"), model, tools, emit).run_turn("6 x 7?")
    assert (outcome.status, outcome.message) == ("complete", "It is 42.")
    assert server.requests[0]["model"] == "some-model"
    assert [t["function"]["name"] for t in server.requests[0]["tools"]] == ["bash", "read", "write", "edit", "list"]
    assert server.requests[1]["messages"][2:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "bash", "arguments": '{"command": "echo 42"}'}}
            ],
        },
        {"role": "tool", "content": "42\n", "tool_call_id": "a"},
    ]
    assert events[-2].type == "usage"
    assert events[-2].data == {
        "input_tokens": 22,
        "output_tokens": 14,
        "cached_tokens": 8,
        "cost_usd": 0.0,
        "tool_cost_usd": 0.0,
        "llm_calls": 2,
        "tool_calls": 1,
    }


async def test_calls_of_a_server_that_does_not_count_them_stay_apart() -> None:
    """As those of Ollama: the index of each is 0 (https://github.com/ollama/ollama/issues/15457)."""
    deltas = (
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}]},
        {"tool_calls": [{"index": 0, "id": "b", "type": "function", "function": {"name": "look", "arguments": '{"at"'}}]},
        {"tool_calls": [{"index": 0, "id": "b", "type": "function", "function": {"arguments": ": 2}"}}]},
    )
    answer = answers.Answer()
    async with serve(Answer(deltas, "tool_calls")) as server:
        for chunk in await read(LiteLLMModel("some-model", base_url=server.url)):
            answer.add(chunk)
    assert answer.tool_calls == (ToolCall("a", "look", '{"at": 1}'), ToolCall("b", "look", '{"at": 2}'))


async def test_the_cost_comes_from_the_local_price_table() -> None:
    async with serve(Answer(({"content": "hi"},))) as server:
        chunks = await read(LiteLLMModel("gpt-4o", base_url=server.url))
    usage = next(chunk.usage for chunk in chunks if chunk.usage)
    assert usage.cost_usd == pytest.approx(7 * 2.5e-6 + 4 * 1.25e-6 + 7 * 10e-6)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(status=401, error={"message": "bad key"}), CredentialsError),
        (Answer(status=404, error={"message": "no such model"}), ModelError),
        (Answer(status=429, error={"message": "slow down"}, headers={"Retry-After": "7"}), RateLimitedError),
        (Answer(status=500, error={"message": "oops"}), ModelUnavailableError),
        (Answer(status=503, error={"message": "busy"}), ModelUnavailableError),
        (
            Answer(status=400, error={"message": "too long", "code": "context_length_exceeded"}),
            ContextOverflowError,
        ),
        (Answer(status=400, error={"message": "bad tools"}), RequestRefusedError),
        (Answer(({"content": "half a"},), breaks=True), ModelUnavailableError),
    ],
)
async def test_failures_are_told_apart_by_class(answer: Answer, expected: type[ModelError]) -> None:
    async with serve(answer) as server:
        with pytest.raises(ModelError) as caught:
            await read(LiteLLMModel("some-model", base_url=server.url))
    assert type(caught.value) is expected
    if isinstance(caught.value, RateLimitedError):
        assert caught.value.retry_after == 7.0
    assert len(server.requests) == 1  # the loop retries, not the client


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with serve() as server:
        pass
    with pytest.raises(ModelUnavailableError):
        await read(LiteLLMModel("some-model", base_url=server.url))


async def test_a_retry_after_can_be_a_date() -> None:
    until = datetime.now(UTC) + timedelta(seconds=300)
    slow_down = Answer(status=429, error={"message": "slow down"}, headers={"Retry-After": format_datetime(until, usegmt=True)})
    async with serve(slow_down) as server:
        with pytest.raises(RateLimitedError) as caught:
            await read(LiteLLMModel("some-model", base_url=server.url))
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 300


REFUSED = Answer(status=400, error={"message": "no such effort", "param": "reasoning_effort", "code": "unsupported_value"})
UNEXPLAINED = Answer(status=400, error={"message": "bad request"})
FINE = Answer(({"content": "fine"},))


def efforts(server: OpenAIServer) -> list[str | None]:
    return [request.get("reasoning_effort") for request in server.requests]


async def test_the_effort_is_lowered_until_the_provider_accepts_it_and_stays() -> None:
    async with serve(REFUSED, UNEXPLAINED, FINE, FINE) as server:
        model = LiteLLMModel("some-model", base_url=server.url, reasoning_effort="high")
        assert "".join(chunk.text for chunk in await read(model)) == "fine"
        await read(model)
    assert efforts(server) == ["high", "medium", "low", "low"]


async def test_a_refusal_without_effort_too_is_an_error_and_lowers_nothing() -> None:
    async with serve(*[UNEXPLAINED] * 4, FINE) as server:
        model = LiteLLMModel("some-model", base_url=server.url, reasoning_effort="medium")
        with pytest.raises(RequestRefusedError):
            await read(model)
        assert efforts(server) == ["medium", "low", "minimal", None]
        await read(model)
    assert efforts(server)[4:] == ["medium"]


async def test_a_refusal_of_another_parameter_does_not_lower_the_effort() -> None:
    async with serve(Answer(status=400, error={"message": "bad", "param": "messages"})) as server:
        with pytest.raises(RequestRefusedError):
            await read(LiteLLMModel("some-model", base_url=server.url, reasoning_effort="high"))
    assert efforts(server) == ["high"]


async def test_an_effort_that_a_stream_breaks_off_with_is_not_lowered() -> None:
    async with serve(Answer(({"content": "half a"},), breaks=True)) as server:
        with pytest.raises(ModelUnavailableError):
            await read(LiteLLMModel("some-model", base_url=server.url, reasoning_effort="high"))
    assert efforts(server) == ["high"]


@pytest.mark.parametrize(("name", "sent"), [("gpt-4o", None), ("gpt-5", "high"), ("gpt-5.2", "xhigh")])
async def test_the_table_of_models_limits_the_effort(name: str, sent: str | None) -> None:
    async with serve(FINE) as server:
        await read(LiteLLMModel(name, base_url=server.url, reasoning_effort="xhigh"))
    assert efforts(server) == [sent]


async def test_signed_thoughts_are_sent_back_with_their_calls(tmp_path: Path) -> None:
    thinking: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "The file "},
        {"type": "thinking_delta", "thinking": "will tell."},
        {"type": "signature_delta", "signature": "c2ln"},
    ]
    hidden = [{"type": "redacted_thinking", "data": "aGlkZGVu"}]
    call: list[dict[str, Any]] = [
        {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"command": "echo 42"}'},
    ]
    text = [{"type": "text", "text": ""}, {"type": "text_delta", "text": "It is 42."}]
    name = "anthropic/claude-sonnet-4-5"
    events: list[Event] = []

    async def emit(event: Event) -> None:
        events.append(event)

    async with serve(anthropic(thinking, hidden, call, stop="tool_use"), anthropic(text, stop="end_turn")) as server:
        model = LiteLLMModel(name, base_url=server.url.removesuffix("/v1"), api_key="k", reasoning_effort="low")
        agent = Agent(AgentConfig(name), model, ToolRouter(workspace_tools(LocalWorkspace(tmp_path))), emit)
        outcome = await agent.run_turn("6 x 7?")
    assert (outcome.status, outcome.message) == ("complete", "It is 42.")
    assert server.requests[1]["thinking"]["type"] == "enabled"
    assert server.requests[1]["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "The file will tell.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
        {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": "echo 42"}},
    ]
    said = agent.conversation.messages[1]
    assert Message.from_dict(said.to_dict()) == said
    assert "thinking_blocks" not in said.to_wire("another-model")
