"""What a turn uses is counted, also where an answer broke off, and a budget that cannot bind says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from agent.budget import Budget
from agent.messages import Message, Usage
from agent.model.answer import ModelChunk
from agent.model.failure import ModelUnavailableError
from agent.testing import ScriptedModel, fails, says
from support.agent.stage import stage

pytestmark = pytest.mark.anyio


async def test_tokens_of_an_answer_that_broke_off_count() -> None:
    broken = fails(ModelUnavailableError("gone"), text="word " * 700)
    s = stage(broken, says("The end."))
    s.model.price = 0.001
    assert (await s.agent.run_turn("go")).status == "complete"
    used = s.agent.usage
    assert used.llm_calls == 2
    assert 1000 < used.output_tokens - 5 < 1100
    assert used.input_tokens > 10
    assert used.cost_usd == pytest.approx(0.001 * (used.input_tokens - 10 + used.output_tokens - 5) + 0.001)


async def test_a_count_on_the_way_is_no_less_than_what_was_written() -> None:
    class Counts(ScriptedModel):
        """Counts the request and the first token at once, as Anthropic does."""

        async def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
            yield ModelChunk(usage=Usage(input_tokens=100, output_tokens=1))
            async for chunk in super().stream(messages, tools):
                yield chunk

    s = stage()
    s.agent.model = Counts(fails(ModelUnavailableError("gone"), text="word " * 700), says("The end."))
    await s.agent.run_turn("go")
    assert s.agent.usage.input_tokens == 110
    assert s.agent.usage.output_tokens > 1000


async def test_a_cost_budget_on_a_model_without_a_price_says_so_once() -> None:
    s = stage(says("a"), says("b"), budget=Budget(cost_usd=2.5))
    await s.agent.run_turn("go")
    await s.agent.run_turn("go")
    (notice,) = [data for data in s.data("processing") if data["status"] == "notice"]
    assert "scripted has no known price" in notice["reason"]
    assert "$2.50" in notice["reason"]
    for budget, price in ((Budget(cost_usd=2.5), 0.001), (Budget(10**9, 2.5), 0.0), (Budget(), 0.0)):
        s = stage(says("a"), budget=budget)
        s.model.price = price
        await s.agent.run_turn("go")
        assert [data["status"] for data in s.data("processing")] == ["started"]
