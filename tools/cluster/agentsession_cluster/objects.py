"""Objects that every cluster starts with: roles, the cluster DNS service and the default StorageClass."""

from __future__ import annotations

from .api import Json
from .machine.addresses import Plan
from .machine.certs import ADMIN_GROUP

RBAC = "/apis/rbac.authorization.k8s.io/v1"
PROVISIONER = "agentsession.local/host-path"


def access() -> list[tuple[str, Json]]:
    """Who may do what, as (path, manifest): people, the API server at the kubelet, and our own processes."""
    return [
        _binding("agentsession:admins", "cluster-admin", "Group", ADMIN_GROUP),
        _binding("agentsession:kubelet-clients", "system:kubelet-api-admin", "Group", "agentsession:kubelet-clients"),
        _role(
            "system:coredns",
            [
                _rule([""], ["endpoints", "services", "pods", "namespaces"], ["list", "watch"]),
                _rule(["discovery.k8s.io"], ["endpointslices"], ["list", "watch"]),
            ],
        ),
        _binding("system:coredns", "system:coredns", "User", "system:coredns"),
        _role(
            "agentsession:volumes",
            [
                _rule([""], ["persistentvolumeclaims"], ["get", "list", "watch"]),
                _rule([""], ["persistentvolumes"], ["get", "list", "watch", "create", "delete"]),
            ],
        ),
        _binding("agentsession:volumes", "agentsession:volumes", "User", "agentsession:volumes"),
        _binding("agentsession:kwok", "cluster-admin", "User", "agentsession:kwok"),
    ]


def dns(plan: Plan) -> list[tuple[str, Json]]:
    """The kube-dns service. CoreDNS is a process of the node, so its endpoint is the node's address."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    return [
        (
            "/api/v1/namespaces/kube-system/services/kube-dns",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
                "spec": {"clusterIP": plan.dns_ip, "ports": ports},
            },
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-node",
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "kube-dns-node", "labels": {"kubernetes.io/service-name": "kube-dns"}},
                "addressType": "IPv6" if plan.ipv6 else "IPv4",
                "endpoints": [{"addresses": [plan.node_ip], "conditions": {"ready": True}}],
                "ports": ports,
            },
        ),
    ]


def storage_class() -> tuple[str, Json]:
    """The default class: a directory of the node for each claim."""
    return (
        "/apis/storage.k8s.io/v1/storageclasses/standard",
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",  # there is one node
        },
    )


def fake_node(index: int, pods: int, *, tainted: bool) -> Json:
    """A node that kwok plays. Beside a real node it is tainted, so that only pods which tolerate it land there."""
    name = f"fake-{index}"
    resources = {"cpu": "64", "memory": "256Gi", "pods": str(pods)}
    taint = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok"},
        },
        "spec": {"taints": [taint] if tainted else []},
        "status": {"allocatable": resources, "capacity": resources},
    }


def _role(name: str, rules: list[Json]) -> tuple[str, Json]:
    manifest = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }
    return f"{RBAC}/clusterroles/{name}", manifest


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Json:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def _binding(name: str, role: str, kind: str, subject: str) -> tuple[str, Json]:
    group = "rbac.authorization.k8s.io"
    manifest = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": kind, "name": subject}],
    }
    return f"{RBAC}/clusterrolebindings/{name}", manifest
