"""Service-account tokens, as a cluster issues them: real keys, real signatures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from agentsession_operator.cluster.kube import ApiError, KubeApi

ISSUER = "https://kubernetes.default.svc.cluster.local"
FIRST, SECOND, STRANGER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(3))
CURVE = ec.generate_private_key(ec.SECP256R1())


class Cluster:
    """A transport to the two pages on which an API server publishes the keys of its service-account tokens."""

    def __init__(self, **keys: RSAPrivateKey | EllipticCurvePrivateKey) -> None:
        self.keys = keys
        self.reads = 0
        self.away = False

    @property
    def kube(self) -> KubeApi:
        return KubeApi(self, may_write=lambda: None)

    async def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float = 15.0,
    ) -> dict[str, Any]:
        assert method == "GET"
        if self.away:
            raise ApiError(0, "Unreachable", "no answer")
        if path == "/.well-known/openid-configuration":
            return {"issuer": ISSUER, "jwks_uri": "https://192.0.2.1:6443/openid/v1/jwks"}
        assert path == "/openid/v1/jwks"
        self.reads += 1
        return {"keys": [public(key, kid) for kid, key in self.keys.items()]}


def public(key: RSAPrivateKey | EllipticCurvePrivateKey, kid: str) -> dict[str, Any]:
    if isinstance(key, RSAPrivateKey):
        return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "RS256", "use": "sig"}
    return {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "ES256", "use": "sig"}


def claims(**other: Any) -> dict[str, Any]:
    """As the TokenRequest API of Kubernetes 1.34 writes them."""
    now = int(time.time())
    return {
        "aud": ["agentsession.dev"],
        "exp": now + 3600,
        "iat": now,
        "nbf": now,
        "iss": ISSUER,
        "jti": "d3b07384-d9a0-4c9b-8f4b-0f1f2f3f4f5f",
        "kubernetes.io": {
            "namespace": "team",
            "node": {"name": "node-1", "uid": "uid-of-node"},
            "pod": {"name": "demo-1", "uid": "pod-of-demo"},
            "serviceaccount": {"name": "default", "uid": "uid-of-default"},
        },
        "sub": "system:serviceaccount:team:default",
        **other,
    }


def token(
    key: RSAPrivateKey | EllipticCurvePrivateKey = FIRST, kid: str = "first", algorithm: str = "RS256", **other: Any
) -> str:
    return jwt.encode(claims(**other), key, algorithm=algorithm, headers={"kid": kid})


def bound_to(what: Any) -> str:
    return jwt.encode({**claims(), "kubernetes.io": what}, FIRST, algorithm="RS256", headers={"kid": "first"})
