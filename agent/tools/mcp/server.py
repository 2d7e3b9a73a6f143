"""The settings of one MCP server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.tools.tool import DEFAULT_TIMEOUT


@dataclass(frozen=True)
class OAuthClient:
    """A client that is registered at a server's authorization server, and acts for itself (OAuth 2.1, client credentials)."""

    issuer: str
    """The authorization server's identifier (RFC 8414). The credentials are sent to this one alone, no matter which one the
    MCP server names."""
    client_id: str
    secret: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    """PEM; in place of the secret. It signs what the client proves itself with (RFC 7523)."""
    scopes: tuple[str, ...] = ()
    """To ask for; empty means those that the server asks for."""

    def __post_init__(self) -> None:
        if (self.secret is None) == (self.private_key is None):
            raise ValueError(f"the client of {self.issuer} needs either a secret or a private key")


@dataclass(frozen=True)
class McpServer:
    """One server: either a `url` (streamable HTTP) or a `command` (stdio)."""

    name: str
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to this server alone: the client follows no redirect to another host, port or scheme."""
    oauth: OAuthClient | None = None
    """Where the server's access tokens come from. They are sent to this server alone."""
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

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown of what the server may know."""
        of_client = () if self.oauth is None else (self.oauth.secret, self.oauth.private_key)
        return (*self.headers.values(), *self.environment.values(), *(value for value in of_client if value))
