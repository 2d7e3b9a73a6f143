"""The API server, as the operator uses it: a few calls on JSON objects, each with a deadline.

Two layers: a `Transport` sends any request, and `KubeApi` asks its gate before every write. Only the lease uses the
transport directly, because it must be written before the gate can open.

`kubernetes.aio` provides configuration, authentication and connections. Its typed models are not used: they cost several
milliseconds of CPU per call, and the operator's own kinds have none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from agentsession_operator import metrics
from agentsession_operator.api.meta import API_VERSION
from agentsession_operator.cluster.landing import WRITE_SECONDS

JSON = dict[str, Any]

REQUEST_SECONDS: Final = 15.0
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
        """Whether a write may have been carried out anyway: no answer came, or the server failed halfway."""
        return self.code == 0 or self.code >= 500


class Transport(Protocol):
    """Sends one request. Its holder can write without the lease: only `Lease` and `KubeApi` get one."""

    async def request(
        self,
        method: str,
        path: str,
        body: JSON | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float = REQUEST_SECONDS,
    ) -> JSON:
        """The answer's JSON object. `timeout` is in seconds; a write always has WRITE_SECONDS. Raises ApiError."""
        ...


class Connection:
    """The transport to one API server, over HTTP."""

    def __init__(self, connection: client.ApiClient) -> None:
        self._client = connection

    @classmethod
    async def open(cls, kubeconfig: str | None) -> Connection:
        """Use the kubeconfig file if one is named, else the pod's service account.

        Raises config.ConfigException if neither exists.
        """
        settings = client.Configuration()
        if kubeconfig or "KUBERNETES_SERVICE_HOST" not in os.environ:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
        settings.connection_pool_maxsize = _CONNECTIONS
        return cls(client.ApiClient(settings))

    async def close(self) -> None:
        await self._client.close()

    async def request(
        self,
        method: str,
        path: str,
        body: JSON | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float = REQUEST_SECONDS,
    ) -> JSON:
        """See Transport."""
        # The token issuer's keys are served as application/jwk-set+json only.
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


class KubeApi:
    """Reads and gated writes. `may_write` is called before every write and raises if writing is not allowed."""

    def __init__(self, transport: Transport, may_write: Callable[[], None]) -> None:
        self._transport, self._may_write = transport, may_write

    # Reads.

    async def get(self, path: str) -> JSON:
        """Raises ApiError."""
        return await self._transport.request("GET", path)

    async def list_all(self, path: str, query: Mapping[str, str] | None = None) -> JSON:
        """A consistent list of all objects, read from etcd instead of the server's cache. Raises ApiError."""
        return await self._transport.request("GET", path, query=query, timeout=LIST_SECONDS)

    # Writes.

    async def create(self, path: str, body: JSON) -> JSON:
        """Raises ApiError, and what the gate raises."""
        self._may_write()
        return await self._transport.request("POST", path, body)

    async def patch_status(self, path: str, version: int, status: object) -> JSON:
        """Merge into the status of the object as of `version`; a later version is a conflict.

        Raises ApiError, and what the gate raises.
        """
        self._may_write()
        body = {"metadata": {"resourceVersion": str(version)}, "status": status}
        return await self._transport.request("PATCH", f"{path}/status", body, content_type="application/merge-patch+json")

    async def remove_finalizer(self, path: str, finalizer: str, *, uid: str) -> None:
        """Remove one finalizer from the object if it still has this UID; the others stay. One that is not there is no error.

        A patch of this list cannot overwrite another client's change, so it needs no resourceVersion and never has to be
        repeated because a kubelet wrote the status meanwhile (as in Kubernetes' own Job controller).

        Raises ApiError, and what the gate raises.
        """
        self._may_write()
        body = {"metadata": {"uid": uid, "$deleteFromPrimitiveList/finalizers": [finalizer]}}
        content_type = "application/strategic-merge-patch+json"
        await self._transport.request("PATCH", path, body, content_type=content_type)

    async def scale(self, path: str, replicas: int) -> JSON:
        """Set the number of replicas of a Deployment; its Scale, whose `status.selector` finds the pods.

        Raises ApiError, and what the gate raises.
        """
        self._may_write()
        body = {"spec": {"replicas": replicas}}
        return await self._transport.request("PATCH", f"{path}/scale", body, content_type="application/merge-patch+json")

    async def delete(self, path: str, *, uid: str) -> bool:
        """Delete the object if it still has this UID. False if it is gone already, which is no error.

        Raises ApiError, and what the gate raises.
        """
        self._may_write()
        try:
            await self._transport.request("DELETE", path, {"preconditions": {"uid": uid}})
        except ApiError as error:
            if not error.gone and not error.conflict:
                raise
            return False
        return True


def _parse(raw: bytes) -> JSON:
    try:
        return cast(JSON, json.loads(raw))
    except ValueError:
        return {"message": raw[:512].decode(errors="replace")}


def _resource(path: str) -> str:
    """The resource of a path, for metrics. Never an object's name: each would create a time series."""
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


def deployment_path(namespace: str, name: str) -> str:
    """Path of a Deployment."""
    return _path("/apis/apps/v1", "deployments", namespace, name)


def _path(prefix: str, plural: str, namespace: str, name: str) -> str:
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{prefix}{scope}/{plural}" + (f"/{name}" if name else "")
