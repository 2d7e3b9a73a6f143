"""What the providers demand of a list of messages, as checks of our own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from agent.messages import Message


def check_request(messages: Sequence[Message]) -> None:
    """Fails when OpenAI's or Anthropic's API would refuse these messages.

    OpenAI: an assistant message with tool calls is followed by one tool message for each of them, and by nothing else
    before; names match a pattern; arguments are text. Anthropic (as litellm translates it): the first message is the
    user's, no text is empty, arguments are a JSON object, ids are unique, the last message is not the assistant's.
    """
    assert messages[0].role == "system"
    assert messages[1].role == "user"
    assert messages[-1].role != "assistant"
    check_order(messages[1:])


def check_order(messages: Sequence[Message]) -> None:
    """The rules that hold for a conversation at rest, too."""
    seen: set[str] = set()
    expected: list[str] = []
    for message in messages:
        if message.role == "tool":
            assert expected, "a result without a call"
            assert message.tool_call_id == expected.pop(0), "results are not in the order of the calls"
            continue
        assert not expected, f"{expected} have no result before the next message"
        assert message.content or message.tool_calls, "an empty message"
        for call in message.tool_calls:
            assert message.role == "assistant"
            assert call.id not in seen, "an id is used twice"
            assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call.name)
            assert isinstance(json.loads(call.arguments), dict)
            seen.add(call.id)
            expected.append(call.id)
    assert not expected, f"{expected} have no result"
