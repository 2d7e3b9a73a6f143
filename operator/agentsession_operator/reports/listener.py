"""Where the operator's HTTP server listens: on every address of the pod, of both families."""

from __future__ import annotations

import socket
from typing import Final

ALL_ADDRESSES: Final = "::"
"""Every IPv4 and every IPv6 address of this host, in one socket."""

BACKLOG: Final = 1024
"""Connections that the kernel keeps until they are accepted; it cuts this at net.core.somaxconn."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket. `::` takes IPv4 as well, because probes and reports arrive over whichever family the cluster
    gave the pod's address. Where the kernel has no IPv6 it is 0.0.0.0. Any other host is an address, or a name whose first
    address counts.

    asyncio cannot open this socket: it sets IPV6_V6ONLY on every IPv6 socket of its own. Raises OSError."""
    dual = host == ALL_ADDRESSES and socket.has_dualstack_ipv6()
    if host == ALL_ADDRESSES and not dual:
        host = "0.0.0.0"  # noqa: S104 - the same addresses, less IPv6
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, dualstack_ipv6=dual, backlog=BACKLOG)
