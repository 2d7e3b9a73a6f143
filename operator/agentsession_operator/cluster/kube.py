"""The API server, as the operator uses it: a few calls on JSON objects, each with a deadline, each write behind the lease.

`kubernetes.aio` gives configuration, authentication and connections. Its typed models are left out on purpose: they cost
several milliseconds of CPU a call, and the operator's own kinds have none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from agentsession_operator import metrics
from agentsession_operator.api.meta import API_VERSION

JSON = dict[str, Any]

REQUEST_SECONDS: Final = 15.0
WRITE_SECONDS: Final = 5.0
"""Deadline of a write, here and at the server: within the lease's margin, so that none lands after the lease has run out."""
LIST_SECONDS: Final = 60.0
_CONNECTIONS: Final = 32
_USER_AGENT: Final = "agentsession-operator"


class ApiError(Exception):
    """The API server refused a request, or could not be reached (`code` 0)."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}" if code else message)
        self.code, self.reason, self.message = code, reason, message

    @property
    def conflict(self) -> bool:
        return self.code == 409 and self.reason == "Conflict"

    @property
    def already_exists(self) -> bool:
        return self.code == 409 and self.reason == "AlreadyExists"

    @property
    def gone(self) -> bool:
        return self.code == 404

    @property
    def outcome_unknown(self) -> bool:
        """Whether a write may have been carried out all the same: no answer came, or the server failed half way."""
        return self.code == 0 or self.code >= 500


class KubeApi:
    """A connection to one API server. `may_write` is asked before every write, and raises where it may not."""

    def __init__(self, connection: client.ApiClient, may_write: Callable[[], None]) -> None:
        self._client, self.may_write = connection, may_write

    @classmethod
    async def connect(cls, kubeconfig: str | None) -> KubeApi:
        """Use a kubeconfig file where one is named, else the pod's service account.

        Raises config.ConfigException where neither is there.
        """
        settings = client.Configuration()
        if kubeconfig or "KUBERNETES_SERVICE_HOST" not in os.environ:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
        settings.connection_pool_maxsize = _CONNECTIONS
        return cls(client.ApiClient(settings), lambda: None)

    async def close(self) -> None:
        await self._client.close()

    # Reads.

    async def get(self, path: str, query: Mapping[str, str] | None = None, *, timeout: float = REQUEST_SECONDS) -> JSON:
        """Raises ApiError."""
        return await self._call("GET", path, query=query, timeout=timeout)

    async def list_all(self, path: str, query: Mapping[str, str] | None = None) -> JSON:
        """A consistent list of everything, read from etcd and not from a cache of the server's."""
        return await self.get(path, query, timeout=LIST_SECONDS)

    # Writes.

    async def create(self, path: str, body: JSON) -> JSON:
        """Raises ApiError."""
        self.may_write()
        return await self._call("POST", path, body)

    async def patch_status(self, path: str, version: int, status: object) -> JSON:
        """Merge into the status of the object as it was at `version`; a later version is a conflict. Raises ApiError."""
        self.may_write()
        body = {"metadata": {"resourceVersion": str(version)}, "status": status}
        return await self._call("PATCH", f"{path}/status", body, content_type="application/merge-patch+json")

    async def replace(self, path: str, body: JSON) -> JSON:
        """Raises ApiError. Not behind the lease: it is how the lease is kept."""
        return await self._call("PUT", path, body)

    async def create_ungated(self, path: str, body: JSON) -> JSON:
        """Raises ApiError. For the lease itself, and what must be there before it."""
        return await self._call("POST", path, body)

    async def delete(self, path: str, *, uid: str) -> None:
        """Delete the object if it is still the one with this UID. One that is gone is fine. Raises ApiError."""
        self.may_write()
        try:
            await self._call("DELETE", path, {"preconditions": {"uid": uid}})
        except ApiError as error:
            if not error.gone and not error.conflict:
                raise

    async def _call(
        self,
        method: str,
        path: str,
        body: JSON | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float = REQUEST_SECONDS,
    ) -> JSON:
        # The token issuer's keys are served as application/jwk-set+json and as nothing else.
        headers = {"Content-Type": content_type, "Accept": "application/json, */*;q=0.1", "User-Agent": _USER_AGENT}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        if method != "GET":
            query, timeout = {**(query or {}), "timeout": f"{WRITE_SECONDS:.0f}s"}, WRITE_SECONDS
        url = self._client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            response = await self._client.call_api(method, url, headers, body, _request_timeout=timeout)
            raw, status = await response.read(), response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            metrics.API_REQUESTS.labels(method, _resource(path), "0").inc()
            raise ApiError(0, "Unreachable", f"{type(error).__name__}: {error}") from error
        metrics.API_REQUESTS.labels(method, _resource(path), str(status)).inc()
        answer = _parse(raw)
        if status >= 400:
            raise ApiError(status, str(answer.get("reason", "")), str(answer.get("message", raw[:512])))
        return answer


def _parse(raw: bytes) -> JSON:
    try:
        return cast(JSON, json.loads(raw))
    except ValueError:
        return {"message": raw[:512].decode(errors="replace")}


def _resource(path: str) -> str:
    """The resource of a path, for metrics: never a name, which would make a time series for each object."""
    parts = path.strip("/").split("/")
    start = 2 if parts[0] == "api" else 3
    if len(parts) > start + 1 and parts[start] == "namespaces":
        start += 2
    resource = parts[start] if len(parts) > start else "other"
    return f"{resource}/status" if parts[-1] == "status" and len(parts) > start + 2 else resource


def path_of(plural: str, namespace: str = "", name: str = "") -> str:
    """Path of an object, or of a collection, of one of the operator's own kinds."""
    return _path(f"/apis/{API_VERSION}", plural, namespace, name)


def core_path(plural: str, namespace: str = "", name: str = "") -> str:
    """Path of an object, or of a collection, of the core API group."""
    return _path("/api/v1", plural, namespace, name)


def lease_path(namespace: str, name: str = "") -> str:
    """Path of a Lease, or of the collection."""
    return _path("/apis/coordination.k8s.io/v1", "leases", namespace, name)


def _path(prefix: str, plural: str, namespace: str, name: str) -> str:
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{prefix}{scope}/{plural}" + (f"/{name}" if name else "")
