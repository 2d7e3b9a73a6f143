"""Who may report on a session: real keys, real tokens."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi
from agentsession_operator.reports.desk import Refused, ReportDesk, ReportStore, TokenVerifier
from session_runtime.wire import SessionReport
from support.control_plane.builders import READY, admitted, pod, report

pytestmark = pytest.mark.anyio

ISSUER = "https://kubernetes.default.svc.cluster.local"
FIRST, SECOND, STRANGER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(3))
CURVE = ec.generate_private_key(ec.SECP256R1())


class Cluster:
    """The two pages on which an API server publishes the keys of its service-account tokens."""

    def __init__(self, **keys: RSAPrivateKey | EllipticCurvePrivateKey) -> None:
        self.keys = keys
        self.reads = 0
        self.away = False

    async def get(self, path: str) -> dict[str, Any]:
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


def verifier(cluster: Cluster | None = None) -> TokenVerifier:
    return TokenVerifier(cast(KubeApi, cluster or Cluster(first=FIRST)))


async def refusal(bad: str, cluster: Cluster | None = None) -> int:
    with pytest.raises(Refused) as refused:
        await verifier(cluster).pod_uid(bad)
    assert not bad or bad not in str(refused.value)
    return refused.value.status


async def test_a_pods_own_token_says_which_pod_it_is() -> None:
    assert await verifier().pod_uid(token()) == "pod-of-demo"


async def test_a_token_of_an_elliptic_curve_is_as_good() -> None:
    cluster = Cluster(curve=CURVE)
    assert await verifier(cluster).pod_uid(token(CURVE, "curve", "ES256")) == "pod-of-demo"


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(token(aud=["https://kubernetes.default.svc"]), id="for the API server"),
        pytest.param(token(aud=["vault"]), id="for somebody else"),
        pytest.param(token(aud=[]), id="for nobody"),
        pytest.param(token(iss="https://another.cluster"), id="of another cluster"),
        pytest.param(token(exp=int(time.time()) - 3600), id="expired"),
        pytest.param(token(nbf=int(time.time()) + 3600), id="not valid yet"),
        pytest.param(token(STRANGER), id="signed by somebody else under a known name"),
        pytest.param(token(STRANGER, "stranger"), id="signed with a key that the cluster does not know"),
        pytest.param(bound_to({"namespace": "team", "serviceaccount": {}}), id="not bound to a pod"),
        pytest.param(bound_to(None), id="bound to nothing"),
        pytest.param(bound_to("pod"), id="bound to a word"),
        pytest.param(bound_to({"secret": {"uid": "pod-of-demo"}}), id="bound to a Secret"),
        pytest.param(jwt.encode(claims(), "", algorithm="none", headers={"kid": "first"}), id="without a signature"),
        pytest.param(token()[:-10] + "AAAAAAAAAA", id="with another signature"),
        pytest.param(jwt.encode(claims(), FIRST, algorithm="RS256"), id="without a key's name"),
        pytest.param("", id="empty"),
        pytest.param("a.b.c", id="nonsense"),
        pytest.param("é" * 30, id="not ASCII"),
    ],
)
async def test_any_other_token_is_refused(bad: str) -> None:
    assert await refusal(bad) == 401


async def test_a_token_without_an_end_is_refused() -> None:
    endless = {name: value for name, value in claims().items() if name != "exp"}
    assert await refusal(jwt.encode(endless, FIRST, algorithm="RS256", headers={"kid": "first"})) == 401


async def test_the_public_key_is_not_taken_for_a_shared_secret() -> None:
    """The attack of RFC 8725, section 2.1: an HMAC with the public key, which everybody knows."""
    pem = FIRST.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header, body, _ = token().split(".")
    forged_header = jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"first","typ":"JWT"}').decode()
    signed = f"{forged_header}.{body}".encode()
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed, pem)
    assert header != forged_header
    assert await refusal(f"{forged_header}.{body}.{jwt.utils.base64url_encode(signature).decode()}") == 401


async def test_a_token_just_issued_by_a_clock_a_little_ahead_is_taken() -> None:
    """The operator's node and the API server's are not one machine; a pod's first report comes within a second."""
    ahead = int(time.time()) + 5
    assert await verifier().pod_uid(token(iat=ahead, nbf=ahead)) == "pod-of-demo"


async def test_the_keys_are_read_once_for_many_tokens() -> None:
    cluster = Cluster(first=FIRST)
    one = verifier(cluster)
    for _ in range(5):
        await one.pod_uid(token())
    assert cluster.reads == 1


async def test_unknown_keys_do_not_make_the_operator_ask_again_and_again() -> None:
    cluster = Cluster(first=FIRST)
    one = verifier(cluster)
    for number in range(20):
        with pytest.raises(Refused):
            await one.pod_uid(token(STRANGER, f"stranger-{number}"))
    assert cluster.reads == 1


