"""How the Hub's answers are written for a model: short lines, and a note on how to get more."""

from __future__ import annotations

from datetime import datetime

from agent.tools.tool import ToolError

TEXT_LIMIT = 20_000
"""Characters (bytes, of a file) that one call returns: less than the loop cuts at, so that nothing is lost unseen."""


def facts(*values: object) -> str:
    """What is known, in one line."""
    return " · ".join(str(value) for value in values if value not in (None, "", False, []))


def shorten(text: str, limit: int) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}… (+{len(line) - limit} characters)"


def window(text: str, offset: int) -> str:
    """As much of a long text as one call returns, from a character on."""
    piece = text[offset : offset + TEXT_LIMIT]
    end = offset + len(piece)
    if not piece and text:
        raise ToolError(f"There are only {len(text)} characters.")
    return piece if end >= len(text) else f"{piece}\n[read on with offset {end}; {len(text)} characters in all]"


def size(count: float | None) -> str | None:
    """Bytes for people."""
    if count is None:
        return None
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def number(count: int | None, what: str) -> str | None:
    """`12,345 downloads`, None when it is not known."""
    return None if count is None else f"{count:,} {what}"


def day(time: datetime | None) -> str | None:
    return None if time is None else f"{time:%Y-%m-%d}"


def minute(time: datetime | None) -> str | None:
    return None if time is None else f"{time:%Y-%m-%d %H:%M} UTC"


def inside(what: str, value: str) -> str:
    """A name or path that becomes a part of an address, unless its dots would lead elsewhere on the Hub."""
    if any(part in (".", "..") for part in value.split("/")):
        raise ToolError(f"{value!r} is no {what}")
    return value
