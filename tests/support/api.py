"""A small client of the API server for tests: JSON in, JSON out, errors as the server words them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import urllib3
from kubernetes import config

JSON = dict[str, Any]
GROUP = "/apis/agentsession.dev/v1alpha1"


class Refused(Exception):
    """The API server's refusal."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message


class Api:
    """Talks to one API server as the user of a kubeconfig file."""

    def __init__(self, kubeconfig: Path, headers: dict[str, str] | None = None) -> None:
        self.kubeconfig = kubeconfig
        self._client = config.new_client_from_config(str(kubeconfig))
        self._headers = headers or {}

    def impersonating(self, user: str, *groups: str) -> Api:
        """The same, as somebody else (in no group but the given and system:authenticated)."""
        other = Api(self.kubeconfig)
        other._headers = {"Impersonate-User": user, "Impersonate-Group": ",".join(groups) or "system:authenticated"}
        return other

    def call(self, method: str, path: str, body: object = None, content_type: str = "application/json", **query: str) -> Any:
        """The parsed answer (text where it is not JSON). Raises Refused."""
        url = self._client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Content-Type": content_type, "Accept": "application/json, */*", **self._headers}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        try:
            answer = self._client.rest_client.pool_manager.request(
                method, url, body=None if body is None else json.dumps(body), headers=headers, timeout=30.0, retries=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise Refused(0, "Unreachable", str(error)) from error
        text = answer.data.decode()
        try:
            parsed: Any = json.loads(text)
        except ValueError:
            parsed = text
        if answer.status >= 400:
            reason = parsed.get("reason", "") if isinstance(parsed, dict) else ""
            message = parsed.get("message", text) if isinstance(parsed, dict) else text
            raise Refused(answer.status, reason, message)
        return parsed

    def stream(self, path: str, **query: str) -> Iterator[bytes]:
        """The lines of an answer that comes bit by bit, as a watch does."""
        headers = {"Accept": "application/json", **self._headers}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        url = f"{self._client.configuration.host}{path}?{urlencode(query)}"
        yield from self._client.rest_client.pool_manager.request(
            "GET", url, headers=headers, preload_content=False, retries=False
        )

    def get(self, path: str, **query: str) -> JSON:
        return cast(JSON, self.call("GET", path, **query))

    def create(self, path: str, body: JSON) -> JSON:
        return cast(JSON, self.call("POST", path, body))

    def patch(self, path: str, body: JSON) -> JSON:
        return cast(JSON, self.call("PATCH", path, body, "application/merge-patch+json"))

    def delete(self, path: str, *, grace: int | None = None) -> None:
        """Delete; what is not there is fine."""
        try:
            self.call("DELETE", path, {} if grace is None else {"gracePeriodSeconds": grace})
        except Refused as refused:
            if refused.code != 404:
                raise

    def apply(self, body: JSON, path: str) -> JSON:
        """Server-side apply."""
        return cast(
            JSON,
            self.call("PATCH", path, body, "application/apply-patch+yaml", fieldManager="tests", force="true"),
        )


def session(name: str, *, user: str = "alice", **spec: Any) -> JSON:
    """An AgentSession; fields of its spec as keywords."""
    return {
        "apiVersion": "agentsession.dev/v1alpha1",
        "kind": "AgentSession",
        "metadata": {"name": name},
        "spec": {"user": user, "mode": "Task", "prompt": "Say hello.", **spec},
    }


def sessions_path(namespace: str, name: str = "") -> str:
    return f"{GROUP}/namespaces/{namespace}/agentsessions" + (f"/{name}" if name else "")


def pods_path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/pods" + (f"/{name}" if name else "")


def pod_ended(pod: JSON) -> bool:
    """Whether a pod runs nothing more: it has ended, or it was deleted with no grace and only finalizers keep its object."""
    meta, phase = pod["metadata"], (pod.get("status") or {}).get("phase")
    forced = "deletionTimestamp" in meta and meta.get("deletionGracePeriodSeconds") == 0
    return phase in ("Succeeded", "Failed") or forced


def condition(body: JSON, kind: str) -> JSON:
    """A condition of an object; an empty one where it is not there."""
    conditions = body.get("status", {}).get("conditions", [])
    return next((cast(JSON, item) for item in conditions if item["type"] == kind), {})
