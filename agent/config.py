"""Everything that shapes an agent, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AgentConfig:
    """Settings of one agent; they do not change while it lives."""

    model: str
    """The model's name as litellm knows it (`anthropic/claude-…`), or any name when `base_url` is set."""
    base_url: str | None = None
    """Address of an OpenAI-compatible server; None means the provider's own."""
    api_key: str | None = field(default=None, repr=False)
    """None leaves it to litellm, which reads the provider's usual environment variable."""
    instructions: str | None = None
    """Added to the system message."""
    max_iterations: int = 300
    """Model calls in one turn, at most."""
    tools_allow: tuple[str, ...] = ("*",)
    """Globs over tool names: a tool is offered when `tools_allow` matches it and `tools_deny` does not."""
    tools_deny: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that must appear in no event, no message and no log."""
