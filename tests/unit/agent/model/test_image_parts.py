"""Where the images of tool results go in a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.messages import Message, ToolCall
from agent.model.image_parts import ORIGIN, Placement, placement, wire, wire_json
from agent.model.model import LiteLLMModel
from agent.model.prompt_cache import MARK, marked
from support.agent.openai_server import Answer, serve
from support.agent.pictures import image
from support.agent.validity import as_anthropic_gets_it, check_anthropic

SEEN = (
    Message("user", "look"),
    Message("assistant", "", (ToolCall("one", "read", "{}"), ToolCall("two", "read", "{}"), ToolCall("three", "read", "{}"))),
    Message("tool", "a.png: ä", tool_call_id="one", images=(image(),)),
    Message("tool", "text", tool_call_id="two"),
    Message("tool", "c.png", tool_call_id="three", images=(image(3), image(4))),
    Message("user", "and?", origin="note"),
    Message("assistant", "", (ToolCall("four", "read", "{}"),)),
    Message("tool", "d.png", tool_call_id="four", images=(image(5),)),
)


def part(width: int) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image(width).url}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    ("name", "own_server", "where"),
    [
        ("anthropic/claude-sonnet-4-5", False, "inside"),
        ("claude-sonnet-4-5", False, "inside"),
        ("bedrock/anthropic.claude-sonnet-4-5-v1:0", False, "inside"),
        ("vertex_ai/claude-sonnet-4-5", False, "inside"),
        ("anthropic/claude-sonnet-4-5", True, "behind"),
        ("openrouter/anthropic/claude-sonnet-4.5", False, "behind"),
        ("openai/gpt-5", False, "behind"),
        ("gpt-5", False, "behind"),
    ],
)
def test_claude_at_its_own_providers_takes_them_inside_of_results(name: str, own_server: bool, where: Placement) -> None:
    assert placement(name, own_server) == where


def test_behind_they_follow_all_results_of_their_step() -> None:
    plain = [message.to_wire() for message in SEEN]
    sent = wire(SEEN, None, "behind")
    first = [text(ORIGIN.format("one")), part(2), text(ORIGIN.format("three")), part(3), part(4)]
    last = [text(ORIGIN.format("four")), part(5)]
    assert sent == [*plain[:5], {"role": "user", "content": first}, *plain[5:], {"role": "user", "content": last}]
    assert [json.loads(message) for message in wire_json(SEEN, "behind")] == sent


def test_inside_they_follow_the_text_of_their_result() -> None:
    sent = wire(SEEN, None, "inside")
    assert [message["content"] for message in sent if message["role"] == "tool"] == [
        [text("a.png: ä"), part(2)],
        "text",
        [text("c.png"), part(3), part(4)],
        [text("d.png"), part(5)],
    ]
    assert len(sent) == len(SEEN)


def test_a_model_that_takes_none_gets_the_text() -> None:
    plain = [message.to_wire() for message in SEEN]
    assert wire(SEEN, None, "nowhere") == plain
    assert [json.loads(message) for message in wire_json(SEEN, "nowhere")] == plain


@pytest.mark.parametrize("where", ["inside", "behind"])
def test_anthropics_api_gets_valid_messages(where: Placement) -> None:
    sent = marked([{"role": "system", "content": "be brief"}, *wire(SEEN, None, where)], with_tools=True)
    body = as_anthropic_gets_it(sent)
    check_anthropic(body)
    last = body["messages"][-1]["content"]
    images = [block for block in (*last, *last[0]["content"]) if isinstance(block, dict) and block["type"] == "image"]
    assert [block["source"]["data"] for block in images] == [image(5).data]
    assert last[-1]["cache_control"] == MARK, "the prompt cache has the image, too"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "base_url", "said", "takes"),
    [
        ("anthropic/claude-sonnet-4-5", None, None, True),
        ("openai/gpt-4o", None, None, True),
        ("openai/gpt-3.5-turbo", None, None, False),
        ("qwen-at-home", "http://127.0.0.1:9/v1", None, False),
        ("qwen-at-home", "http://127.0.0.1:9/v1", True, True),
        ("openai/gpt-4o", None, False, False),
    ],
)
async def test_what_the_class_says_wins_over_the_table(name: str, base_url: str | None, said: bool | None, takes: bool) -> None:
    assert await LiteLLMModel(name, base_url=base_url, images=said).takes_images() is takes


@pytest.mark.anyio
async def test_a_compatible_server_gets_them_in_a_users_message() -> None:
    async with serve(Answer(({"content": "a cat"},))) as server:
        model = LiteLLMModel("local", base_url=server.url, images=True)
        async for _ in model.stream(SEEN, []):
            pass
    assert server.requests[0]["messages"] == wire(SEEN, None, "behind")
