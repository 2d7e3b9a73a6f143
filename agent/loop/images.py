"""Which images stay in a conversation. Each request has all of them again, and providers bound requests. Decisions only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from agent.conversation import Conversation
from agent.images import Image
from agent.messages import Message

MAX_IMAGES = 10
"""Images in a conversation. Amazon Bedrock takes 20 in one request, and Anthropic's API smaller ones beyond that."""

MAX_BYTES = 10_000_000
"""Bytes of all of them. As base64 they are a third more, and Anthropic's API takes requests of 32 MB."""

NOT_TAKEN = "[not shown: this model takes no images]"

ONLY_FIRST = "[only the first {} of {} images are shown]"

MADE_ROOM = (
    f"[the image is no longer shown: the conversation has room for {MAX_IMAGES} images and {MAX_BYTES // 10**6} MB of them; "
    "read it again if you need it]"
)

REFUSED = "[the image is not shown: the model's server refused it]"

TOO_LONG = "[the image is no longer shown: the conversation was too long with it; read it again if you need it]"


def shown(output: str, images: Sequence[Image], takes_images: bool) -> tuple[str, tuple[Image, ...]]:
    """What of a result a model gets: the text, which says what is left out, and images."""
    if not images:
        return output, ()
    if not takes_images:
        return f"{output}\n{NOT_TAKEN}", ()
    kept = [image for at, image in enumerate(images) if _fit(images[: at + 1], MAX_IMAGES, MAX_BYTES)]
    note = f"\n{ONLY_FIRST.format(len(kept), len(images))}" if len(kept) < len(images) else ""
    return f"{output}{note}", tuple(kept)


def with_room(conversation: Conversation) -> Conversation:
    """With the latest images alone, when there are too many. Half of them go at once, because the provider's cache of the
    conversation ends where something changes."""
    messages = conversation.messages
    if _fit(images_of(messages), MAX_IMAGES, MAX_BYTES):
        return conversation
    latest, kept = max(_places(messages)), images_of(())
    dropped: set[int] = set()
    for at in reversed(_places(messages)):
        kept += messages[at].images
        if at != latest and not _fit(kept, MAX_IMAGES // 2, MAX_BYTES // 2):
            dropped.add(at)
    return _without(conversation, dropped, MADE_ROOM)


def with_fewer(conversation: Conversation, note: str, *, latest_first: bool) -> Conversation | None:
    """Without the images that the model has not answered yet, or without the others, or, where there are no such, without any;
    None when there are none."""
    places = _places(conversation.messages)
    answered = max((at for at, message in enumerate(conversation.messages) if message.role == "assistant"), default=-1)
    chosen = [at for at in places if (at > answered) == latest_first] or places
    return _without(conversation, chosen, note) if places else None


def may_be_images(parameter: str | None) -> bool:
    """Whether images may be why a request was refused, by the parameter that the server names, if it names one."""
    return parameter is None or parameter.startswith("messages") or "image" in parameter


def images_of(messages: Sequence[Message]) -> list[Image]:
    """All images in the messages."""
    return [image for message in messages for image in message.images]


def _places(messages: Sequence[Message]) -> list[int]:
    return [at for at, message in enumerate(messages) if message.images]


def _fit(images: Sequence[Image], most: int, most_bytes: int) -> bool:
    return len(images) <= most and sum(image.size for image in images) <= most_bytes


def _without(conversation: Conversation, places: Collection[int], note: str) -> Conversation:
    messages = tuple(
        message.without_images(note) if at in places else message for at, message in enumerate(conversation.messages)
    )
    # The provider's count was made with them.
    return replace(conversation, messages=messages, measured=None)
