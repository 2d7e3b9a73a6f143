"""The bearer token: who may talk to a session's pod."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from session_runtime.problems import ProblemError


def refusal(authorization: str | None, token_sha256: str) -> ProblemError | None:
    """Why a request with this Authorization header is refused; None when it is not.

    The pod knows only the token's SHA-256, and compares in constant time.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        detail = "Send the session's token: `Authorization: Bearer TOKEN`."
        return ProblemError(401, "token-missing", "No token", detail, headers={"WWW-Authenticate": "Bearer"})
    digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
    if not hmac.compare_digest(digest, token_sha256.lower()):
        return ProblemError(403, "token-wrong", "Wrong token", "This token is not the one of this session.")
    return None


class RequireToken:
    """ASGI middleware that lets nothing through without the token but the open paths; before a body is read."""

    def __init__(self, app: ASGIApp, *, token_sha256: str, open_paths: Collection[str]) -> None:
        self._app = app
        self._token_sha256 = token_sha256
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._open_paths):
            await self._app(scope, receive, send)
            return
        refused = refusal(Headers(scope=scope).get("authorization"), self._token_sha256)
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await refused.response()(scope, receive, send)
