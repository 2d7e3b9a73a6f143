"""Image files for tests, as bytes."""

from __future__ import annotations

import struct
import zlib

from agent.images import Image


def png(width: int = 2, height: int = 1, padding: int = 0) -> bytes:
    """A gray PNG file that can be shown, with a text chunk of `padding` bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x80" * width) * height)
    text = [chunk(b"tEXt", b"Comment\0" + b"x" * padding)] if padding else []
    parts = (chunk(b"IHDR", header), *text, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"".join((b"\x89PNG\r\n\x1a\n", *parts))


def jpeg(width: int, height: int, before: int = 16) -> bytes:
    """The beginning of a JPEG file, with so many bytes of other segments before its frame's header."""
    other = b""
    while before > 0:
        size = min(before, 65_000)
        other += b"\xff\xe1" + struct.pack(">H", size + 2) + bytes(size)
        before -= size
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)
    return b"\xff\xd8" + b"\xff\xff\x01" + other + b"\xff\xc4\x00\x03\x00" + frame + b"\xff\xd9"


def gif(width: int, height: int) -> bytes:
    """The beginning of a GIF file."""
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x00\x00\x00;"


def webp(width: int, height: int, kind: bytes = b"VP8X") -> bytes:
    """The beginning of a WebP file, of each of its three kinds."""
    if kind == b"VP8X":
        content = bytes(4) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    elif kind == b"VP8L":
        content = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)
    else:
        content = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    chunk = kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def image(width: int = 2, height: int = 1, padding: int = 0) -> Image:
    """An image as the agent has it."""
    return Image.of(png(width, height, padding))
