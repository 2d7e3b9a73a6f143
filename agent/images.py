"""An image in a tool's result, as a value."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from agent.workspace.images import HEAD, dimensions, in_words, media_type, problem

PATCH = 28
"""Pixels of a side of what costs Claude one token."""

MAX_TOKENS = 1_600
"""Tokens of one image, about; providers make larger ones smaller."""


class ImageProblem(ValueError):
    """Bytes that cannot be shown to a model as an image; the message says why, as in `the file is …`."""


@dataclass(frozen=True)
class Image:
    """One image that models take. `of` makes it from bytes."""

    media_type: str
    width: int
    height: int
    data: str = field(repr=False)
    """Base64, as every request has it."""

    @classmethod
    def of(cls, content: bytes) -> Image:
        """The image that these bytes are, regardless of what names and headers say. Raises ImageProblem."""
        head = content[:HEAD]
        kind, pixels, why = media_type(head), dimensions(head), problem(head, len(content))
        if kind is None or pixels is None or why is not None:
            raise ImageProblem(why)
        return cls(kind, *pixels, base64.b64encode(content).decode())

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data) * 3 // 4 - self.data[-2:].count("=")

    @property
    def description(self) -> str:
        """In words."""
        return in_words(self.media_type, (self.width, self.height), self.size)

    @property
    def tokens(self) -> int:
        """An estimate."""
        return min(MAX_TOKENS, -(-self.width // PATCH) * -(-self.height // PATCH)) + 4

    @property
    def url(self) -> str:
        """As a data URL (RFC 2397)."""
        return f"data:{self.media_type};base64,{self.data}"

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of its bytes."""
        return hashlib.sha256(base64.b64decode(self.data)).hexdigest()

    def facts(self) -> dict[str, Any]:
        """Everything but its data."""
        return {
            "media_type": self.media_type,
            "width": self.width,
            "height": self.height,
            "bytes": self.size,
            "sha256": self.digest,
        }
