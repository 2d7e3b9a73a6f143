"""kind's cluster configuration: what a native cluster takes, refuses and leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentsession_cluster import binaries, kind_config
from agentsession_cluster.errors import ClusterError
from agentsession_cluster.kind_config import Config, parse

IPV6 = """\
# As kind's own documentation writes it.
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  ipFamily: ipv6
"""


def document(**fields: Any) -> dict[str, Any]:
    return {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", **fields}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Config("ipv4")),
        ({"networking": {"ipFamily": "ipv4"}, "nodes": [{"role": "control-plane"}]}, Config("ipv4")),
        ({"networking": {"ipFamily": "ipv6"}, "name": "a"}, Config("ipv6")),
        ({"networking": None}, Config("ipv4")),
    ],
)
def test_the_family_is_taken(fields: dict[str, Any], expected: Config) -> None:
    assert parse(document(**fields)) == expected


def test_what_has_no_effect_is_named() -> None:
    nodes = [{"role": "control-plane"}, {"role": "worker"}]
    found = parse(document(networking={"ipFamily": "ipv6", "podSubnet": "fd00::/56"}, nodes=nodes, featureGates={"X": True}))
    assert found == Config("ipv6", ("featureGates", "networking.podSubnet", "nodes"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (document(networking={"ipFamily": "dual"}), "ipFamily is 'dual'"),
        (document(networking={"ipFamily": "IPv6"}), "ipFamily is 'IPv6'"),
        (document(networking=["ipv6"]), "networking must be a map"),
        (document(kind="Pod"), "kind must be Cluster"),
        (document(apiVersion="v1"), "apiVersion must be kind.x-k8s.io/v1alpha4"),
        ([], "kind must be Cluster"),
    ],
)
def test_what_a_native_cluster_cannot_be_is_refused(given: Any, words: str) -> None:
    with pytest.raises(ClusterError, match=words) as refused:
        parse(given)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("text", [IPV6, IPV6.replace(":\n  ipFamily: ipv6", ": {ipFamily: ipv6}")])
def test_yaml_is_read_from_a_file(text: str, tmp_path: Path) -> None:
    file = tmp_path / "kind.yaml"
    file.write_text(text)
    assert kind_config.read(str(file), binaries.kubectl()) == Config("ipv6")


@pytest.mark.parametrize("text", [None, "kind: [", "networking: {}\n"])
def test_a_file_that_cannot_be_read_is_an_error_with_its_path(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "kind.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ClusterError, match=r"kind\.yaml"):
        kind_config.read(str(file), binaries.kubectl())
