"""Answers of real servers, as they are and as they should not be: each is read, or refused by the right name."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agent.messages import Message, ToolCall
from agent.model import answer as answers
from agent.model.failure import (
    MAX_WORDS,
    ContextOverflowError,
    CredentialsError,
    ModelError,
    ModelUnavailableError,
    NoAnswerError,
    QuotaError,
    RateLimitedError,
    RequestRefusedError,
    WithheldError,
)
from agent.model.model import LiteLLMModel
from support.agent.openai_server import Answer, serve

pytestmark = pytest.mark.anyio

HELLO = (Message("user", "hi"),)
HTML = "<!DOCTYPE html><html><head><title>Sign in</title><style>p {color: red}</style></head><body><p>Welcome</p></body></html>"


async def answer(script: Answer) -> answers.Answer:
    """What a model makes of it."""
    collected = answers.Answer()
    async with serve(script) as server:
        async for chunk in LiteLLMModel("some-model", base_url=server.url).stream(HELLO, []):
            collected.add(chunk)
    collected.check()
    return collected


def events(*pieces: dict[str, Any] | str) -> str:
    return "".join(f"data: {piece if isinstance(piece, str) else json.dumps(piece)}\n\n" for piece in pieces)


def delta(finish_reason: str | None = None, **said: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": said, "finish_reason": finish_reason}]}


def completion(message: dict[str, Any], finish_reason: str | None = "stop") -> str:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return json.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage})


CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}

READABLE = {
    "a whole completion in JSON": (Answer(raw=completion({"content": "Hello."}), content_type="application/json"), "Hello."),
    "a completion without finish reason": (Answer(raw=completion({"content": "Hello."}, None)), "Hello."),
    "JSON declared as text": (Answer(raw="\n " + completion({"content": "Hello."}), content_type="text/plain"), "Hello."),
    "a list of parts": (
        Answer(raw=events(delta(content=[{"type": "text", "text": "Hel"}, 1, "lo."]), delta("stop"))),
        "Hello.",
    ),
    "parts of thoughts and words": (
        Answer(raw=events(delta("stop", content=[{"type": "thinking", "thinking": [{"text": "hm"}]}, {"text": "Hello."}]))),
        "Hello.",
    ),
    "a refusal": (Answer(raw=events(delta(refusal="I will "), delta(refusal="not."), delta("stop"))), "I will not."),
    "a refusal in JSON": (Answer(raw=completion({"content": None, "refusal": "I will not."})), "I will not."),
    "events without a content type": (Answer(raw=events(delta("stop", content="Hello.")), content_type=""), "Hello."),
    "no empty lines between events": (
        Answer(raw=events(delta(content="Hel"), delta("stop", content="lo.")).replace("\n\n", "\n")),
        "Hello.",
    ),
    "an old text completion": (Answer(raw=events({"choices": [{"text": "Hello.", "finish_reason": "stop"}]})), "Hello."),
    "a byte-order mark and carriage returns": (
        Answer(raw=b"\xef\xbb\xbf" + events(delta("stop", content="Hello.")).replace("\n", "\r\n").encode()),
        "Hello.",
    ),
    "comments, pings and noise": (
        Answer(
            raw=': ping\n\nevent: ping\ndata: {"type": "ping"}\n\nid: 1\ndata: noise\n\ndata: [1]\n\n'
            + events(delta(content="Hello."), delta("eos"))
        ),
        "Hello.",
    ),
}


@pytest.mark.parametrize("name", READABLE)
async def test_what_can_be_read_is_read(name: str) -> None:
    script, expected = READABLE[name]
    assert (await answer(script)).text == expected


async def test_calls_are_read_from_a_whole_completion_and_from_the_old_field() -> None:
    read = await answer(Answer(raw=completion({"content": None, "tool_calls": [CALL, CALL | {"id": "b"}]}, "tool_calls")))
    assert read.tool_calls == (ToolCall("a", "look", '{"at": 1}'), ToolCall("b", "look", '{"at": 1}'))
    junk = {"content": "x", "tool_calls": [None, {"function": None}, CALL]}
    assert (await answer(Answer(raw=completion(junk)))).tool_calls == (ToolCall("a", "look", '{"at": 1}'),)
    old = delta("function_call", function_call={"name": "look", "arguments": {"at": 1}})
    assert (await answer(Answer(raw=events(old)))).tool_calls == (ToolCall("", "look", '{"at": 1}'),)


UNREADABLE: dict[str, tuple[Answer, type[ModelError], str]] = {
    "a web page": (Answer(raw=HTML, content_type="text/html"), NoAnswerError, "web page"),
    "a web page declared as a stream": (Answer(raw=HTML), NoAnswerError, "baseURL"),
    "plain text": (Answer(raw="It works!", content_type="text/plain"), NoAnswerError, "text/plain"),
    "other JSON": (Answer(raw='{"models": []}', content_type="application/json"), NoAnswerError, "no completion"),
    "a list": (Answer(raw="[]", content_type="application/json"), NoAnswerError, "no completion"),
    "JSON that breaks off": (Answer(raw='{"choices": [{"mess'), ModelUnavailableError, "breaks off"),
    "an empty body": (Answer(raw=" \n"), NoAnswerError, "empty"),
    "only [DONE]": (Answer(raw=events("[DONE]")), NoAnswerError, "without any content"),
    "an empty delta": (Answer(raw=events(delta("stop", content=""), "[DONE]")), NoAnswerError, "empty answer"),
    "only reasoning": (Answer(raw=events(delta(reasoning_content="hm"), delta("stop"))), NoAnswerError, "reasoning"),
    "reasoning up to the limit": (Answer(raw=events(delta(reasoning="hm"), delta("length"))), NoAnswerError, "limit"),
    "no finish reason": (Answer(raw=events(delta(content="Hel"))), ModelUnavailableError, "middle of the answer"),
    "no finish reason and an end": (Answer(raw=events(delta(content="Hel"), "[DONE]")), NoAnswerError, "finish reason"),
    "an error at its end": (Answer(raw=events(delta(content="Hel"), delta("error"))), ModelUnavailableError, "error"),
    "a content filter": (Answer(raw=events(delta(content="Hel"), delta("content_filter"))), WithheldError, "filter"),
    "a full window": (
        Answer(raw=events(delta(content="Hel"), delta("model_context_window_exceeded"))),
        ContextOverflowError,
        "context window",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_no_answer_and_half_an_answer_are_failures_that_name_the_cause(name: str) -> None:
    script, expected, words = UNREADABLE[name]
    with pytest.raises(ModelError) as caught:
        await answer(script)
    assert type(caught.value) is expected
    assert words in str(caught.value)


VLLM = {
    "object": "error",
    "message": "This model's maximum context length is 512 tokens.",
    "type": "BadRequestError",
    "code": 400,
}
OPENROUTER = {"error": {"code": 502, "message": "Provider disconnected"}, "choices": [{"delta": {}, "finish_reason": "error"}]}
REPORTED: list[tuple[dict[str, Any], type[ModelError]]] = [
    ({"error": {"message": "oops"}}, ModelUnavailableError),
    ({"error": "oops"}, ModelUnavailableError),
    ({"object": "error", "message": "oops", "code": 40303}, ModelUnavailableError),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, ModelUnavailableError),
    ({"detail": "oops"}, ModelUnavailableError),
    ({"error": {"message": "slow down", "code": "429"}}, RateLimitedError),
    ({"error": {"message": "You have no money", "code": "insufficient_quota"}}, QuotaError),
    ({"error": {"message": "bad tools", "code": 400}}, RequestRefusedError),
    (OPENROUTER, ModelUnavailableError),
    (VLLM, ContextOverflowError),
]


@pytest.mark.parametrize(("error", "expected"), REPORTED)
@pytest.mark.parametrize("place", ["alone", "in the stream"])
async def test_an_error_object_with_status_200_is_a_failure(error: Any, expected: type[ModelError], place: str) -> None:
    script = Answer(raw=json.dumps(error)) if place == "alone" else Answer(raw=events(delta(content="Hel"), error, "[DONE]"))
    with pytest.raises(ModelError) as caught:
        await answer(script)
    assert type(caught.value) is expected


QUOTA = "You exceeded your current quota, please check your plan and billing details."
TOO_LARGE = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 43214."
TPM = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 4000. Try again in 6s."
STATUSES: list[tuple[Answer, type[ModelError], str]] = [
    (Answer(status=401, error={"message": "bad key"}), CredentialsError, "Check the key"),
    (Answer(status=403, error={"message": "not yours"}), CredentialsError, "permissions"),
    (Answer(status=402, error={"message": "pay"}), QuotaError, "credit"),
    (Answer(status=429, error={"message": QUOTA, "code": "insufficient_quota"}), QuotaError, "quota"),
    (Answer(status=429, error={"message": QUOTA}), QuotaError, "quota"),
    (Answer(status=429, error={"message": TOO_LARGE, "code": "rate_limit_exceeded"}), ContextOverflowError, "per minute"),
    (Answer(status=429, error={"message": TPM, "code": "rate_limit_exceeded"}), RateLimitedError, "limits the rate"),
    (Answer(status=404, raw="404 page not found", content_type="text/plain"), ModelError, "baseURL"),
    (Answer(status=405, raw="no"), ModelError, "baseURL"),
    (Answer(status=408, raw="no"), ModelUnavailableError, "overloaded"),
    (Answer(status=529, error={"message": "Overloaded"}), ModelUnavailableError, "529"),
    (Answer(status=502, raw=HTML, content_type="text/html"), ModelUnavailableError, "Welcome"),
    (Answer(status=599, raw=" "), ModelUnavailableError, "HTTP 599"),
    (Answer(status=503, raw=" "), ModelUnavailableError, "Service Unavailable"),
    (Answer(status=500, raw='{"error":' * 9 + '"deep"' + "}" * 9), ModelUnavailableError, "overloaded"),
    (Answer(status=400, error={"message": "no", "code": "content_filter"}), WithheldError, "Rephrase"),
    (Answer(status=422, raw='{"detail": [{"loc": ["body"], "msg": "field required"}]}'), RequestRefusedError, "field required"),
]


@pytest.mark.parametrize(("script", "expected", "words"), STATUSES)
async def test_an_error_says_what_happened_what_to_do_and_the_servers_words(
    script: Answer, expected: type[ModelError], words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        await answer(script)
    assert type(caught.value) is expected
    assert words in str(caught.value)
    assert "litellm" not in str(caught.value)
    if script.error:
        assert str(caught.value).endswith(f"It said: {script.error['message']}")


async def test_an_error_page_of_megabytes_makes_a_short_message() -> None:
    for script in (Answer(status=500, raw="x" * 5_000_000), Answer(raw="x" * 5_000_000, content_type="text/plain")):
        with pytest.raises(ModelError) as caught:
            await answer(script)
        assert len(str(caught.value)) < MAX_WORDS + 400


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, "", 7.0),
        ({"retry-after-ms": "1500", "Retry-After": "7"}, "", 1.5),
        ({"retry-after-ms": "soon"}, "", None),
        ({}, '"details": [{"retryDelay": "34.5s"}]', 34.5),
        ({}, "", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_servers_wish_for_patience_is_read(status: int, headers: dict[str, str], body: str, seconds: float) -> None:
    with pytest.raises(ModelError) as caught:
        await answer(Answer(status=status, headers=headers, raw=f"busy {body}"))
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("end", [events("[DONE]"), ""])
async def test_a_whole_answer_on_a_connection_that_stays_open_is_one(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.model.openai_chat.LINGER", 0.2)
    async with asyncio.timeout(60):
        read = await answer(Answer(raw=events(delta(content="Hello."), delta("stop")) + end, stays_open=True))
    assert (read.text, read.finish_reason) == ("Hello.", "stop")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_does_not_carry_the_conversation_to_another_server(status: int) -> None:
    async with serve(Answer(({"content": "mine now"},))) as elsewhere:
        with pytest.raises(ModelError) as caught:
            await answer(Answer(status=status, raw=" ", headers={"Location": elsewhere.url}))
        assert elsewhere.requests == []
        assert "Set baseURL to its present address" in str(caught.value)
        assert elsewhere.url in str(caught.value)


async def test_a_redirect_within_the_server_is_followed_a_few_times() -> None:
    redirect = Answer(status=307, raw=" ", headers={"Location": "/v1/chat/completions/"})
    async with serve(redirect, redirect, Answer(({"content": "hi"},))) as server:
        model = LiteLLMModel("some-model", base_url=server.url)
        assert "".join([chunk.text async for chunk in model.stream(HELLO, [])]) == "hi"
        assert [request["messages"] for request in server.requests] == [server.requests[0]["messages"]] * 3
    async with serve(*[redirect] * 9) as server:
        with pytest.raises(ModelError):
            [chunk async for chunk in LiteLLMModel("some-model", base_url=server.url).stream(HELLO, [])]
        assert len(server.requests) == 3


@pytest.mark.parametrize("body", [b"data: " + b"x" * 2_000_000, b"{" + b" " * 2_000_000])
async def test_an_endless_answer_is_cut_off(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.model.openai_chat.MAX_BODY", 1024**2)
    with pytest.raises(NoAnswerError) as caught:
        await answer(Answer(raw=body))
    assert "more than 1 MiB" in str(caught.value)


async def test_an_event_of_megabytes_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.model.sse.MAX_EVENT", 1000)
    with pytest.raises(NoAnswerError):
        await answer(Answer(raw="data: " + "x" * 2000))
