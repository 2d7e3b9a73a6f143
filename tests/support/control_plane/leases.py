"""Leases of operators under test: on virtual time, at a fake API server."""

from __future__ import annotations

import asyncio

from agentsession_operator.cluster.kube import lease_path
from agentsession_operator.cluster.lease import NAME, Lease, NotLeader
from support.control_plane.apiserver import ApiServer

PATH = lease_path("system", NAME)


def now() -> float:
    """Seconds of the running loop."""
    return asyncio.get_running_loop().time()


def lease_of(server: ApiServer, identity: str) -> Lease:
    """An operator's lease."""
    return Lease(server, "system", identity, clock=now)


def holds(lease: Lease) -> bool:
    """Whether the operator may write under this lease."""
    try:
        lease.check()
    except NotLeader:
        return False
    return True


def holder(server: ApiServer) -> str:
    """Identity of the lease's holder; empty if it is free."""
    return str(server.objects[PATH]["spec"]["holderIdentity"])
