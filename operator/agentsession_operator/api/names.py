"""Names that are functions of the session, so that a retry, a restart or a second operator arrives at the same ones."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

_PREFIX_LENGTH: Final = 40


def pod_name(session_name: str, session_uid: str) -> str:
    """The session's pod: the session's name, cut, and a hash of its UID.

    A session deleted and applied again under the same name has another UID and so another pod: the new one never
    mistakes the old one's pod for its own. Pod names become host names, so at most 63 characters and no dot.
    """
    digest = hashlib.sha256(session_uid.encode()).hexdigest()[:10]
    prefix = session_name.replace(".", "-")[:_PREFIX_LENGTH].rstrip("-")
    return f"{prefix}-{digest}"


def claim_name(session_name: str, session_uid: str) -> str:
    """The PersistentVolumeClaim of the session's persistent workspace: as its pod's name."""
    return pod_name(session_name, session_uid)


def bearer_token(key: bytes, session_uid: str) -> str:
    """The token that callers of a session pod's API present: HMAC-SHA256 of the session's UID, in hexadecimal."""
    return hmac.new(key, session_uid.encode(), hashlib.sha256).hexdigest()


def token_sha256(token: str) -> str:
    """What the pod is given to check the token against; the token cannot be found from it."""
    return hashlib.sha256(token.encode()).hexdigest()


def pod_mac(key: bytes, namespace: str, name: str, session_uid: str, user: str) -> str:
    """The operator's mark on a pod that it creates: HMAC-SHA256, in hexadecimal, with a key derived from the token key.

    Derived, so that no mark is ever a bearer token. The fields cannot run into each other: none contains a NUL.
    """
    derived = hmac.new(key, b"agentsession.dev/pod", hashlib.sha256).digest()
    return hmac.new(derived, "\0".join((namespace, name, session_uid, user)).encode(), hashlib.sha256).hexdigest()


def is_mac(key: bytes, mac: str, namespace: str, name: str, session_uid: str, user: str) -> bool:
    """Whether a mark is right, compared in constant time."""
    return hmac.compare_digest(mac.encode(), pod_mac(key, namespace, name, session_uid, user).encode())
