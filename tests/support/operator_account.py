"""The service accounts of an installation: kubeconfig files with their tokens, and pods as only the operator may write them."""

from __future__ import annotations

from pathlib import Path

import yaml

from support.api import JSON, Api
from support.operator_process import NAMESPACE
from support.waiting import eventually


def account_kubeconfig(api: Api, name: str, path: Path) -> Path:
    """A kubeconfig of a service account in the operator's namespace, written to `path`."""
    account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    token = eventually(lambda: str(api.create(account, request)["status"]["token"]), what=f"a token for {name}")
    config = yaml.safe_load(api.kubeconfig.read_text())
    config["users"] = [{"name": name, "user": {"token": token}}]
    for context in config["contexts"]:
        context["context"]["user"] = name
    path.write_text(yaml.safe_dump(config))
    return path


def as_account(api: Api, name: str = "agentsession-operator") -> Api:
    """The API server as a service account of the operator's namespace sees it: its rights, and what policies let it do."""
    return api.impersonating(f"system:serviceaccount:{NAMESPACE}:{name}")


def marked_pod(name: str, *finalizers: str) -> JSON:
    """A pod with what the operator puts on a session's pod. No scheduler takes it, so it goes as soon as it is deleted."""
    return {
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/name": "agentsession", "agentsession.dev/session-uid": f"uid-of-{name}"},
            "annotations": {"agentsession.dev/session": name, "agentsession.dev/user": "alice"},
            "finalizers": ["agentsession.dev/session", *finalizers],
        },
        "spec": plain_spec(),
    }


def plain_spec() -> JSON:
    """A pod that nothing schedules; the restricted Pod Security Standard admits it."""
    container = {
        "name": "agent",
        "image": "agent",
        "resources": {"requests": {"cpu": "10m"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {"schedulerName": "nobody", "securityContext": context, "containers": [container]}
