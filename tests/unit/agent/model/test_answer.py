"""What servers report about an answer, read with care."""

from __future__ import annotations

from typing import Any

import pytest

from agent.budget import Budget
from agent.config import AgentConfig
from agent.conversation import Conversation
from agent.events import Event
from agent.loop.agent import Agent
from agent.messages import MAX_COUNT, Usage
from agent.model.answer import read_usage
from agent.model.model import LiteLLMModel
from agent.tools.router import ToolRouter
from support.agent.openai_server import Answer, serve

pytestmark = pytest.mark.anyio

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"prompt_tokens": 11, "completion_tokens": 7}, (11, 7, 0)),
        ({"prompt_tokens": 11.0, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}, (11, 7, 4)),
        ({"prompt_tokens": 11, "completion_tokens": -7, "prompt_tokens_details": {"cached_tokens": -4}}, (11, 0, 0)),
        ({"prompt_tokens": 11, "prompt_tokens_details": {"cached_tokens": 400}}, (11, 0, 11)),
        ({"prompt_tokens": MAX_COUNT + 1, "completion_tokens": 7}, (0, 7, 0)),
        ({"prompt_tokens": 10**400, "completion_tokens": INFINITY}, None),
        ({"prompt_tokens": NAN, "completion_tokens": "7", "prompt_tokens_details": []}, None),
        ({"prompt_tokens": True, "completion_tokens": None}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_reported_number_counts_only_if_it_can_be_one(reported: Any, expected: tuple[int, int, int] | None) -> None:
    used = read_usage(reported)
    assert (None if used is None else (used.input_tokens, used.output_tokens, used.cached_tokens)) == expected


def test_usage_stays_within_bounds_whatever_it_is_made_of() -> None:
    most = Usage(input_tokens=10**400, cost_usd=INFINITY)
    assert (most.input_tokens, most.cost_usd) == (MAX_COUNT, MAX_COUNT)
    assert most + most == most
    least = Usage(output_tokens=-1, cost_usd=-0.5, tool_cost_usd=NAN, llm_calls=-(10**400))
    assert least == Usage()
    stored = Conversation(usage=Usage(input_tokens=1234)).to_json().replace("1234", "-5")
    assert Conversation.from_json(stored).usage == Usage()


@pytest.mark.parametrize("tokens", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, -50, 2**53 + 1, 10**30])
async def test_a_budget_holds_whatever_the_server_reports(tokens: Any) -> None:
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens} if isinstance(tokens, int) else tokens
    events: list[Event] = []

    async def emit(event: Event) -> None:
        events.append(event)

    async with serve(*[Answer(({"content": "word " * 400},), usage=usage)] * 9) as server:
        config = AgentConfig("some-model", budget=Budget(tokens=1500))
        agent = Agent(config, LiteLLMModel("some-model", base_url=server.url), ToolRouter(), emit)
        outcomes = [(await agent.run_turn("write 400 words")).status for _ in range(4)]
    assert outcomes[0] == "complete"
    assert outcomes[-1] == "error"
    assert 1500 <= agent.usage.input_tokens + agent.usage.output_tokens < 10_000
    assert events[-1].data["kind"] == "budget"


async def test_interrupted_answers_are_paid_for() -> None:
    """What a provider has written is on its bill, though its count never comes."""

    async def emit(event: Event) -> None:
        if event.type == "assistant_chunk":
            agent.interrupt()

    async with serve(*[Answer(({"content": "word " * 500},), hangs=True)] * 3) as server:
        config = AgentConfig("some-model", budget=Budget(tokens=1000))
        agent = Agent(config, LiteLLMModel("some-model", base_url=server.url), ToolRouter(), emit)
        outcomes = [(await agent.run_turn("write")).status for _ in range(3)]
        assert len(server.requests) == 2
    assert outcomes == ["interrupted", "interrupted", "error"]
