"""The key of the bearer tokens: one Secret, created at the first start."""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Final

from agentsession_operator.cluster.kube import ApiError, KubeApi, core_path

SECRET_NAME: Final = "agentsession-token-key"  # noqa: S105 - the name of a Secret
_FIELD: Final = "key"
_BYTES: Final = 32


class UnusableKey(Exception):
    """The Secret exists but holds no usable key."""


async def read_or_create(api: KubeApi, namespace: str) -> bytes:
    """The key, which is created if there is none. Raises ApiError, UnusableKey."""
    try:
        return _key(await api.get(core_path("secrets", namespace, SECRET_NAME)))
    except ApiError as error:
        if not error.gone:
            raise
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET_NAME, "namespace": namespace},
        "type": "Opaque",
        "data": {_FIELD: base64.b64encode(secrets.token_bytes(_BYTES)).decode()},
    }
    try:
        return _key(await api.create(core_path("secrets", namespace), body))
    except ApiError as error:
        if not error.already_exists:
            raise
    return _key(await api.get(core_path("secrets", namespace, SECRET_NAME)))


def _key(secret: dict[str, object]) -> bytes:
    data = secret.get("data")
    try:
        key = base64.b64decode(data[_FIELD], validate=True) if isinstance(data, dict) else b""
    except (KeyError, binascii.Error):
        key = b""
    if len(key) < _BYTES:
        raise UnusableKey(
            f"Secret {SECRET_NAME}: data.{_FIELD} must hold at least {_BYTES} bytes. Delete the Secret, and the operator "
            "creates a new key at its next start; clients of running sessions then need new tokens."
        )
    return key
