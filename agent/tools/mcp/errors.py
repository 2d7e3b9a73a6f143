"""What goes wrong with MCP servers, in words."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Final

from agent.tools.mcp import wire
from agent.tools.tool import cut_output

ERROR_LIMIT: Final = 1_000
"""Characters of an error's text."""


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Raises a TimeoutError that says so when the time is up."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def first(error: BaseException) -> BaseException:
    """The first real error in what may be a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def is_lost_session(error: BaseException) -> bool:
    """Whether the server has forgotten the session."""
    return getattr(first(error), "data", None) == wire.SESSION_LOST


def describe(error: BaseException) -> str:
    """What went wrong, for a person and the model."""
    from mcp import MCPError  # late: it imports slowly, and most sessions have no MCP server

    error = first(error)
    if isinstance(error, TimeoutError):
        return str(error) or "no answer in time"
    if not isinstance(error, MCPError):
        return cut_output(f"{type(error).__name__}: {error}", ERROR_LIMIT)
    said, data = error.message, error.data
    if data is not None and data not in (wire.SESSION_LOST, wire.NOT_SENT):
        details = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        said = said if details in said else f"{said} ({details})"
    return cut_output(said, ERROR_LIMIT)
