"""Which addresses a cluster uses: a plan per index, and the search for an index that is free."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import ClusterError

MAX_INDEX = 100


@dataclass(frozen=True)
class Plan:
    """Addresses and names of the cluster with this index.

    172.30.<index>.0/30 joins the host (.1) and the node (.2); pods have the lower half of 10.<100+index>.0.0/16 and
    services the upper half. The host has routes to both through the node, so it reaches pods and services directly.
    """

    index: int

    @property
    def host_interface(self) -> str:
        return f"asc{self.index}"

    @property
    def host_ip(self) -> str:
        return f"172.30.{self.index}.1"

    @property
    def node_ip(self) -> str:
        return f"172.30.{self.index}.2"

    @property
    def link_cidr(self) -> str:
        return f"172.30.{self.index}.0/30"

    @property
    def prefix_length(self) -> int:
        return 30

    @property
    def pod_cidr(self) -> str:
        return f"10.{100 + self.index}.0.0/17"

    @property
    def service_cidr(self) -> str:
        return f"10.{100 + self.index}.128.0/17"

    @property
    def api_service_ip(self) -> str:
        return f"10.{100 + self.index}.128.1"

    @property
    def dns_ip(self) -> str:
        return f"10.{100 + self.index}.128.10"

    @property
    def api_port(self) -> int:
        return 6443

    @property
    def server(self) -> str:
        return f"https://{self.node_ip}:{self.api_port}"

    @property
    def networks(self) -> tuple[ipaddress.IPv4Network, ...]:
        """Every network that must be unused on the host."""
        return tuple(ipaddress.IPv4Network(cidr) for cidr in (self.link_cidr, self.pod_cidr, self.service_cidr))


def used_networks(routes: Iterable[str]) -> list[ipaddress.IPv4Network]:
    """Networks from destinations as `ip route` names them; the default route uses none, nor does an IPv6 one."""
    networks = []
    for destination in routes:
        if destination == "default":
            continue
        try:
            networks.append(ipaddress.IPv4Network(destination, strict=False))
        except ValueError:
            continue
    return networks


def allocate(taken: Iterable[int], used: Iterable[ipaddress.IPv4Network]) -> Plan:
    """The plan with the lowest index that no cluster has taken and whose networks overlap none in use."""
    taken, used = set(taken), list(used)
    for index in range(1, MAX_INDEX + 1):
        plan = Plan(index)
        if index not in taken and not any(mine.overlaps(other) for mine in plan.networks for other in used):
            return plan
    raise ClusterError(
        f"no free addresses: all of 172.30.1-{MAX_INDEX}.0/30 or the networks 10.101-{100 + MAX_INDEX}.0.0/16 are in use",
        "Delete clusters that are no longer needed (`kind get clusters`), or the routes that overlap (`ip route`).",
    )
