"""The settings of one MCP server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.tools.tool import DEFAULT_TIMEOUT


@dataclass(frozen=True)
class McpServer:
    """One server: either a `url` (streamable HTTP) or a `command` (stdio)."""

    name: str
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to this server alone: the client follows no redirect to another host, port or scheme."""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to the few variables that the client passes on (PATH, HOME, …); nothing else is inherited."""
    allow: tuple[str, ...] = ("*",)
    """Globs over the server's own tool names: a tool is offered when `allow` matches it and `deny` does not."""
    deny: tuple[str, ...] = ()
    timeout: float = DEFAULT_TIMEOUT
    """Seconds that one call may take."""
    start_timeout: float = 300.0
    """Seconds until its first answer: a server that `npx` or `uvx` starts is downloaded first. The session does not wait."""

    def __post_init__(self) -> None:
        if (self.url is None) == (not self.command):
            raise ValueError(f"the MCP server {self.name} needs either a url or a command")
