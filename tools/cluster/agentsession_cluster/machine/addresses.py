"""Which addresses a cluster uses: a plan per index, and the search for an index that is free."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agentsession_cluster.errors import ClusterError

Family: TypeAlias = Literal["ipv4", "ipv6"]
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

MAX_INDEX = 100

ULA = "fda5:5e55"
"""The first 32 bits of every IPv6 cluster's /48: unique local addresses (RFC 4193), chosen once at random."""


@dataclass(frozen=True)
class Plan:
    """Addresses and names of the cluster with this index.

    172.30.<index>.0/30 joins the host (.1) and the node (.2); pods have the lower half of 10.<100+index>.0.0/16 and
    services the upper half. The host has routes to both through the node, so it reaches pods and services directly.

    An IPv6-only cluster has a /64 each for the link and for pods. Services have a /112: the API server takes no range
    above 20 bits (its --service-cluster-ip-range).
    """

    index: int
    family: Family = "ipv4"

    @property
    def ipv6(self) -> bool:
        return self.family == "ipv6"

    @property
    def host_interface(self) -> str:
        return f"asc{self.index}"

    @property
    def host_ip(self) -> str:
        return f"{ULA}:{self.index:x}::1" if self.ipv6 else f"172.30.{self.index}.1"

    @property
    def node_ip(self) -> str:
        return f"{ULA}:{self.index:x}::2" if self.ipv6 else f"172.30.{self.index}.2"

    @property
    def link_cidr(self) -> str:
        return f"{ULA}:{self.index:x}::/64" if self.ipv6 else f"172.30.{self.index}.0/30"

    @property
    def prefix_length(self) -> int:
        return 64 if self.ipv6 else 30

    @property
    def pod_cidr(self) -> str:
        return f"{ULA}:{self.index:x}:1::/64" if self.ipv6 else f"10.{100 + self.index}.0.0/17"

    @property
    def service_cidr(self) -> str:
        return f"{ULA}:{self.index:x}:2::/112" if self.ipv6 else f"10.{100 + self.index}.128.0/17"

    @property
    def api_service_ip(self) -> str:
        return f"{ULA}:{self.index:x}:2::1" if self.ipv6 else f"10.{100 + self.index}.128.1"

    @property
    def dns_ip(self) -> str:
        return f"{ULA}:{self.index:x}:2::a" if self.ipv6 else f"10.{100 + self.index}.128.10"

    @property
    def everywhere(self) -> str:
        """The network of all addresses: what a default route leads to."""
        return "::/0" if self.ipv6 else "0.0.0.0/0"

    @property
    def listening(self) -> str:
        """What a server of the node listens on to be reached at all of the node's addresses."""
        return "::" if self.ipv6 else "0.0.0.0"  # noqa: S104 - inside the cluster's own network namespace

    @property
    def api_port(self) -> int:
        return 6443

    @property
    def server(self) -> str:
        return f"https://{bracketed(self.node_ip)}:{self.api_port}"

    @property
    def networks(self) -> tuple[Network, ...]:
        """Every network that must be unused on the host."""
        return tuple(ipaddress.ip_network(cidr) for cidr in (self.link_cidr, self.pod_cidr, self.service_cidr))


def bracketed(address: str) -> str:
    """An address as a URL holds it (RFC 3986, section 3.2.2)."""
    return f"[{address}]" if ":" in address else address


def used_networks(routes: Iterable[str]) -> list[Network]:
    """Networks from destinations as `ip route` and `ip -6 route` name them; the default route uses none."""
    networks = []
    for destination in routes:
        if destination == "default":
            continue
        try:
            networks.append(ipaddress.ip_network(destination, strict=False))
        except ValueError:
            continue
    return networks


def allocate(taken: Iterable[int], used: Iterable[Network], family: Family = "ipv4") -> Plan:
    """The plan with the lowest index that no cluster has taken and whose networks overlap none in use."""
    taken, used = set(taken), list(used)
    for index in range(1, MAX_INDEX + 1):
        plan = Plan(index, family)
        if index not in taken and not any(overlap(mine, other) for mine in plan.networks for other in used):
            return plan
    ranges = (
        f"all of {ULA}:1-{MAX_INDEX:x}::/48"
        if family == "ipv6"
        else f"all of 172.30.1-{MAX_INDEX}.0/30 or the networks 10.101-{100 + MAX_INDEX}.0.0/16"
    )
    raise ClusterError(
        f"no free addresses: {ranges} are in use",
        "Delete clusters that are no longer needed (`kind get clusters`), or the routes that overlap (`ip route`).",
    )


def overlap(one: Network, other: Network) -> bool:
    """Whether two networks share an address; those of two families never do."""
    if isinstance(one, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and one.overlaps(other)
    return isinstance(other, ipaddress.IPv6Network) and one.overlaps(other)
