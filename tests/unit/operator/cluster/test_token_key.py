"""The key of the bearer tokens: created once."""

from __future__ import annotations

import base64

import pytest

from agentsession_operator.cluster.kube import ApiError, core_path
from agentsession_operator.cluster.token_key import SECRET_NAME, UnusableKey, read_or_create
from support.control_plane.apiserver import ApiServer

pytestmark = pytest.mark.anyio

PATH = core_path("secrets", "system", SECRET_NAME)


async def test_a_key_is_created_once_and_read_afterwards() -> None:
    server = ApiServer()
    first = await read_or_create(server.kube, "system")
    assert len(first) == 32
    assert await read_or_create(server.kube, "system") == first
    assert [verb for verb, _ in server.calls] == ["POST"]


async def test_keys_of_two_installations_differ() -> None:
    assert await read_or_create(ApiServer().kube, "system") != await read_or_create(ApiServer().kube, "system")


async def test_a_key_that_another_operator_created_meanwhile_is_used() -> None:
    server = ApiServer()
    theirs = b"t" * 32

    def just_before(verb: str, _path: str) -> None:
        if verb == "POST" and PATH not in server.objects:
            server.put(PATH, {"metadata": {"name": SECRET_NAME}, "data": {"key": base64.b64encode(theirs).decode()}})

    server.answer = just_before
    assert await read_or_create(server.kube, "system") == theirs


@pytest.mark.parametrize(
    "secret",
    [{}, {"data": None}, {"data": {}}, {"data": {"key": "c2hvcnQ="}}, {"data": {"key": "*"}}, {"data": {"other": "x"}}],
)
async def test_a_secret_without_a_usable_key_is_named_with_the_remedy(secret: dict[str, object]) -> None:
    server = ApiServer()
    server.put(PATH, {"metadata": {"name": SECRET_NAME}, **secret})
    with pytest.raises(UnusableKey, match="Delete the Secret"):
        await read_or_create(server.kube, "system")
    assert server.calls == []


async def test_other_errors_are_not_taken_for_a_missing_secret() -> None:
    server = ApiServer()

    def forbidden(_verb: str, _path: str) -> None:
        raise ApiError(403, "Forbidden", "no")

    server.answer = forbidden
    with pytest.raises(ApiError, match="Forbidden"):
        await read_or_create(server.kube, "system")
