"""What process 1 of a cluster is told: the namespaces' set-up and every process with its command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentsession_cluster.state import Layout

from . import cgroups
from .addresses import Plan

# Directories that the kubelet and libcni have compiled in; each cluster sees its own there.
PRIVATE_DIRECTORIES = ("/var/lib/kubelet", "/var/lib/cni", "/var/log")
SANDBOX_IMAGE = "localhost/agentsession-pause:1"
INTERFACE = "eth0"


@dataclass(frozen=True)
class Node:
    """Everything the rendering needs."""

    name: str
    plan: Plan
    layout: Layout
    binaries: dict[str, Path]
    control_plane_only: bool
    snapshotter: str = "overlayfs"

    @property
    def node_name(self) -> str:
        return f"{self.name}-control-plane"

    def marker(self, name: str) -> str:
        return str(self.layout.run / name)

    def kubeconfig(self, user: str) -> str:
        return str(self.layout.config / f"{user}.kubeconfig")


def specification(node: Node) -> dict[str, Any]:
    """The specification that `node_init` reads."""
    layout, plan = node.layout, node.plan
    return {
        "setup": setup_commands(node),
        "network": {
            "interface": INTERFACE,
            "address": f"{plan.node_ip}/{plan.prefix_length}",
            "gateway": plan.host_ip,
            "family": plan.family,
        },
        "started_marker": node.marker("started"),
        "network_marker": node.marker("network"),
        "api_marker": node.marker("api"),
        "api": f"{plan.server}/readyz",
        "authority": str(layout.certificates / "ca.crt"),
        "extra": str(layout.extra),
        "logs": str(layout.logs),
        "report": str(layout.processes),
        "environment": {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
        "processes": processes(node),
    }


def setup_commands(node: Node) -> list[list[str]]:
    """Mounts inside the cluster's own mount namespace; none is seen outside it."""
    # Shared below us, so that containers may ask for mount propagation.
    commands = [["mount", "--make-rshared", "/"]]
    if node.control_plane_only:
        return commands
    # /run has containerd's state and shims' sockets, pods' network namespaces and iptables' lock.
    commands.append(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])
    sources = (str(private_directory(node.layout, path)) for path in PRIVATE_DIRECTORIES)
    commands.extend(["mount", "--bind", source, path] for source, path in zip(sources, PRIVATE_DIRECTORIES, strict=True))
    return commands


def private_directory(layout: Layout, path: str) -> Path:
    """Where a cluster keeps what it sees at one of PRIVATE_DIRECTORIES."""
    return layout.directory / "node" / path.strip("/").replace("/", "-")


def processes(node: Node) -> list[dict[str, Any]]:
    """Every process, with the marker files it waits for."""
    network, certificates, api = node.marker("network"), node.marker("certificates"), node.marker("api")
    result = [
        {"name": "etcd", "argv": etcd(node), "after": [network]},
        {"name": "kube-apiserver", "argv": apiserver(node), "after": [network, certificates]},
        {"name": "kube-controller-manager", "argv": controller_manager(node), "after": [api]},
        {"name": "kube-scheduler", "argv": scheduler(node), "after": [api]},
    ]
    if not node.control_plane_only:
        result += [
            {"name": "containerd", "argv": containerd(node), "after": [network]},
            {"name": "kubelet", "argv": kubelet(node), "after": [api]},
            {"name": "kube-proxy", "argv": kube_proxy(node), "after": [api]},
            {"name": "coredns", "argv": coredns(node), "after": [node.marker("rbac")]},
            {"name": "volumes", "argv": volumes(node), "after": [node.marker("rbac")]},
        ]
    return result


def etcd(node: Node) -> list[str]:
    """Plain HTTP: this loopback interface is the cluster's own, and neither pods nor the host reach it."""
    return [
        str(node.binaries["etcd"]),
        f"--name={node.node_name}",
        f"--data-dir={node.layout.directory / 'etcd'}",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        f"--initial-cluster={node.node_name}=http://127.0.0.1:2380",
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
    ]


