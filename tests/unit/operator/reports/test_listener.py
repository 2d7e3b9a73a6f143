"""The operator listens on both families: a probe comes over the one that the cluster gave the pod's address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import httpx
import pytest

from agentsession_operator.__main__ import parser
from agentsession_operator.reports.http import HttpServer, make_app
from agentsession_operator.reports.listener import ALL_ADDRESSES, listen
from support.control_plane.desk import desk
from support.runtime.harness import eventually

pytestmark = pytest.mark.anyio

DEADLINE = 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that was started with ipv6.disable=1 refuses the socket itself."""
    original: Callable[..., socket.socket] = socket.socket

    def refuse(family: int = socket.AF_INET, *rest: int, **more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return original(family, *rest, **more)

    monkeypatch.setattr(socket, "socket", refuse)


def test_all_addresses_of_both_families_are_the_default() -> None:
    assert parser().parse_args(["run"]).http_host == ALL_ADDRESSES


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_the_probes_are_answered_over_both_families(host: str) -> None:
    at, _, _ = desk()
    port = free_port()
    server = HttpServer(make_app(at, healthy=lambda: None, ready=lambda: None), ALL_ADDRESSES, port)
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(DEADLINE), httpx.AsyncClient(trust_env=False) as client:
            await eventually(lambda: server.started)
            assert (await client.get(f"http://{host}:{port}/healthz")).text == "ok"
    finally:
        await server.stop(serving)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address_is_listened_on_alone(address: str) -> None:
    with listen(address, 0) as listener:
        assert listener.getsockname()[0] == address


def test_a_name_is_listened_on_at_its_address() -> None:
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[0] in ("127.0.0.1", "::1")


def test_without_ipv6_it_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ipv6(monkeypatch)
    with listen(ALL_ADDRESSES, 0) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
        with contextlib.closing(socket.create_connection(listener.getsockname())):
            pass


def test_a_port_that_is_taken_is_an_error_with_its_address() -> None:
    with listen(ALL_ADDRESSES, 0) as first, pytest.raises(OSError, match="in use"):
        listen(ALL_ADDRESSES, first.getsockname()[1])
