"""Names that are functions of the session."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.api.names import bearer_token, pod_name, token_sha256
from support.control_plane.strategies import session_names, uids

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@given(session_names, uids)
def test_a_pods_name_is_a_host_name(name: str, uid: str) -> None:
    made = pod_name(name, uid)
    assert DNS_LABEL.fullmatch(made)
    assert len(made) <= 63


@given(session_names, uids)
def test_a_pods_name_is_always_the_same_and_begins_like_its_session(name: str, uid: str) -> None:
    assert pod_name(name, uid) == pod_name(name, uid)
    assert pod_name(name, uid).startswith(re.split(r"[.-]", name)[0][:40])


@given(session_names, uids, uids)
def test_a_session_applied_again_under_its_name_has_another_pod(name: str, uid: str, other: str) -> None:
    assert (pod_name(name, uid) == pod_name(name, other)) == (uid == other)


def test_the_bearer_token_is_the_hmac_of_the_uid() -> None:
    """RFC 4231, test case 2."""
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert bearer_token(b"Jefe", "what do ya want for nothing?") == expected


@given(uids, uids, st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_another_session_or_another_key_has_another_token(uid: str, other: str, key: bytes, other_key: bytes) -> None:
    assert (bearer_token(key, uid) == bearer_token(key, other)) == (uid == other)
    assert (bearer_token(key, uid) == bearer_token(other_key, uid)) == (key == other_key)


def test_the_pod_is_given_the_tokens_sha_256() -> None:
    assert token_sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
