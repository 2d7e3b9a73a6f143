"""What the providers demand of a list of messages, as checks of our own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.messages import Message
from agent.model.litellm_client import load_litellm

OPENAI_NAME = r"[a-zA-Z0-9_-]{1,64}"
ANTHROPIC_ID = r"[a-zA-Z0-9_-]+"


def check_request(messages: Sequence[Message]) -> None:
    """Fails when OpenAI's or Anthropic's API would refuse these messages, or when ours are not as they ought to be."""
    assert messages[-1].role != "assistant", "the model is asked for nothing"
    check_order(messages[1:])
    wire = [message.to_wire() for message in messages]
    check_openai(wire)
    check_anthropic(as_anthropic_gets_it(wire))


def check_order(messages: Sequence[Message]) -> None:
    """The rules that hold for a conversation at rest, too; stricter than the providers': results keep the calls' order."""
    seen: set[str] = set()
    expected: list[str] = []
    for message in messages:
        if message.role == "tool":
            assert expected, "a result without a call"
            assert message.tool_call_id == expected.pop(0), "results are not in the order of the calls"
            continue
        assert not expected, f"{expected} have no result before the next message"
        assert message.role != "system"
        assert message.content.strip() or message.tool_calls, "an empty message"
        for call in message.tool_calls:
            assert message.role == "assistant"
            assert call.id not in seen, "an id is used twice"
            seen.add(call.id)
            expected.append(call.id)
    assert not expected, f"{expected} have no result"


def check_openai(messages: Sequence[Mapping[str, Any]]) -> None:
    """The rules of OpenAI's chat API.

    A message has text; only an assistant's with tool calls may have none. Behind an assistant's message with tool calls
    comes one tool message for each of them before anything else, and a tool message comes nowhere else.
    """
    unanswered: set[str] = set()
    for message in messages:
        role, content, calls = message["role"], message["content"], message.get("tool_calls")
        assert role in ("system", "user", "assistant", "tool")
        assert isinstance(content, str) or (role == "assistant" and calls and content is None)
        if role == "tool":
            assert message["tool_call_id"] in unanswered, "a result without a call, or a second one"
            unanswered.remove(message["tool_call_id"])
            continue
        assert not unanswered, f"{unanswered} have no result before the next message"
        if calls is not None:
            assert role == "assistant"
            assert calls, "a list of calls must not be empty"
            unanswered = {check_openai_call(call) for call in calls}
            assert len(unanswered) == len(calls), "an id is used twice"
    assert not unanswered, f"{unanswered} have no result"


def check_openai_call(call: Mapping[str, Any]) -> str:
    """The rules for one call; returns its id."""
    assert call["type"] == "function"
    assert 0 < len(call["id"]) <= 40
    assert re.fullmatch(OPENAI_NAME, call["function"]["name"])
    assert isinstance(call["function"]["arguments"], str)
    assert isinstance(json.loads(call["function"]["arguments"]), dict), "some servers parse the arguments again"
    return str(call["id"])


def as_anthropic_gets_it(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of the request that litellm makes of these messages."""
    body: dict[str, Any] = (
        load_litellm()
        .AnthropicConfig()
        .transform_request(
            model="claude-sonnet-4-5",
            messages=[dict(message) for message in messages],
            optional_params={"max_tokens": 100, "tools": []},
            litellm_params={},
            headers={},
        )
    )
    return body


def check_anthropic(body: Mapping[str, Any]) -> None:
    """The rules of Anthropic's messages API.

    Roles alternate, from the user to the user. No text is blank. The results of an assistant's calls are the first
    things in the next message, one for each call; they are nowhere else. Ids match a pattern and are unique.
    """
    assert all(block["text"].strip() for block in body["system"])
    messages = body["messages"]
    roles = [message["role"] for message in messages]
    assert roles == ["user" if at % 2 == 0 else "assistant" for at in range(len(messages))]
    assert roles[-1] == "user"
    ids: list[str] = []
    wanted: list[str] = []
    for message in messages:
        blocks = message["content"]
        assert blocks, "an empty message"
        assert all(block["text"].strip() for block in blocks if block["type"] == "text"), "blank text"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        assert sorted(results) == sorted(wanted), "not one result for each call"
        assert all(block["type"] == "tool_result" for block in blocks[: len(results)]), "results come first"
        calls = [block for block in blocks if block["type"] == "tool_use"]
        assert not calls or message["role"] == "assistant"
        assert all(isinstance(call["input"], dict) and re.fullmatch(OPENAI_NAME, call["name"]) for call in calls)
        wanted = [call["id"] for call in calls]
        ids += wanted
    assert len(set(ids)) == len(ids), "an id is used twice"
    assert all(re.fullmatch(ANTHROPIC_ID, call_id) for call_id in ids)
