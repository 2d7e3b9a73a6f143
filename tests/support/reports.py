"""Reports of session pods, sent to an operator process as a pod would send them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from support.api import JSON, Api
from support.operator_process import OperatorProcess


def token_for(api: Api, namespace: str, pod: JSON, audience: str = "agentsession.dev") -> str:
    """A token as the kubelet projects it into the pod."""
    bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    spec = {"audiences": [audience], "boundObjectRef": bound, "expirationSeconds": 3600}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return str(api.create(path, body)["status"]["token"])


def send(operator: OperatorProcess, body: JSON, token: str | None, report: JSON) -> int:
    """The HTTP status of the answer."""
    meta = body["metadata"]
    url = f"{operator.url}/v1/sessions/{meta['namespace']}/{meta['name']}/report"
    request = urllib.request.Request(url, json.dumps(report).encode(), {"Content-Type": "application/json"}, method="PUT")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def report_of(body: JSON, sequence: int, **fields: object) -> JSON:
    """A report of a session that works, unless `fields` say otherwise."""
    return {"session_uid": body["metadata"]["uid"], "sequence": sequence, "activity": "Processing", **fields}
