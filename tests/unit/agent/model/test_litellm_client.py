"""Providers that litellm speaks to, here Anthropic: what it hides of an answer, and whose words its errors are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.messages import Message
from agent.model import answer as answers
from agent.model.failure import (
    ContextOverflowError,
    CredentialsError,
    ModelError,
    ModelUnavailableError,
    RateLimitedError,
    WithheldError,
)
from agent.model.model import LiteLLMModel
from support.agent.openai_server import Answer, anthropic, serve

pytestmark = pytest.mark.anyio

TEXT: list[dict[str, Any]] = [{"type": "text", "text": ""}, {"type": "text_delta", "text": "It is 42."}]


async def answer(script: Answer) -> answers.Answer:
    collected = answers.Answer()
    async with serve(script) as server:
        model = LiteLLMModel("anthropic/claude-sonnet-4-5", base_url=server.url.removesuffix("/v1"), api_key="k")
        async for chunk in model.stream((Message("user", "hi"),), []):
            collected.add(chunk)
    return collected


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("pause_turn", "pause_turn"),
        ("refusal", "content_filter"),
        ("model_context_window_exceeded", "window_full"),
    ],
)
async def test_the_reason_for_the_end_is_the_providers(stop: str, expected: str) -> None:
    read = await answer(anthropic(TEXT, stop=stop))
    assert (read.text, read.finish_reason) == ("It is 42.", expected)


async def test_a_stream_that_ends_early_is_no_answer() -> None:
    whole = anthropic(TEXT, stop="end_turn").raw
    assert isinstance(whole, str)
    with pytest.raises(ModelUnavailableError):
        await answer(Answer(raw=whole[: whole.index("event: message_delta")]))


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (401, "authentication_error", CredentialsError),
        (429, "rate_limit_error", RateLimitedError),
        (529, "overloaded_error", ModelUnavailableError),
        (500, "api_error", ModelUnavailableError),
        (413, "request_too_large", ContextOverflowError),
    ],
)
async def test_an_error_is_told_in_the_providers_words(status: int, kind: str, expected: type[ModelError]) -> None:
    with pytest.raises(ModelError) as caught:
        await answer(Answer(status=status, error={"type": kind, "message": "as we say"}, headers={"retry-after": "7"}))
    assert type(caught.value) is expected
    assert "litellm" not in str(caught.value)
    assert "Exception" not in str(caught.value)
    assert str(caught.value).endswith("It said: as we say")
    if expected in (RateLimitedError, ModelUnavailableError):
        assert caught.value.retry_after == 7


async def test_too_long_a_prompt_is_an_overflow() -> None:
    message = "prompt is too long: 210000 tokens > 200000 maximum"
    with pytest.raises(ContextOverflowError):
        await answer(Answer(status=400, error={"type": "invalid_request_error", "message": message}))


async def test_a_repeated_piece_is_no_loop() -> None:
    ruler = [{"type": "text", "text": ""}, *[{"type": "text_delta", "text": "----"}] * 300]
    assert (await answer(anthropic(ruler, stop="end_turn"))).text == "----" * 300


async def test_a_withheld_answer_is_told_as_such() -> None:
    with pytest.raises(WithheldError):
        (await answer(anthropic(TEXT, stop="refusal"))).check()


async def test_a_whole_answer_on_a_connection_that_stays_open_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.model.model.LINGER", 0.2)
    whole = anthropic(TEXT, stop="end_turn").raw
    async with asyncio.timeout(60):
        read = await answer(Answer(raw=whole, stays_open=True))
    assert (read.text, read.finish_reason) == ("It is 42.", "stop")


async def test_a_redirect_does_not_carry_the_conversation_to_another_server() -> None:
    async with serve(anthropic(TEXT, stop="end_turn")) as elsewhere:
        redirect = Answer(status=307, raw=" ", headers={"Location": f"{elsewhere.url}/messages"})
        with pytest.raises(ModelError) as caught:
            await answer(redirect)
        assert elsewhere.requests == []
    assert "redirects" in str(caught.value)
