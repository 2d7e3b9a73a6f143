"""Reports of session pods: who may send one, and which is the newest of each session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import jwt

from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi
from agentsession_operator.decisions.facts import ReceivedReport
from session_runtime.wire import REPORT_AUDIENCE, SessionReport

_KEYS_SECONDS: Final = 10.0
"""A token signed with an unknown key makes us ask for the keys again, so often at most."""
_LEEWAY_SECONDS: Final = 10.0
"""How far the clocks of this node and of the API server's may differ: a pod reports within a second of its token's birth."""
_ALGORITHMS: Final = ["RS256", "ES256", "ES384", "ES512"]


class Refused(Exception):
    """A report that is not accepted. `status` is the HTTP status to answer with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ReportStore:
    """The newest report of each session."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._reports: dict[str, ReceivedReport] = {}
        self._changed = changed

    def put(self, report: SessionReport) -> bool:
        """Take a report in; False for one that is older than what is known."""
        known = self._reports.get(report.session_uid)
        if known is not None and known.report.sequence >= report.sequence:
            return False
        self._reports[report.session_uid] = ReceivedReport(report, datetime.now(UTC))
        self._changed(report.session_uid)
        return True

    def get(self, uid: str) -> ReceivedReport | None:
        return self._reports.get(uid)

    def forget(self, uid: str) -> None:
        self._reports.pop(uid, None)


class TokenVerifier:
    """Checks service-account tokens with the cluster's public keys: signature, issuer, audience, and the pod they are bound to.

    A TokenReview would ask the same of the API server for every report; this asks for the keys once.
    """

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._issuer = ""
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()

    async def pod_uid(self, token: str) -> str:
        """UID of the pod that the token is bound to. Raises Refused, or ApiError where the keys cannot be read."""
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
            return str(claims["kubernetes.io"]["pod"]["uid"])
        except jwt.PyJWKSetError as error:
            raise Refused(503, f"the cluster publishes no usable keys: {error}") from error
        except (jwt.InvalidTokenError, KeyError, TypeError) as error:
            raise Refused(401, f"the token is not valid here: {type(error).__name__}") from error

    async def _key(self, kid: str | None) -> jwt.PyJWK:
        async with self._lock:
            if kid not in self._keys and time.monotonic() - self._fetched > _KEYS_SECONDS:
                discovery = await self._api.get("/.well-known/openid-configuration")
                keys = jwt.PyJWKSet.from_dict(await self._api.get("/openid/v1/jwks"))
                self._keys = {key.key_id: key for key in keys.keys}
                self._issuer, self._fetched = discovery["issuer"], time.monotonic()
            return self._keys[kid]


class ReportDesk:
    """Takes reports in: the sender must be the very pod of the session that it speaks of."""

    def __init__(self, cache: Cache, store: ReportStore, verifier: TokenVerifier) -> None:
        self._cache, self._store, self._verifier = cache, store, verifier

    async def sender(self, authorization: str) -> str:
        """UID of the pod that sends, from its Authorization header. Raises Refused."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused(401, "send the pod's service-account token as a bearer token")
        if not self._cache.complete:
            raise Refused(503, "the operator is starting; send the report again")
        try:
            return await self._verifier.pod_uid(token)
        except ApiError as error:
            raise Refused(503, f"the cluster's keys cannot be read: {error}") from error

    def take(self, namespace: str, name: str, pod_uid: str, report: SessionReport) -> bool:
        """False for a report that is older than what is known. Raises Refused."""
        session = self._cache.sessions.get(report.session_uid)
        if session is None or (session.meta.namespace, session.meta.name) != (namespace, name):
            raise Refused(404, f"there is no session {namespace}/{name} with this UID")
        pod = self._cache.pod_of(report.session_uid)
        if pod is None or pod.meta.uid != pod_uid:
            raise Refused(403, "the token is not of this session's pod")
        return self._store.put(report)
