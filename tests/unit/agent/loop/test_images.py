"""Images of tool results in a conversation: which are kept, what the model is told of the others, and what a refusal costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent.config import AgentConfig, Patience
from agent.conversation import Conversation
from agent.events import Event
from agent.images import Image
from agent.loop.agent import Agent
from agent.loop.images import (
    MADE_ROOM,
    MAX_BYTES,
    MAX_IMAGES,
    NOT_TAKEN,
    REFUSED,
    TOO_LONG,
    images_of,
    may_be_images,
    shown,
    with_fewer,
    with_room,
)
from agent.messages import Message, ToolCall
from agent.model.failure import ContextOverflowError, ImagesRefusedError, ModelError, RequestRefusedError
from agent.testing import Reply, ScriptedModel, calls, fails, says
from agent.tools.research import research_tool
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, ToolResult, parameters
from support.agent.pictures import image

pytestmark = pytest.mark.anyio

LARGE = replace(image(), data="A" * 4_000_000)
"""3 MB."""


def talk(*results: Sequence[Image]) -> Conversation:
    """A conversation with one call for each of these results."""
    conversation = Conversation().with_said("look")
    for number, images in enumerate(results):
        conversation = conversation.with_message(Message("assistant", "", (ToolCall(f"c{number}", "look", "{}"),)))
        conversation = conversation.with_result(f"c{number}", "seen", images)
    return conversation


def counts(conversation: Conversation) -> list[int]:
    return [len(message.images) for message in conversation.messages if message.role == "tool"]


def test_a_model_gets_the_images_that_fit() -> None:
    assert shown("text", (), True) == ("text", ())
    assert shown("text", [image()], True) == ("text", (image(),))
    assert shown("text", [image()], False) == (f"text\n{NOT_TAKEN}", ())
    output, images = shown("text", [image()] * (MAX_IMAGES + 2), True)
    assert (output, len(images)) == ("text\n[only the first 10 of 12 images are shown]", MAX_IMAGES)
    assert len(shown("text", [LARGE] * 4, True)[1]) == MAX_BYTES // LARGE.size == 3


def test_older_images_make_room_and_half_of_the_room_stays_free() -> None:
    full = replace(talk(*[[image()]] * MAX_IMAGES), measured=(3, 9))
    assert with_room(full) is full
    more = talk(*[[image()]] * (MAX_IMAGES + 1))
    kept = with_room(replace(more, measured=(3, 9)))
    assert counts(kept) == [0] * 6 + [1] * 5
    assert kept.messages[2].content == f"seen\n{MADE_ROOM}"
    assert kept.measured is None
    assert counts(with_room(talk([image()], [LARGE], [image()], [LARGE], [LARGE, LARGE]))) == [0, 0, 0, 0, 2]
    assert counts(with_room(talk([LARGE], [LARGE], [LARGE], [LARGE]))) == [0, 0, 0, 1]


def test_images_are_left_out_in_two_steps() -> None:
    conversation = talk([image()], [], [image(), image()])
    latest = with_fewer(conversation, REFUSED, latest_first=True)
    assert latest is not None
    assert counts(latest) == [1, 0, 0]
    assert latest.messages[-1].content == f"seen\n{REFUSED}"
    older = with_fewer(conversation, TOO_LONG, latest_first=False)
    assert older is not None
    assert counts(older) == [0, 0, 2]
    for fewer in (latest, older):
        for latest_first in (True, False):
            none = with_fewer(fewer, REFUSED, latest_first=latest_first)
            assert none is not None
            assert counts(none) == [0, 0, 0]
            assert with_fewer(none, REFUSED, latest_first=latest_first) is None


@pytest.mark.parametrize(
    ("parameter", "may_be"), [(None, True), ("messages[3].content", True), ("image_url", True), ("temperature", False)]
)
def test_a_refusal_may_be_about_images(parameter: str | None, may_be: bool) -> None:
    assert may_be_images(parameter) is may_be


class Talk:
    """An agent with a tool that answers with images."""

    def __init__(self, *replies: Reply, images: Sequence[Image] = (image(),), takes_images: bool = True) -> None:
        async def look(arguments: dict[str, Any]) -> ToolResult:
            return ToolResult("a.png: an image with secret-1234 in it", images=tuple(images))

        self.model = ScriptedModel(*replies, images=takes_images, context_window=100_000)
        self.events: list[Event] = []
        tool = Tool("look", "Look.", parameters(), look, read_only=True)
        config = AgentConfig("m", patience=Patience(first_wait=0), secrets=("secret-1234", image().data[:20]))
        self.agent = Agent(config, self.model, ToolRouter((tool, research_tool())), self.emit)

    async def emit(self, event: Event) -> None:
        self.events.append(event)

    def sent(self, request: int) -> list[int]:
        return [len(message.images) for message in self.model.requests[request] if message.role == "tool"]


async def test_the_model_sees_the_image_and_events_its_description() -> None:
    talk = Talk(calls(("look", {})), says("a cat"))
    assert (await talk.agent.run_turn("what is it?")).status == "complete"
    assert images_of(talk.model.requests[1]) == [image()], "secrets are masked in text alone"
    [output] = [event.data for event in talk.events if event.type == "tool_output"]
    assert output["output"] == "a.png: an image with [REDACTED] in it"
    assert image().data not in str(talk.events)


async def test_a_model_without_images_is_told_so() -> None:
    talk = Talk(calls(("look", {})), says("I cannot see"), takes_images=False)
    await talk.agent.run_turn("what is it?")
    assert talk.model.requests[1][-1].content == f"a.png: an image with [REDACTED] in it\n{NOT_TAKEN}"
    assert images_of(talk.model.requests[1]) == []


async def test_the_room_for_images_is_bounded() -> None:
    rounds = 3 * MAX_IMAGES
    talk = Talk(*[calls(("look", {}))] * rounds, says("seen all"), images=[image()] * 2)
    await talk.agent.run_turn("look")
    assert all(0 < sum(talk.sent(number)) <= MAX_IMAGES for number in range(1, rounds + 1))


async def test_a_refused_image_is_left_out_and_the_turn_goes_through() -> None:
    talk = Talk(
        calls(("look", {})),
        calls(("look", {})),
        fails(RequestRefusedError("Could not process image")),
        calls(("look", {})),
        says("x"),
    )
    assert (await talk.agent.run_turn("look")).status == "complete"
    assert [talk.sent(number) for number in (2, 3, 4)] == [[1, 1], [1, 0], [1, 0, 1]]
    assert talk.model.requests[4][5].content.endswith(REFUSED)


async def test_images_that_were_not_the_reason_stay() -> None:
    talk = Talk(calls(("look", {})), *[fails(RequestRefusedError("no"))] * 2)
    assert (await talk.agent.run_turn("look")).status == "error"
    assert [talk.sent(number) for number in (1, 2)] == [[1], [0]]
    assert counts(talk.agent.conversation) == [1]


async def test_a_server_that_takes_no_images_is_believed() -> None:
    talk = Talk(calls(("look", {})), fails(ImagesRefusedError("image input is not supported")), calls(("look", {})), says("x"))
    assert (await talk.agent.run_turn("look")).status == "complete"
    assert [message.content.splitlines()[-1] for message in talk.agent.conversation.messages if message.role == "tool"] == [
        REFUSED,
        NOT_TAKEN,
    ]


@pytest.mark.parametrize("error", [ContextOverflowError("too large"), ContextOverflowError("too many tokens", 5000)])
async def test_a_request_that_is_too_long_loses_older_images_first(error: ModelError) -> None:
    talk = Talk(calls(("look", {})), calls(("look", {})), fails(error), fails(error), says("x"))
    assert (await talk.agent.run_turn("look")).status == "complete"
    assert [talk.sent(number) for number in (2, 3, 4)] == [[1, 1], [0, 1], [0, 0]]
    assert talk.agent.conversation.window is None, "nothing is known of the window"
    assert not [event for event in talk.events if event.type == "compacted"]


async def test_a_compaction_leaves_descriptions_of_images() -> None:
    talk = Talk(*[calls(("look", {}), text="I look. " * 400)] * 3, says("done"), says("A cat was seen."), says("again"))
    await talk.agent.run_turn("look at it")
    before = images_of(talk.agent.conversation.messages)
    await talk.agent.compact()
    after = images_of(talk.agent.conversation.messages)
    assert len(after) < len(before) == 3
    [compacted] = [event.data for event in talk.events if event.type == "compacted"]
    assert compacted["tokens_after"] == sum(message.tokens for message in talk.agent.conversation.messages)


async def test_a_sub_agents_images_stay_with_it() -> None:
    talk = Talk(calls(("research", {"task": "look"})), calls(("look", {})), says("a cat"), says("It is a cat."))
    await talk.agent.run_turn("what is it?")
    assert images_of(talk.model.requests[2]) == [image()]
    assert images_of(talk.agent.conversation.messages) == []


async def test_undo_takes_the_images_back() -> None:
    talk = Talk(calls(("look", {})), says("a cat"))
    await talk.agent.run_turn("what is it?")
    await talk.agent.undo()
    assert talk.agent.conversation.messages == ()
