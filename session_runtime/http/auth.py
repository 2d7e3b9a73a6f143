"""The gate before the API: who may talk to a session's pod, and how much at once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from session_runtime.http.problems import ProblemError

SMALL_BODY: Final = 64 * 1024
"""Bytes that are taken of a request that is refused, and thrown away."""

SMALL_BODY_SECONDS: Final = 1.0

_CLOSE: Final = {"Connection": "close"}
"""The connection is not kept, so that the rest of a long body is not read."""

_REFUSED: Final = {"WWW-Authenticate": 'Bearer realm="agentsession"', **_CLOSE}
"""With a wrong token too: other credentials would be let in (RFC 9110, 11.6.1)."""


def refusal(authorization: str | None, token_sha256: str) -> ProblemError | None:
    """Why a request with this Authorization header is refused; None when it is not.

    The pod knows only the token's SHA-256, and compares in constant time.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        detail = "header.authorization: the token is missing. Send the session's token as `Authorization: Bearer TOKEN`."
        return ProblemError(401, "token-missing", "No token", detail, headers=_REFUSED)
    digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
    if not hmac.compare_digest(digest, token_sha256.lower()):
        detail = "header.authorization: this token is for a different session. Each session has its own."
        return ProblemError(403, "token-wrong", "Wrong token", detail, headers=_REFUSED)
    return None


class LimitBody:
    """ASGI middleware that refuses a body beyond `limit` bytes, declared or not, with status 413, and one that takes
    longer than `seconds` with 408.

    FastAPI's own limit answers before the token has been looked at, and not with problem details.
    """

    def __init__(self, app: ASGIApp, *, limit: int, seconds: float) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = int(Headers(scope=scope).get("content-length", 0))
        taken, whole = 0, False
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def limited() -> Message:
            nonlocal taken, whole
            if whole:  # what is waited for now is the client's end, and that has no deadline
                return await receive()
            if declared > self._limit:
                raise HTTPException(413, headers=_CLOSE)
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, headers=_CLOSE) from error
            taken += len(message.get("body", b""))
            if taken > self._limit:
                raise HTTPException(413, headers=_CLOSE)
            whole = not message.get("more_body", False)
            return message

        await self._app(scope, limited, send)


class RequireToken:
    """ASGI middleware that lets nothing through without the token but the open paths; before a body is looked at."""

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
            await _take_small_body(scope, receive)
            await refused.response()(scope, receive, send)


async def _take_small_body(scope: Scope, receive: Receive) -> None:
    """A connection that is closed with something unread in it is reset, and the client may never see why (RFC 9112, 9.6).

    Strangers get little for that: no more than so many bytes, nor so much time.
    """
    if scope["type"] != "http" or int(Headers(scope=scope).get("content-length", 0)) > SMALL_BODY:
        return
    taken = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SMALL_BODY_SECONDS):
            while taken <= SMALL_BODY:
                message = await receive()
                taken += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
