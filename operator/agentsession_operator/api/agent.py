"""What a session and its class say of the agent, in the same words."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agentsession_operator.api.meta import Schema

ToolGlob = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_./*?!\[\]-]+$")]
ToolGlobs = Annotated[list[ToolGlob], Field(max_length=128)]


class ToolSelection(Schema):
    """Which tools the model may call, by glob over the tools' names (bash, read, write, edit, plan, web_fetch)."""

    allow: ToolGlobs | None = None
    """Tools that may be called; unset allows all that the class allows, an empty list allows none."""
    deny: ToolGlobs | None = None
    """Tools that may not be called, even where `allow` names them."""


class AgentSpec(Schema):
    """The agent: its model and what it may do."""

    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Model name as litellm writes it, for example anthropic/claude-sonnet-4-5; unset means the class's default."""
    instructions: Annotated[str, Field(max_length=32_768)] | None = None
    """System message for this session; unset means the class's."""
    max_iterations: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Model calls in one turn before the agent gives up; unset means the class's, or 300."""
    tools: ToolSelection | None = None
    """Narrows the tools that the class offers."""
