"""The gate before the API: who may talk to a session's pod, and how much at once."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from session_runtime.problems import ProblemError

_CLOSE: Final = {"Connection": "close"}
"""The connection is not kept, so that the rest of a long body is not read."""


def refusal(authorization: str | None, token_sha256: str) -> ProblemError | None:
    """Why a request with this Authorization header is refused; None when it is not.

    The pod knows only the token's SHA-256, and compares in constant time.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        detail = "Send the session's token: `Authorization: Bearer TOKEN`."
        headers = {"WWW-Authenticate": "Bearer", **_CLOSE}
        return ProblemError(401, "token-missing", "No token", detail, headers=headers)
    digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
    if not hmac.compare_digest(digest, token_sha256.lower()):
        detail = "This token is not the one of this session."
        return ProblemError(403, "token-wrong", "Wrong token", detail, headers=_CLOSE)
    return None


class LimitBody:
    """ASGI middleware that refuses a body beyond `limit` bytes, declared or not, with status 413.

    FastAPI's own limit answers before the token has been looked at, and not with problem details.
    """

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                raise HTTPException(413, headers=_CLOSE)
            return message

        await self._app(scope, limited, send)


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
