"""Which pod a token is bound to: real keys, real tokens."""

from __future__ import annotations

import time

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agentsession_operator.cluster.kube import ApiError
from agentsession_operator.reports.verifier import Refused, TokenVerifier
from support.control_plane.tokens import CURVE, FIRST, SECOND, STRANGER, Cluster, bound_to, claims, token

pytestmark = pytest.mark.anyio


def verifier(cluster: Cluster | None = None) -> TokenVerifier:
    return TokenVerifier((cluster or Cluster(first=FIRST)).kube)


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
        pytest.param(token(aud=["vault"]), id="for another audience"),
        pytest.param(token(aud=[]), id="for nobody"),
        pytest.param(token(iss="https://another.cluster"), id="of another cluster"),
        pytest.param(token(exp=int(time.time()) - 3600), id="expired"),
        pytest.param(token(nbf=int(time.time()) + 3600), id="not valid yet"),
        pytest.param(token(STRANGER), id="signed by a stranger under a known name"),
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


async def test_a_rotated_key_is_found_and_the_old_one_forgotten() -> None:
    clock = 1000.0
    cluster = Cluster(first=FIRST)
    one = TokenVerifier(cluster.kube, clock=lambda: clock)
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
