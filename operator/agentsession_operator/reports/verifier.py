"""Who sends a report: the pod that a service-account token is bound to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import jwt

from agentsession_operator.api.objects import PodUID
from agentsession_operator.cluster.kube import KubeApi
from session_runtime.wire import REPORT_AUDIENCE

_KEYS_SECONDS: Final = 10.0
"""Minimum interval between two reads of the signing keys. A token with an unknown key makes the verifier read them again."""
_LEEWAY_SECONDS: Final = 10.0
"""How far this node's clock and the API server's may differ: a pod reports within a second after its token was issued."""
_ALGORITHMS: Final = ["RS256", "ES256", "ES384", "ES512"]


class Refused(Exception):
    """A report that is not accepted. `status` is the HTTP status to answer with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TokenVerifier:
    """Checks service-account tokens with the cluster's public keys: signature, issuer, audience, and the pod they are bound to.

    A TokenReview would be one request to the API server for each report; this reads the keys once.
    """

    def __init__(self, api: KubeApi, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._clock = api, clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._issuer = ""
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()

    async def pod_uid(self, token: str) -> PodUID:
        """UID of the pod that the token is bound to. Raises Refused, or ApiError if the keys cannot be read."""
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=REPORT_AUDIENCE,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp"]},
            )
            return PodUID(str(claims["kubernetes.io"]["pod"]["uid"]))
        except jwt.PyJWKSetError as error:
            raise Refused(503, f"the cluster publishes no usable keys: {error}") from error
        except (jwt.InvalidTokenError, KeyError, TypeError) as error:
            raise Refused(401, f"the token is not valid here: {type(error).__name__}") from error

    async def _key(self, kid: str | None) -> jwt.PyJWK:
        async with self._lock:
            if kid not in self._keys and self._clock() - self._fetched > _KEYS_SECONDS:
                discovery = await self._api.get("/.well-known/openid-configuration")
                keys = jwt.PyJWKSet.from_dict(await self._api.get("/openid/v1/jwks"))
                self._keys = {key.key_id: key for key in keys.keys}
                self._issuer, self._fetched = discovery["issuer"], self._clock()
            return self._keys[kid]
