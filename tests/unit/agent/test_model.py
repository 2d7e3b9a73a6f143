"""The real litellm against a scripted server: what goes over the wire, and what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.events import Event
from agent.loop import Agent
from agent.messages import Message, ModelChunk
from agent.model import LiteLLMModel
from agent.retry import ContextOverflowError, ModelError, ModelUnavailableError, RateLimitedError
from agent.tools.router import ToolRouter
from agent.tools.workspace import workspace_tools
from agent.workspace import LocalWorkspace
from unit.agent.openai_server import Answer, serve

pytestmark = [
    pytest.mark.anyio,
    # litellm installs this filter when it is imported, which pytest undoes after the test that imported it.
    pytest.mark.filterwarnings("ignore:Accessing the.*attribute on the instance is deprecated"),
]

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
    assert [t["function"]["name"] for t in server.requests[0]["tools"]] == ["bash", "read", "write", "edit"]
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
        "llm_calls": 2,
        "tool_calls": 1,
    }


async def test_the_cost_comes_from_the_local_price_table() -> None:
    async with serve(Answer(({"content": "hi"},))) as server:
        chunks = await read(LiteLLMModel("gpt-4o", base_url=server.url))
    usage = next(chunk.usage for chunk in chunks if chunk.usage)
    assert usage.cost_usd == pytest.approx(7 * 2.5e-6 + 4 * 1.25e-6 + 7 * 10e-6)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(status=401, error={"message": "bad key"}), ModelError),
        (Answer(status=404, error={"message": "no such model"}), ModelError),
        (Answer(status=429, error={"message": "slow down"}, headers={"Retry-After": "7"}), RateLimitedError),
        (Answer(status=500, error={"message": "oops"}), ModelUnavailableError),
        (Answer(status=503, error={"message": "busy"}), ModelUnavailableError),
        (
            Answer(status=400, error={"message": "too long", "code": "context_length_exceeded"}),
            ContextOverflowError,
        ),
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