def apiserver(node: Node) -> list[str]:
    """The API server; its flags are those that kubeadm would set, less what one node does not need."""
    pki, plan = node.layout.certificates, node.plan
    return [
        str(node.binaries["kube-apiserver"]),
        f"--advertise-address={plan.node_ip}",
        f"--bind-address={plan.listening}",
        f"--secure-port={plan.api_port}",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--service-cluster-ip-range={plan.service_cidr}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",  # nothing resolves the node's name
        f"--service-account-key-file={pki / 'service-account.key'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def controller_manager(node: Node) -> list[str]:
    pki = node.layout.certificates
    return [
        str(node.binaries["kube-controller-manager"]),
        f"--kubeconfig={node.kubeconfig('controller-manager')}",
        f"--authentication-kubeconfig={node.kubeconfig('controller-manager')}",
        f"--authorization-kubeconfig={node.kubeconfig('controller-manager')}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        # The default of 20 requests a second hides everything else when hundreds of pods go at once.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def scheduler(node: Node) -> list[str]:
    kubeconfig = node.kubeconfig("scheduler")
    return [
        str(node.binaries["kube-scheduler"]),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--kube-api-qps=500",  # the default of 50 is the limit of every burst otherwise
        "--kube-api-burst=1000",
    ]


def containerd(node: Node) -> list[str]:
    return ["containerd", f"--config={node.layout.config / 'containerd.toml'}"]


def kubelet(node: Node) -> list[str]:
    return [
        str(node.binaries["kubelet"]),
        f"--config={node.layout.config / 'kubelet.json'}",
        f"--kubeconfig={node.kubeconfig('kubelet-client')}",
        f"--hostname-override={node.node_name}",
        f"--node-ip={node.plan.node_ip}",
    ]


def kube_proxy(node: Node) -> list[str]:
    return [
        str(node.binaries["kube-proxy"]),
        f"--kubeconfig={node.kubeconfig('proxy')}",
        "--proxy-mode=iptables",
        f"--hostname-override={node.node_name}",
        f"--cluster-cidr={node.plan.pod_cidr}",
        f"--bind-address={node.plan.listening}",  # decides the family of its rules
        # Connection tracking's limits belong to the machine; a network namespace may not set them.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def coredns(node: Node) -> list[str]:
    return [str(node.binaries["coredns"]), "-conf", str(node.layout.config / "Corefile")]


def volumes(node: Node) -> list[str]:
    """Our provisioner, run by the Python and the entry point that created the cluster."""
    return [
        *(str(node.binaries["python3"]), "-I", str(node.binaries["kind"]), "_volumes"),
        *("--host", node.plan.node_ip, "--port", str(node.plan.api_port)),
        *("--certificates", str(node.layout.certificates), "--node", node.node_name),
        *("--directory", str(node.layout.directory / "volumes")),
    ]


def kwok(node: Node, binary: Path) -> list[str]:
    """kwok for the nodes that carry its annotation; it leaves a real node alone."""
    return [
        str(binary),
        f"--kubeconfig={node.kubeconfig('kwok')}",
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--node-ip=127.0.0.1",
        "--cidr=10.0.0.0/12",
        "--node-lease-duration-seconds=200",
    ]


def config_files(node: Node) -> dict[str, str]:
    """Configuration files by their name below the cluster's config directory."""
    files = {
        f"{user}.kubeconfig": kubeconfig_of(node, user)
        for user in ("controller-manager", "scheduler", "kubelet-client", "proxy", "coredns", "kwok")
    }
    if not node.control_plane_only:
        files |= {
            "containerd.toml": containerd_config(node),
            "kubelet.json": json.dumps(kubelet_config(node), indent=1),
            "cni/10-pods.conflist": json.dumps(cni_config(node), indent=1),
            "Corefile": corefile(node),
            "resolv.conf": f"nameserver {node.plan.dns_ip}\n",
        }
    return files


def kubeconfig_of(node: Node, user: str) -> str:
    """A component's kubeconfig; JSON is YAML. Certificates are named, not held."""
    pki = node.layout.certificates
    credentials = {"client-certificate": str(pki / f"{user}.crt"), "client-key": str(pki / f"{user}.key")}
    server = {"server": node.plan.server, "certificate-authority": str(pki / "ca.crt")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": credentials}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    return json.dumps(config, indent=1)


def kubelet_config(node: Node) -> dict[str, Any]:
    pki = node.layout.certificates
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.plan.listening,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{node.layout.containerd_socket}",
        "clusterDomain": "cluster.local",
        "clusterDNS": [node.plan.dns_ip],
        "resolvConf": str(node.layout.config / "resolv.conf"),
        "podCIDR": node.plan.pod_cidr,
        "maxPods": 250,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups.path_of(node.name),
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "imageGCHighThresholdPercent": 100,  # images cannot be pulled again
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi"},  # a full disk is the machine's trouble, not a pod's
        "featureGates": {"KubeletInUserNamespace": True},  # works without CAP_SYS_RESOURCE
    }


def containerd_config(node: Node) -> str:
    """containerd's configuration; quoted by JSON, whose strings are TOML's basic strings."""
    quoted = json.dumps
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    disabled = ["internal.v1.opt", *(f"snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs"))]
    return f"""version = 2
root = {quoted(str(node.layout.directory / "containerd"))}
state = "/run/containerd"
disabled_plugins = {quoted([f"io.containerd.{plugin}" for plugin in disabled])}
[grpc]
  address = {quoted(str(node.layout.containerd_socket))}
[{cri}]
  sandbox_image = {quoted(SANDBOX_IMAGE)}
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [{cri}.cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = {quoted(str(node.layout.config / "cni"))}
  [{cri}.containerd]
    snapshotter = {quoted(node.snapshotter)}
    default_runtime_name = "runc"
    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def cni_config(node: Node) -> dict[str, Any]:
    """Point-to-point links rather than a bridge: every packet passes the node's routing and connection tracking,
    so that services work between pods without br_netfilter."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": [[{"subnet": node.plan.pod_cidr}]],
        "routes": [{"dst": node.plan.everywhere}],
    }
    link = {"type": "ptp", "ipMasq": False, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [link, ports]}


def corefile(node: Node) -> str:
    """There is no upstream: every other name does not exist, at once rather than after a time-out.

    In a server block of its own, because within one `template` is asked before `kubernetes`.
    """
    return f"""cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {node.plan.node_ip}
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {node.kubeconfig("coredns")}
        pods insecure
        ttl 5
    }}
}}
.:53 {{
    bind {node.plan.node_ip}
    errors
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""