async def test_a_rotated_key_is_found_and_the_old_one_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr("agentsession_operator.reports.desk.time", SimpleNamespace(monotonic=lambda: clock))
    cluster = Cluster(first=FIRST)
    one = verifier(cluster)
    await one.pod_uid(token())
    cluster.keys = {"second": SECOND}
    clock += 60
    assert await one.pod_uid(token(SECOND, "second")) == "pod-of-demo"
    with pytest.raises(Refused):
        await one.pod_uid(token())


async def test_both_keys_count_while_they_are_both_published() -> None:
    one = verifier(Cluster(first=FIRST, second=SECOND))
    assert await one.pod_uid(token()) == await one.pod_uid(token(SECOND, "second")) == "pod-of-demo"


async def test_keys_that_cannot_be_read_are_not_the_pods_fault() -> None:
    cluster = Cluster(first=FIRST)
    cluster.away = True
    one = verifier(cluster)
    with pytest.raises(ApiError):
        await one.pod_uid(token())
    cluster.away = False
    assert await one.pod_uid(token()) == "pod-of-demo"


# The newest report of each session.


def test_only_a_later_report_is_news() -> None:
    heard: list[str] = []
    store = ReportStore(heard.append)
    assert [store.put(report(sequence=number)) for number in (2, 2, 1, 3)] == [True, False, False, True]
    received = store.get("uid-of-demo")
    assert received is not None
    assert received.report.sequence == 3
    assert heard == ["uid-of-demo", "uid-of-demo"]


def test_sessions_do_not_get_in_each_others_way() -> None:
    store = ReportStore(lambda _uid: None)
    assert store.put(report("a", sequence=9))
    assert store.put(report("b", sequence=1))
    store.forget("uid-of-a")
    assert store.get("uid-of-a") is None
    assert store.get("uid-of-b") is not None
    store.forget("uid-of-a")


# The desk.


def desk(*, complete: bool = True) -> tuple[ReportDesk, Cache, ReportStore]:
    cache = Cache(session_changed=lambda _uid: None, slots_changed=lambda: None, settings_changed=lambda: None)
    cache.sessions.put(admitted())
    cache.pods.put(pod(status=READY))
    cache.complete = complete
    store = ReportStore(lambda _uid: None)
    return ReportDesk(cache, store, verifier()), cache, store


async def send(at: ReportDesk, namespace: str, name: str, with_token: str, what: SessionReport) -> bool:
    """As the HTTP server does it: first who sends, then what."""
    return at.take(namespace, name, await at.sender(f"Bearer {with_token}"), what)


async def refused(
    at: ReportDesk, *, namespace: str = "team", name: str = "demo", with_token: str = "", of: str = "demo"
) -> int:
    with pytest.raises(Refused) as refusal:
        await send(at, namespace, name, with_token or token(), report(of))
    return refusal.value.status


async def test_a_pods_report_on_its_own_session_is_taken_and_an_older_one_dropped() -> None:
    at, _, store = desk()
    assert await send(at, "team", "demo", token(), report(sequence=2))
    assert not await send(at, "team", "demo", token(), report(sequence=1))
    received = store.get("uid-of-demo")
    assert received is not None
    assert received.report.sequence == 2


async def test_a_pod_cannot_report_on_another_pods_session() -> None:
    at, _, _ = desk()
    other = bound_to({"pod": {"name": "other", "uid": "pod-of-other"}})
    assert await refused(at, with_token=other) == 403


async def test_a_report_on_a_session_that_is_not_there_is_refused() -> None:
    at, _, _ = desk()
    assert await refused(at, of="nobody") == 404
    assert await refused(at, name="another") == 404
    assert await refused(at, namespace="elsewhere") == 404


async def test_a_report_on_a_session_without_a_pod_is_refused() -> None:
    at, cache, _ = desk()
    cache.pods.remove("pod-of-demo")
    assert await refused(at) == 403


async def test_a_starting_operator_asks_for_the_report_again() -> None:
    at, _, _ = desk(complete=False)
    assert await refused(at) == 503


async def test_a_bad_token_is_refused_before_anything_is_said_about_sessions() -> None:
    at, _, _ = desk()
    assert await refused(at, with_token="a.b.c", of="nobody") == 401


async def test_a_sender_without_a_bearer_token_is_refused() -> None:
    at, _, _ = desk()
    for header in ("", "Bearer", "Bearer ", f"Basic {token()}"):
        with pytest.raises(Refused) as refusal:
            await at.sender(header)
        assert refusal.value.status == 401


async def test_a_forged_pod_of_another_namespace_cannot_report() -> None:
    at, cache, _ = desk()
    cache.pods.put(pod(namespace="elsewhere", uid="forged", version=999, status=READY))
    forged = bound_to({"pod": {"name": "x", "uid": "forged"}})
    assert await refused(at, with_token=forged) == 403
    assert await send(at, "team", "demo", token(), report())
