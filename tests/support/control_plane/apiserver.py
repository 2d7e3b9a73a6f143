"""A small API server in memory, as a transport: versions, compare-and-swap, deletion by UID. It answers at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from agentsession_operator.api.meta import CLASSES, QUOTAS, SESSIONS
from agentsession_operator.cluster.kube import ApiError, KubeApi

JSON = dict[str, Any]

COLLECTIONS: Final = frozenset({SESSIONS, CLASSES, QUOTAS, "pods"})
"""Paths that end in one of these are lists; no object of the tests has such a name."""


def not_found(path: str) -> ApiError:
    return ApiError(404, "NotFound", f"{path} not found")


def conflict(path: str) -> ApiError:
    return ApiError(409, "Conflict", f"{path} has been modified")


UNREACHABLE = ApiError(0, "Unreachable", "no answer")


class ApiServer:
    """A `Transport`. `calls` are the writes that it was sent, as (verb, path); a status has the path of its object."""

    def __init__(self) -> None:
        self.objects: dict[str, JSON] = {}
        self.calls: list[tuple[str, str]] = []
        self.version = 0
        self.answer: Callable[[str, str], None] = lambda _verb, _path: None
        """Called before every request; raises to refuse it."""
        self.lost_answers: set[tuple[str, str]] = set()
        """Writes that are carried out but not answered, once each."""

    @property
    def kube(self) -> KubeApi:
        """The calls of an operator that may write."""
        return KubeApi(self, may_write=lambda: None)

    # Behind the scenes.

    def put(self, path: str, body: Mapping[str, Any]) -> JSON:
        """Store an object as another client would: with a new version."""
        self.version += 1
        stored = copy.deepcopy(dict(body))
        stored["metadata"] = {**stored.get("metadata", {}), "resourceVersion": str(self.version)}
        stored["metadata"].setdefault("uid", f"uid-{self.version}")
        self.objects[path] = stored
        return copy.deepcopy(stored)

    def remove(self, path: str) -> None:
        self.version += 1
        del self.objects[path]

    # The transport.

    async def request(
        self,
        method: str,
        path: str,
        body: JSON | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float = 15.0,
    ) -> JSON:
        if method == "GET":
            self.answer("GET", path)
            return self._list(path) if path.rsplit("/", 1)[1] in COLLECTIONS else self._found(path)
        path = path.removesuffix("/status")
        self.answer(method, path)
        self.calls.append((method, path))
        answer = self._write(method, path, body or {})
        if (method, path) in self.lost_answers:
            self.lost_answers.discard((method, path))
            raise UNREACHABLE
        return answer

    def _write(self, method: str, path: str, body: JSON) -> JSON:
        match method:
            case "POST":
                at = f"{path}/{body['metadata']['name']}"
                if at in self.objects:
                    raise ApiError(409, "AlreadyExists", f"{at} already exists")
                return self.put(at, body)
            case "PUT":
                self._compare(path, body)
                return self.put(path, body)
            case "PATCH":
                current = self._compare(path, body)
                return self.put(path, {**current, "status": _merged(current.get("status"), body["status"])})
            case "DELETE":
                if self._found(path)["metadata"]["uid"] != body["preconditions"]["uid"]:
                    raise conflict(path)
                self.remove(path)
                return {}
        raise AssertionError(f"{method} is not known here")

    def _compare(self, path: str, body: JSON) -> JSON:
        """The stored object, if the request names its version."""
        current = self._found(path)
        if current["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise conflict(path)
        return current

    def _list(self, path: str) -> JSON:
        prefix, _, plural = path.rpartition("/")
        items = [
            copy.deepcopy(body)
            for at, body in self.objects.items()
            if at.startswith(f"{prefix}/") and at.split("/")[-2] == plural
        ]
        return {"metadata": {"resourceVersion": str(self.version)}, "items": items}

    def _found(self, path: str) -> JSON:
        if path not in self.objects:
            raise not_found(path)
        return copy.deepcopy(self.objects[path])


def _merged(target: object, patch: object) -> object:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result
