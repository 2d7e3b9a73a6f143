"""Where the images of tool results go in a request. Values in, values out.

OpenAI's chat API and most servers that are compatible with it take images in messages of a user only: there they follow the
results of the calls, with words that say where they come from. Claude takes them inside of results; litellm translates that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from agent.images import Image
from agent.messages import Message

Placement = Literal["nowhere", "inside", "behind"]

CLAUDES = frozenset({"anthropic", "bedrock", "vertex_ai"})
"""Those of litellm's providers that serve Claude with Anthropic's own message format."""

ORIGIN = "[From the result of the call {}, by the tool and not by a person:]"


def placement(routed_name: str, own_server: bool) -> Placement:
    """Where a model that takes images takes them. Other servers of Anthropic's API do not all take them inside of results."""
    provider, slash, _ = routed_name.partition("/")
    at_home = not own_server and (provider in CLAUDES or not slash)
    return "inside" if at_home and "claude" in routed_name.lower() else "behind"


def wire(messages: Sequence[Message], model: str | None, where: Placement) -> list[dict[str, Any]]:
    """The messages as the OpenAI chat API has them, with images."""
    return [_dict(each, model, where) for each in _with_images_behind(messages, where)]


def wire_json(messages: Sequence[Message], where: Placement) -> list[str]:
    """The same as JSON, without thoughts. Images are put together as text: they have megabytes, and nothing to be escaped."""
    return [
        each.wire_json
        if isinstance(each, Message)
        else f'{{"role":"user","content":[{",".join(part for message in each for part in _labeled_json(message))}]}}'
        for each in _with_images_behind(messages, where)
    ]


def _with_images_behind(messages: Sequence[Message], where: Placement) -> Iterator[Message | list[Message]]:
    """The messages, and behind each row of results those of them whose images follow."""
    waiting: list[Message] = []
    for message in messages:
        if waiting and message.role != "tool":
            yield waiting
            waiting = []
        yield message
        if where == "behind" and message.images:
            waiting.append(message)
    if waiting:
        yield waiting


def _dict(each: Message | list[Message], model: str | None, where: Placement) -> dict[str, Any]:
    if isinstance(each, list):
        parts = [part for message in each for part in (_text(_origin(message)), *map(_part, message.images))]
        return {"role": "user", "content": parts}
    content = each.to_wire(model)
    if where == "inside" and each.images:
        content["content"] = [_text(each.content), *map(_part, each.images)]
    return content


def _labeled_json(message: Message) -> Iterator[str]:
    yield json.dumps(_text(_origin(message)), ensure_ascii=False, separators=(",", ":"))
    for image in message.images:
        yield f'{{"type":"image_url","image_url":{{"url":"{image.url}"}}}}'


def _origin(message: Message) -> str:
    return ORIGIN.format(message.tool_call_id)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _part(image: Image) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image.url}}
