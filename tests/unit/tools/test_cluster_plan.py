"""The native cluster's pure parts: addresses, rendered configuration, certificates' subjects, programs."""

from __future__ import annotations

import ipaddress
import json
import re
import tarfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession_cluster import binaries, images, objects
from agentsession_cluster.errors import ClusterError
from agentsession_cluster.machine import cgroups, node, volumes
from agentsession_cluster.machine.addresses import MAX_INDEX, ULA, Family, Plan, allocate, overlap, used_networks
from agentsession_cluster.machine.certs import wanted
from agentsession_cluster.machine.packages import is_static
from agentsession_cluster.settings import GO_MODULES
from agentsession_cluster.state import Layout

indexes = st.integers(min_value=1, max_value=MAX_INDEX)
families = st.sampled_from(["ipv4", "ipv6"])


def rendering(family: Family = "ipv4", *, control_plane_only: bool = False) -> node.Node:
    programs = {name: Path("/cache") / name for name in (*binaries.NODE, "python3", "kind")}
    return node.Node("demo", Plan(3, family), Layout(Path("/clusters/demo")), programs, control_plane_only)


@given(indexes, indexes, families, families)
def test_plans_of_two_clusters_share_no_address(one: int, other: int, family: Family, second: Family) -> None:
    shared = any(overlap(a, b) for a in Plan(one, family).networks for b in Plan(other, second).networks)
    assert shared == ((one, family) == (other, second))


@given(indexes, families)
def test_a_plans_addresses_lie_in_its_own_networks(index: int, family: Family) -> None:
    plan = Plan(index, family)
    link, pods, services = plan.networks
    assert ipaddress.ip_address(plan.host_ip) in link
    assert ipaddress.ip_address(plan.node_ip) in link
    assert ipaddress.ip_address(plan.dns_ip) in services
    assert ipaddress.ip_address(plan.api_service_ip) == next(services.hosts())
    assert not overlap(pods, services)
    assert not overlap(link, pods)
    assert len(plan.host_interface) < 16  # the kernel's IFNAMSIZ


@given(st.sets(indexes, max_size=MAX_INDEX - 1))
def test_the_lowest_free_index_is_taken(taken: set[int]) -> None:
    assert allocate(taken, []).index == min(set(range(1, MAX_INDEX + 1)) - taken)


def test_networks_in_use_on_the_host_are_avoided() -> None:
    used = used_networks(["default", "192.0.2.0/24", "10.101.7.0/24", "172.30.2.2", "fe80::/64"])
    assert allocate([], used).index == 3


def test_ipv6_networks_in_use_on_the_host_are_avoided() -> None:
    used = used_networks(["default", "::1", f"{ULA}:1:1::/64", f"{ULA}:2::/64", "10.0.0.0/8"])
    assert allocate([], used, "ipv6") == Plan(3, "ipv6")


def test_a_url_brackets_an_ipv6_address() -> None:
    assert Plan(3).server == "https://172.30.3.2:6443"
    assert Plan(3, "ipv6").server == f"https://[{ULA}:3::2]:6443"


def test_an_ipv6_cluster_has_no_ipv4_address_but_loopback() -> None:
    """What a component is told: command lines, files, objects and certificates."""
    rendered = rendering("ipv6")
    names = [name for certificate in wanted(rendered.plan, "n") for name in certificate.names]
    told = json.dumps([node.specification(rendered), node.config_files(rendered), objects.dns(rendered.plan), names])
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", told)) == {"127.0.0.1"}
    assert f"IP:{ULA}:3::2" in names
    assert "--bind-address=::" in node.apiserver(rendered)
    assert f"nameserver {ULA}:3:2::a\n" == node.config_files(rendered)["resolv.conf"]
    assert '"addressType": "IPv6"' in told


def test_a_host_with_every_network_in_use_is_told_so() -> None:
    with pytest.raises(ClusterError, match="no free addresses"):
        allocate([], used_networks(["10.0.0.0/8"]))
    with pytest.raises(ClusterError, match="no free addresses"):
        allocate([], used_networks(["fd00::/8"]), "ipv6")


def test_nobody_but_the_bootstrap_user_is_in_system_masters() -> None:
    masters = [c.stem for c in wanted(Plan(1), "n") if c.organization == "system:masters"]
    assert masters == ["bootstrap"]


def test_every_process_that_authenticates_has_a_certificate_and_a_right() -> None:
    stems = {certificate.stem for certificate in wanted(Plan(1), "n")}
    users = {Path(file).stem for file in node.config_files(rendering()) if file.endswith(".kubeconfig")}
    assert users <= stems
    bound = {manifest["subjects"][0]["name"] for _, manifest in objects.access() if "subjects" in manifest}
    assert {"agentsession:admins", "system:coredns", "agentsession:volumes", "agentsession:kwok"} <= bound


