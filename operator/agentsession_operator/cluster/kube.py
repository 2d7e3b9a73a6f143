"""The API server, as the operator uses it: a few calls on JSON objects, each with a deadline.

Two layers: a `Transport` sends any request, and `KubeApi` asks its gate before every write. Only the lease uses the
transport directly, because it must be written before the gate can open.

`kubernetes.aio` provides configuration, authentication and connections. Its typed models are not used: they cost several
milliseconds of CPU per call, and the operator's own kinds have none.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
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
PAGE: Final = 500
"""Objects in one page of a list."""
_CONNECTIONS: Final = 32
_USER_AGENT: Final = "agentsession-operator"


class ApiError(Exception):
    """The API server refused a request, or could not be reached (`code` 0)."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        """`retry_after` is in seconds: what the server asked for, or 0."""
        super().__init__(f"{code} {reason}: {message}" if code else message)
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after

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
            words = answer or {"message": raw[:512].decode(errors="replace")}
            asked = _seconds(response.headers.get("Retry-After"))
            raise ApiError(status, str(words.get("reason", "")), str(words.get("message", "")), asked)
        if answer is None:
            # A proxy's page, or half an answer: whether a write was carried out, nobody knows.
            raise ApiError(0, "Unreadable", f"the answer to {method} {path} is no JSON object: {raw[:128]!r}")
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

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[JSON]:
        """A consistent list of all objects, PAGE at a time, so that it is never in memory whole. Raises ApiError, a 410 among
        them if it takes longer than the server keeps its old revisions (five minutes)."""
        position = ""
        while True:
            page = await self.list_all(path, {**query, "limit": str(PAGE), **({"continue": position} if position else {})})
            yield page
            position = page["metadata"].get("continue", "")
            if not position:
                return

    # Writes.

    async def create(self, path: str, body: JSON) -> JSON:
        """The created object. Raises ApiError, and what the gate raises."""
        self._may_write()
        return _object(await self._transport.request("POST", path, body))

    async def patch_status(self, path: str, uid: str, version: int, status: object) -> JSON:
        """Merge into the status of the object with this UID as of `version`; another UID or a later version is a conflict.

        Raises ApiError, and what the gate raises.
        """
        meta = {"uid": uid, "resourceVersion": str(version)}
        return await self._patch(f"{path}/status", {"metadata": meta, "status": status}, "application/merge-patch+json")

    async def remove_finalizer(self, path: str, finalizer: str, *, uid: str) -> JSON:
        """Remove one finalizer from the pod if it still has this UID; the others stay. One that is not there is no error.

        A patch of this list cannot overwrite another client's change, so it needs no resourceVersion and never has to be
        repeated because a kubelet wrote the status meanwhile (as in Kubernetes' own Job controller).

        Raises ApiError, and what the gate raises.
        """
        return await self.patch_pod_metadata(path, uid, {"$deleteFromPrimitiveList/finalizers": [finalizer]})

    async def scale(self, path: str, replicas: int) -> JSON:
        """Set the number of replicas of a Deployment; its Scale, whose `status.selector` finds the pods.

        Raises ApiError, and what the gate raises.
        """
        self._may_write()
        body = {"spec": {"replicas": replicas}}
        return await self._transport.request("PATCH", f"{path}/scale", body, content_type="application/merge-patch+json")

    async def patch_pod_metadata(self, path: str, uid: str, metadata: JSON) -> JSON:
        """Merge into the metadata of the pod with this UID; another UID is a conflict.

        A strategic merge patch: finalizers are added and removed one by one (`$deleteFromPrimitiveList`), even if others change
        the list at the same time. Raises ApiError, and what the gate raises.
        """
        return await self._patch(path, {"metadata": {**metadata, "uid": uid}}, "application/strategic-merge-patch+json")

    async def delete(self, path: str, *, uid: str, grace_seconds: int | None = None) -> JSON | None:
        """Delete the object if it still has this UID. None if it is gone already, which is no error.

        The answer is the object as it is being deleted, or a Status where it is gone at once. `grace_seconds` is a pod's grace
        period for this deletion, regardless of its spec. Raises ApiError, and what the gate raises.
        """
        self._may_write()
        options: JSON = {"preconditions": {"uid": uid}}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            return await self._transport.request("DELETE", path, options)
        except ApiError as error:
            if not error.gone and not error.conflict:
                raise
            return None

    async def _patch(self, path: str, body: JSON, content_type: str) -> JSON:
        self._may_write()
        return _object(await self._transport.request("PATCH", path, body, content_type=content_type))


def _parse(raw: bytes) -> JSON | None:
    """The JSON object in an answer, or None."""
    try:
        answer = json.loads(raw)
    except ValueError:
        return None
    return cast(JSON, answer) if isinstance(answer, dict) else None


def _seconds(header: str | None) -> float:
    """A Retry-After header in seconds; the API server writes no dates."""
    return float(header) if header is not None and header.isdecimal() else 0.0


def _object(answer: JSON) -> JSON:
    """The answer to a write, which must be the object: else nobody knows whether it was written."""
    meta = answer.get("metadata")
    if not isinstance(meta, dict) or not all(isinstance(meta.get(key), str) for key in ("uid", "resourceVersion", "name")):
        raise ApiError(0, "Unreadable", "the answer to a write is not the object")
    return answer


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
