"""A model's client works on another event loop than the agent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from agent.messages import Message
from agent.model.failure import ModelError
from agent.model.model import LiteLLMModel
from agent.model.off_loop import off_loop
from support.agent.openai_server import anthropic, serve

pytestmark = pytest.mark.anyio


async def numbers(end: BaseException | None = None) -> AsyncGenerator[int, None]:
    for number in range(3):
        yield number
    if end is not None:
        raise end


async def test_items_come_in_order_and_then_the_end() -> None:
    assert [number async for number in off_loop(numbers)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("end", "seen"), [(ModelError("no"), ModelError), (asyncio.CancelledError(), RuntimeError)], ids=["error", "cancelled"]
)
async def test_an_error_comes_behind_the_items(end: BaseException, seen: type[Exception]) -> None:
    items = off_loop(lambda: numbers(end))
    assert [await anext(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(seen):
        await anext(items)


async def test_closing_it_ends_the_work_behind_it() -> None:
    closed = threading.Event()

    async def endless() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.get_running_loop().create_future()
        finally:
            closed.set()

    async with aclosing(off_loop(endless)) as items:
        assert await anext(items) == 1
    assert await asyncio.to_thread(closed.wait, 30)


async def test_a_providers_client_does_not_stop_the_agents_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It works while the agent's loop turns: the client waits here until the loop has turned."""
    turned, waited = threading.Event(), []
    request = LiteLLMModel._request

    def waits(self: LiteLLMModel, *arguments: Any) -> dict[str, Any]:
        waited.append(turned.wait(30))
        return request(self, *arguments)

    monkeypatch.setattr(LiteLLMModel, "_request", waits)
    text = [{"type": "text", "text": ""}, {"type": "text_delta", "text": "Hello."}]
    async with serve(anthropic(text, stop="end_turn")) as server:
        model = LiteLLMModel("anthropic/claude-sonnet-4-5", base_url=server.url.removesuffix("/v1"), api_key="k")

        async def ask() -> str:
            return "".join([chunk.text async for chunk in model.stream((Message("user", "hi"),), [])])

        asked = asyncio.create_task(ask())
        await asyncio.sleep(0.01)
        turned.set()
        assert await asked == "Hello."
    assert waited == [True]


def test_a_message_is_made_ready_for_sending_once() -> None:
    message = Message("user", "hällo")
    assert message.wire_json == '{"role":"user","content":"hällo"}'
    assert message.wire_json is message.wire_json
    assert message.tokens == 6
    assert message == Message("user", "hällo")