def test_containerds_configuration_is_toml_and_stays_in_the_clusters_directory() -> None:
    config = tomllib.loads(node.containerd_config(rendering()))
    assert config["root"] == "/clusters/demo/containerd"
    assert config["grpc"]["address"] == "/clusters/demo/containerd.sock"
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == node.SANDBOX_IMAGE
    assert cri["containerd"]["runtimes"]["runc"]["runtime_type"] == "io.containerd.runc.v2"


def test_rendered_json_files_parse() -> None:
    for file, text in node.config_files(rendering()).items():
        if file.endswith((".json", ".conflist", ".kubeconfig")):
            assert json.loads(text)


def test_the_catch_all_of_dns_does_not_shadow_the_clusters_names() -> None:
    cluster, _, rest = node.corefile(rendering()).partition("\n.:53")
    assert "kubernetes cluster.local" in cluster
    assert "template" not in cluster
    assert "template" in rest


def test_a_control_plane_alone_runs_no_node() -> None:
    specification = node.specification(rendering(control_plane_only=True))
    assert [process["name"] for process in specification["processes"]] == [*binaries.CONTROL_PLANE]
    assert "containerd.toml" not in node.config_files(rendering(control_plane_only=True))


def test_every_process_waits_for_markers_that_something_makes() -> None:
    specification = node.specification(rendering())
    made = {specification["network_marker"], specification["api_marker"]}
    made |= {"/clusters/demo/run/certificates", "/clusters/demo/run/rbac"}
    assert {marker for process in specification["processes"] for marker in process["after"]} <= made


def test_versions_reach_kubernetes_and_no_other_program() -> None:
    flags = binaries.linker_flags(binaries.TOOLS["kubelet"])
    assert "-X k8s.io/component-base/version.gitVersion=v1.34.4" in flags
    assert "-X k8s.io/component-base/version.gitMinor=34" in flags
    assert binaries.linker_flags(binaries.TOOLS["helm"]) == "-s -w"


def test_module_files_name_the_versions_that_are_built() -> None:
    for tool in binaries.TOOLS.values():
        if tool.module:
            text = (GO_MODULES / tool.module / "go.mod").read_text()
            assert tool.version in text
            assert tool.package in text
    kubernetes = (GO_MODULES / "kubernetes" / "go.mod").read_text()
    replaced = [line for line in kubernetes.splitlines() if line.startswith("\tk8s.io/") and " => " in line]
    assert len(replaced) == 31  # as many as upstream replaces with its staging directories


def test_the_sandbox_image_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    program = tmp_path / "busybox"
    program.write_bytes(b"program")
    for name in ("one", "two"):
        images.write_sandbox_archive(tmp_path / name, program)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with tarfile.open(tmp_path / "one") as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)[0]["RepoTags"] == [node.SANDBOX_IMAGE]


def test_names_of_imported_images_are_read_from_containerds_output() -> None:
    output = "unpacking localhost/a:1 (sha256:12)...done\nunpacking docker.io/library/b:2 (sha256:34)...done\n"
    assert images.imported_names(output) == ["localhost/a:1", "docker.io/library/b:2"]


def test_a_script_and_a_missing_file_are_not_static_programs(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert not is_static(script)
    assert not is_static(tmp_path / "nothing")


def test_cgroup_hierarchies_are_found_in_both_versions() -> None:
    mountinfo = (
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
        "40 31 0:37 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n"
    )
    assert cgroups.hierarchies(mountinfo) == [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/unified")]


def claim(**changes: object) -> dict[str, object]:
    annotations = {"volume.kubernetes.io/storage-provisioner": objects.PROVISIONER}
    metadata = {"name": "data", "namespace": "default", "uid": "u1", "annotations": annotations}
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "standard",
    } | changes
    return {"metadata": metadata, "spec": spec}


def test_a_pending_claim_gets_one_volume_named_after_it() -> None:
    volume = volumes.volume_for(claim(), "node-1", Path("/volumes"))
    assert volume is not None
    assert volume["metadata"]["name"] == "pvc-u1"
    assert volume["spec"]["local"]["path"] == "/volumes/pvc-u1"
    assert volume["spec"]["claimRef"]["uid"] == "u1"


def test_a_bound_claim_and_anothers_claim_get_none() -> None:
    assert volumes.volume_for(claim(volumeName="pvc-u1"), "node-1", Path("/volumes")) is None
    other = claim()
    other["metadata"]["annotations"] = {}  # type: ignore[index]
    assert volumes.volume_for(other, "node-1", Path("/volumes")) is None


def test_only_released_volumes_of_ours_are_deleted() -> None:
    volume = volumes.volume_for(claim(), "node-1", Path("/volumes"))
    assert volume is not None
    assert not volumes.to_delete(volume | {"status": {"phase": "Bound"}})
    assert volumes.to_delete(volume | {"status": {"phase": "Released"}})
    volume["metadata"]["annotations"] = {}
    assert not volumes.to_delete(volume | {"status": {"phase": "Released"}})
