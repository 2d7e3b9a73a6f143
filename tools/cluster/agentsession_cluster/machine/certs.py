"""Certificates and keys, made with the openssl command (on every Debian; Python's standard library has no X.509)."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from agentsession_cluster.errors import ClusterError

from .addresses import Plan

DAYS = 3650
ADMIN_GROUP = "agentsession:admins"  # not system:masters, which bypasses RBAC and priority and fairness


@dataclass(frozen=True)
class Certificate:
    """One leaf certificate: file stem, common name, organization (Kubernetes' group) and names if it serves."""

    stem: str
    common_name: str
    organization: str = ""
    names: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        # A slash separates openssl's fields; our names have colons only.
        return (f"/O={self.organization}" if self.organization else "") + f"/CN={self.common_name}"


def wanted(plan: Plan, node_name: str) -> list[Certificate]:
    """The certificates of one cluster."""
    service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    api_names = (
        *(f"DNS:{name}" for name in (*service, "localhost", node_name)),
        *(f"IP:{ip}" for ip in (plan.node_ip, plan.api_service_ip, "127.0.0.1")),
    )
    return [
        Certificate("apiserver", "kube-apiserver", names=api_names),
        Certificate("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "agentsession:kubelet-clients"),
        Certificate("bootstrap", "agentsession-bootstrap", "system:masters"),  # binds the groups below, once
        Certificate("admin", "agentsession-admin", ADMIN_GROUP),
        Certificate("kubelet-client", f"system:node:{node_name}", "system:nodes"),
        Certificate("kubelet-server", node_name, names=(f"DNS:{node_name}", f"IP:{plan.node_ip}")),
        Certificate("controller-manager", "system:kube-controller-manager"),
        Certificate("scheduler", "system:kube-scheduler"),
        Certificate("proxy", "system:kube-proxy"),
        Certificate("coredns", "system:coredns"),
        Certificate("volumes", "agentsession:volumes"),
        Certificate("kwok", "agentsession:kwok"),
    ]


def make_all(directory: Path, certificates: list[Certificate]) -> None:
    """Makes the authority, the service-account key and every certificate in `directory` (about 0.3 s)."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=4) as pool:
        key = pool.submit(_openssl, "genrsa", "-out", str(directory / "service-account.key"), "2048")
        _openssl(
            *("req", "-x509", *_new_key(directory / "ca.key"), "-out", str(directory / "ca.crt"), "-days", str(DAYS)),
            *("-subj", "/CN=agentsession-cluster-ca", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
        )
        list(pool.map(lambda certificate: _sign(directory, certificate), certificates))
        key.result()


def _sign(directory: Path, certificate: Certificate) -> None:
    usage = "serverAuth" if certificate.names else "clientAuth"
    extensions = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"extendedKeyUsage={usage}"]
    if certificate.names:
        extensions += ["-addext", "subjectAltName=" + ",".join(certificate.names)]
    stem = directory / certificate.stem
    _openssl(
        *("req", "-x509", "-CA", str(directory / "ca.crt"), "-CAkey", str(directory / "ca.key")),
        *(*_new_key(stem.with_name(stem.name + ".key")), "-out", f"{stem}.crt", "-days", str(DAYS)),
        *("-subj", certificate.subject, *extensions),
    )


def _new_key(path: Path) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path))


def _openssl(*arguments: str) -> None:
    result = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=60, umask=0o077)
    if result.returncode:
        raise ClusterError(
            f"openssl {arguments[0]} failed: {result.stderr.strip()}",
            "Version 3 is needed: `openssl version`, `apt-get install openssl`.",
        )
