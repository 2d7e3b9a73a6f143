"""A small API server in memory: versions, compare-and-swap, deletion by UID. It answers at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

from agentsession_operator.cluster.kube import ApiError, KubeApi

JSON = dict[str, Any]


def not_found(path: str) -> ApiError:
    return ApiError(404, "NotFound", f"{path} not found")


def conflict(path: str) -> ApiError:
    return ApiError(409, "Conflict", f"{path} has been modified")


UNREACHABLE = ApiError(0, "Unreachable", "no answer")


class ApiServer:
    """Speaks as `KubeApi` does. `calls` are the writes that it was sent, as (verb, path)."""

    def __init__(self) -> None:
        self.objects: dict[str, JSON] = {}
        self.calls: list[tuple[str, str]] = []
        self.version = 0
        self.may_write: Callable[[], None] = lambda: None
        self.answer: Callable[[str, str], None] = lambda _verb, _path: None
        """Asked before every call; raises to refuse it."""
        self.lost_answers: set[tuple[str, str]] = set()
        """Writes that are carried out and not answered, once each."""

    @property
    def kube(self) -> KubeApi:
        return cast(KubeApi, self)

    # Behind the scenes.

    def put(self, path: str, body: Mapping[str, Any]) -> JSON:
        """Store an object as somebody else would: with another version."""
        self.version += 1
        stored = copy.deepcopy(dict(body))
        stored["metadata"] = {**stored.get("metadata", {}), "resourceVersion": str(self.version)}
        stored["metadata"].setdefault("uid", f"uid-{self.version}")
        self.objects[path] = stored
        return copy.deepcopy(stored)

    def remove(self, path: str) -> None:
        self.version += 1
        del self.objects[path]

    # The calls.

    async def get(self, path: str, query: Mapping[str, str] | None = None, *, timeout: float = 15.0) -> JSON:
        self.answer("GET", path)
        return self._found(path)

    async def list_all(self, path: str, query: Mapping[str, str] | None = None) -> JSON:
        self.answer("LIST", path)
        prefix, _, plural = path.rpartition("/")
        items = [
            copy.deepcopy(body)
            for at, body in self.objects.items()
            if at.startswith(f"{prefix}/") and at.split("/")[-2] == plural
        ]
        return {"metadata": {"resourceVersion": str(self.version)}, "items": items}

    async def create(self, path: str, body: JSON) -> JSON:
        self.may_write()
        return await self.create_ungated(path, body)

    async def create_ungated(self, path: str, body: JSON) -> JSON:
        self._call("POST", path)
        at = f"{path}/{body['metadata']['name']}"
        if at in self.objects:
            raise ApiError(409, "AlreadyExists", f"{at} already exists")
        return self._done("POST", path, self.put(at, body))

    async def replace(self, path: str, body: JSON) -> JSON:
        self._call("PUT", path)
        if self._found(path)["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise conflict(path)
        return self._done("PUT", path, self.put(path, body))

    async def patch_status(self, path: str, version: int, status: object) -> JSON:
        self.may_write()
        self._call("PATCH", path)
        current = self._found(path)
        if current["metadata"]["resourceVersion"] != str(version):
            raise conflict(path)
        return self._done("PATCH", path, self.put(path, {**current, "status": _merged(current.get("status"), status)}))

    async def delete(self, path: str, *, uid: str) -> None:
        self.may_write()
        self._call("DELETE", path)
        if path in self.objects and self.objects[path]["metadata"]["uid"] == uid:
            self.remove(path)
        self._done("DELETE", path, {})

    async def close(self) -> None:
        pass

    def _call(self, verb: str, path: str) -> None:
        self.answer(verb, path)
        self.calls.append((verb, path))

    def _done(self, verb: str, path: str, answer: JSON) -> JSON:
        if (verb, path) in self.lost_answers:
            self.lost_answers.discard((verb, path))
            raise UNREACHABLE
        return answer

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
