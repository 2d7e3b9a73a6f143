"""Image files: their kind, their dimensions, and what cannot be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.workspace import ImageFile, WorkspaceError
from agent.workspace.images import HEAD, IMAGE_LIMIT, SIDE_LIMIT, described, dimensions, media_type, problem
from agent.workspace.local import LocalWorkspace
from support.agent.pictures import gif, jpeg, png, webp

KINDS = [
    (png(640, 480), "image/png"),
    (jpeg(640, 480), "image/jpeg"),
    (jpeg(640, 480, before=300_000), "image/jpeg"),
    (gif(640, 480), "image/gif"),
    (webp(640, 480), "image/webp"),
    (webp(640, 480, b"VP8L"), "image/webp"),
    (webp(640, 480, b"VP8 "), "image/webp"),
]


@pytest.mark.parametrize(("content", "kind"), KINDS)
def test_an_image_is_known_by_its_bytes(content: bytes, kind: str) -> None:
    assert (media_type(content), dimensions(content)) == (kind, (640, 480))
    assert problem(content, len(content)) is None


@pytest.mark.parametrize("content", [b"", b"BM" + bytes(50), b"RIFF\0\0\0\0WAVE", b"<svg/>", b"\x89PNG"])
def test_what_is_no_image_is_none(content: bytes) -> None:
    assert (media_type(content), dimensions(content)) == (None, None)
    assert problem(content, len(content)) == "no PNG, JPEG, GIF, WebP image, by its first bytes"


@pytest.mark.parametrize(
    "content",
    [
        png(640, 480)[:12],
        png(640, 480)[:23],
        png(640, 480)[:12] + b"IDAT" + bytes(20),
        png(0, 480),
        jpeg(640, 480)[:20],
        b"\xff\xd8\xff\xd8\xff\xd8",
        b"\xff\xd8\xff\xe0\x00\x00" + bytes(20),
        gif(640, 0),
        gif(640, 480)[:9],
        webp(640, 480)[:16],
        webp(640, 480)[:29],
        webp(640, 480, b"VP8L")[:24],
        webp(640, 480, b"VP8L").replace(b"\x2f", b"\x2e"),
        webp(640, 480, b"VP8 ")[:29],
        webp(640, 480, b"VP8 ").replace(b"\x9d", b"\x9e"),
        webp(640, 480, b"EXIF"),
    ],
)
def test_a_damaged_image_is_said_to_be(content: bytes) -> None:
    assert (problem(content, len(content)) or "").startswith("damaged: it begins as a ")


@pytest.mark.parametrize(
    ("content", "size"), [(png(9, 9), IMAGE_LIMIT + 1), (gif(SIDE_LIMIT + 1, 1), 99), (jpeg(9, 9)[:9], 10**9)]
)
def test_an_image_that_is_too_large_comes_with_a_remedy(content: bytes, size: int) -> None:
    why = problem(content, size) or ""
    assert why.startswith(f"too large to be shown ({described(content, size)}); at most 3,750,000 bytes and 8,000 pixels")
    assert "magick" in why


def test_an_image_is_described_in_words() -> None:
    assert described(png(640, 480), 12_345) == "PNG image, 640 x 480 pixels, 12,345 bytes"
    assert described(b"", 3) == "unknown image, unknown dimensions, 3 bytes"


@pytest.mark.anyio
async def test_an_image_is_read_whole_and_not_as_text(workspace: LocalWorkspace, tmp_path: Path) -> None:
    content = png(640, 480)
    (tmp_path / "shot.txt").write_bytes(content)
    with pytest.raises(ImageFile, match=rf"^shot.txt is no text: PNG image, 640 x 480 pixels, {len(content):,} bytes$"):
        await workspace.read("shot.txt")
    assert await workspace.read_image("shot.txt") == content


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "^a is no PNG, JPEG, GIF, WebP image"),
        (jpeg(640, 480, before=HEAD + 10)[:HEAD], "^a is damaged: it begins as a JPEG image"),
        (png(640, 480, padding=IMAGE_LIMIT), r"^a is too large to be shown \(PNG image, 640 x 480 pixels, 3,75"),
        (png(640, 480, padding=3 * IMAGE_LIMIT), r"^a is too large to be shown \(PNG image, 640 x 480 pixels, 11,25"),
    ],
)
async def test_what_cannot_be_shown_says_why(workspace: LocalWorkspace, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(WorkspaceError, match=message):
        await workspace.read_image("a")


@pytest.mark.anyio
async def test_a_missing_image_is_said_in_words(workspace: LocalWorkspace) -> None:
    with pytest.raises(WorkspaceError, match=r"no such file: a\.png"):
        await workspace.read_image("a.png")
