"""An image in a tool's result, as a value."""

from __future__ import annotations

import hashlib
import json

import pytest

from agent.images import MAX_TOKENS, Image, ImageProblem
from agent.messages import Message, text_tokens
from agent.workspace.images import IMAGE_LIMIT
from support.agent.pictures import gif, image, png


def test_its_kind_is_that_of_its_bytes() -> None:
    content = gif(640, 480)
    found = Image.of(content)
    assert found.facts() == {
        "media_type": "image/gif",
        "width": 640,
        "height": 480,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert found.description == f"GIF image, 640 x 480 pixels, {len(content)} bytes"
    assert found.url == f"data:image/gif;base64,{found.data}"
    assert found.data not in repr(found)


@pytest.mark.parametrize("content", [b"", b"text", png()[:20], png(padding=IMAGE_LIMIT), gif(9000, 1)])
def test_what_providers_would_refuse_is_no_image(content: bytes) -> None:
    with pytest.raises(ImageProblem):
        Image.of(content)


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_its_size_is_that_of_its_bytes(padding: int) -> None:
    assert image(padding=padding).size == len(png(padding=padding))


@pytest.mark.parametrize(
    ("width", "height", "tokens"), [(1, 1, 1), (28, 28, 1), (29, 28, 2), (1092, 1092, 1521), (8000, 8000, 1600)]
)
def test_its_tokens_are_those_of_its_patches(width: int, height: int, tokens: int) -> None:
    assert Image("image/png", width, height, "").tokens == tokens + 4
    assert tokens <= MAX_TOKENS


def test_a_message_counts_stores_and_outlines_its_images() -> None:
    message = Message("tool", "a.png: an image", tool_call_id="one", images=(image(280, 280),))
    assert message.tokens == text_tokens(message.content) + 4 + 104
    assert Message.from_dict(json.loads(json.dumps(message.to_dict()))) == message
    assert message.outline() == {
        **Message("tool", "a.png: an image", tool_call_id="one").to_dict(),
        "images": [image(280, 280).facts()],
    }
    assert message.without_images("[gone]") == Message("tool", "a.png: an image\n[gone]", tool_call_id="one")
    plain = Message("user", "hello")
    assert plain.without_images("[gone]") is plain


def test_a_message_of_an_earlier_version_has_no_images() -> None:
    stored = {key: value for key, value in Message("user", "hello").to_dict().items() if key != "images"}
    assert Message.from_dict(stored) == Message("user", "hello")
