"""An authorization server, and MCP servers that accept its tokens alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from support.agent.canned_mcp import reply

CLIENT_ID = "agents"
SECRET = "client-s3cret-0123"


@dataclass
class AuthorizationServer:
    """Issues tokens for client credentials. Set `url` to its address before it is asked."""

    url: str = ""
    methods: tuple[str, ...] = ("client_secret_basic",)
    issuer: str | None = None
    """What its metadata name; None is its address."""
    token_endpoint: str | None = None
    """The same."""
    expires_in: int = 3600
    answer: tuple[int, str] | None = None
    """In place of a token: status and body."""
    redirect: str | None = None
    """Where token requests are redirected to."""
    hangs: bool = False
    """It never answers for a token."""
    issued: list[str] = field(default_factory=list)
    valid: set[str] = field(default_factory=set)
    requests: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    """Path, headers and form of each request."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        form = {name: values[0] for name, values in parse_qs((await body_of(receive)).decode()).items()}
        self.requests.append((scope["path"], headers, form))
        if scope["path"] == "/.well-known/oauth-authorization-server":
            await reply(send, 200, json.dumps(self._metadata()).encode())
        elif scope["path"] == "/token" and self.redirect is not None:
            await reply(send, 307, b"", "text/plain", (b"location", self.redirect.encode()))
        elif scope["path"] == "/token" and self.hangs:
            await receive()  # the client gives up
        elif scope["path"] == "/token":
            status, body = self.answer or self._token(form.get("scope"))
            await reply(send, status, body.encode())
        else:
            await reply(send, 404)

    @property
    def token_requests(self) -> list[tuple[dict[str, str], dict[str, str]]]:
        return [(headers, form) for path, headers, form in self.requests if path == "/token"]

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer or self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": self.token_endpoint or f"{self.url}/token",
            "response_types_supported": ["code"],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": list(self.methods),
        }

    def _token(self, scope: str | None) -> tuple[int, str]:
        token = f"access-token-{len(self.issued)}-of-{id(self):x}"
        self.issued.append(token)
        self.valid.add(token)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in}
        return 200, json.dumps(answer | ({} if scope is None else {"scope": scope}))


def basic(client_id: str = CLIENT_ID, secret: str = SECRET) -> str:
    """The header of a client that authenticates with its secret."""
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


@dataclass
class Protected:
    """An MCP server's application behind an authorization server."""

    app: Callable[..., Any]
    server: AuthorizationServer
    url: str = ""
    """Its own address, with the path of MCP."""
    names: str | None = None
    """The authorization server that it names; None is the right one."""
    resource: str | None = None
    challenge: str = ""
    """More of `WWW-Authenticate`."""
    required_scope: str | None = None
    """A scope without which tool calls are refused."""
    seen: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    """Method and headers of each request."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if scope["path"].startswith("/.well-known/oauth-protected-resource"):
            named = self.names or self.server.url
            await reply(
                send, 200, json.dumps({"resource": self.resource or self.url, "authorization_servers": [named]}).encode()
            )
            return
        self.seen.append((scope["method"], headers))
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.server.valid:
            challenge = f'Bearer error="invalid_token"{self.challenge}'
            await reply(send, 401, b"", "text/plain", (b"www-authenticate", challenge.encode()))
        elif self.required_scope is not None and headers.get("mcp-method") == "tools/call" and not self._granted(token):
            refused = f'Bearer error="insufficient_scope", scope="{self.required_scope}"'
            await reply(send, 403, b"", "text/plain", (b"www-authenticate", refused.encode()))
        else:
            await self.app(scope, receive, send)

    def _granted(self, token: str) -> bool:
        index = self.server.issued.index(token)
        _, form = self.server.token_requests[index]
        return self.required_scope in form.get("scope", "").split()


async def body_of(receive: Any) -> bytes:
    """The body of a request."""
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
