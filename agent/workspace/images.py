"""Images: which kind a file is by its bytes, and how large the picture is. Python 3.9, standard library only."""

from __future__ import annotations

IMAGE_LIMIT = 3_750_000
"""Bytes of an image: 5 MB as base64, the most that Anthropic's API and Amazon Bedrock take."""

SIDE_LIMIT = 8000
"""Pixels of a side, at most, for the same APIs."""

HEAD = 1024 * 1024
"""Bytes of a file in which its dimensions are looked for: a JPEG file can have a preview and a color profile before them."""

HEADERS = {"image/png": 24, "image/jpeg": 11, "image/gif": 10, "image/webp": 25}
"""Bytes that a file of the kind has, at least, to say its dimensions."""

KINDS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/gif": "GIF", "image/webp": "WebP"}
"""The media types that all providers take, with their names for people."""


def media_type(head: bytes) -> str | None:
    """The kind of image that begins like this; None when it is none of `KINDS`."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def dimensions(head: bytes) -> tuple[int, int] | None:
    """Width and height in pixels; None when it does not say them, because it is damaged or no image."""
    kind = media_type(head)
    found = None
    if kind is None or len(head) < HEADERS[kind]:
        return None
    if kind == "image/png":
        found = (_big(head, 16, 4), _big(head, 20, 4)) if head[12:16] == b"IHDR" else None
    elif kind == "image/jpeg":
        found = _of_jpeg(head)
    elif kind == "image/gif":
        found = (_little(head, 6, 2), _little(head, 8, 2))
    else:
        found = _of_webp(head)
    return found if found and all(found) else None


def described(head: bytes, size: int) -> str:
    """An image of so many bytes in words."""
    return in_words(media_type(head) or "", dimensions(head), size)


def in_words(kind: str, pixels: tuple[int, int] | None, size: int) -> str:
    """The media type, the dimensions and the bytes of an image, for people and models."""
    measure = f"{pixels[0]} x {pixels[1]} pixels" if pixels else "unknown dimensions"
    return f"{KINDS.get(kind, 'unknown')} image, {measure}, {size:,} bytes"


def problem(head: bytes, size: int) -> str | None:
    """Why an image of so many bytes cannot be shown to a model, and what to do; None when it can."""
    if media_type(head) is None:
        return f"no {', '.join(KINDS.values())} image, by its first bytes"
    pixels = dimensions(head)
    if size <= IMAGE_LIMIT and pixels is None:
        return f"damaged: it begins as a {KINDS[media_type(head) or '']} image, and does not say its dimensions"
    if size <= IMAGE_LIMIT and pixels is not None and max(pixels) <= SIDE_LIMIT:
        return None
    return (
        f"too large to be shown ({described(head, size)}); at most {IMAGE_LIMIT:,} bytes and {SIDE_LIMIT:,} pixels a side can "
        "be. Make a smaller copy and read that, for example with ImageMagick (`magick IN -resize 1568x1568 OUT.jpg`) or Pillow"
    )


def _of_jpeg(data: bytes) -> tuple[int, int] | None:
    """From the header of its frame (ITU-T T.81, B.2.2), which is behind other segments."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _big(data, at + 7, 2), _big(data, at + 5, 2)
        else:
            at += 2 + _big(data, at + 2, 2)
    return None


def _of_webp(data: bytes) -> tuple[int, int] | None:
    """From its first chunk (RFC 9649)."""
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    if chunk == b"VP8L" and data[20:21] == b"\x2f":
        bits = _little(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a" and len(data) >= 30:
        return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    return None


def _big(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
