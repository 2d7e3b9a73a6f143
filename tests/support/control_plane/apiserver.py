"""A small API server in memory, as a transport: versions, compare-and-swap, deletion by UID. It answers at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from agentsession_operator.api.meta import CLASSES, QUOTAS, SESSIONS
from agentsession_operator.cluster.kube import ApiError, KubeApi

JSON = dict[str, Any]

COLLECTIONS: Final = frozenset({SESSIONS, CLASSES, QUOTAS, "namespaces", "pods"})
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
            return self._list(path, query or {}) if path.rsplit("/", 1)[1] in COLLECTIONS else self._found(path)
        path = path.removesuffix("/status").removesuffix("/scale")
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
            case "PATCH" if "replicas" in body.get("spec", {}):
                return self._scaled(path, body["spec"]["replicas"])
            case "PATCH" if "status" in body:
                current = self._compare(path, body)
                return self.put(path, {**current, "status": merged(current.get("status"), body["status"])})
            case "PATCH":
                return self._patch_metadata(path, body["metadata"])
            case "DELETE":
                return self._delete(path, body)
        raise AssertionError(f"{method} is not known here")

    def _patch_metadata(self, path: str, patch: JSON) -> JSON:
        """A strategic merge patch of a pod's metadata, as far as the operator uses it."""
        current = self._found(path)
        if patch["uid"] != current["metadata"]["uid"]:
            raise conflict(path)
        finalizers = [*current["metadata"].get("finalizers", ()), *patch.get("finalizers", ())]
        dropped = patch.get("$deleteFromPrimitiveList/finalizers", ())
        kept = [name for name in dict.fromkeys(finalizers) if name not in dropped]
        rest = {key: value for key, value in patch.items() if "finalizers" not in key}
        after = merged(current["metadata"], rest)
        stored = self.put(path, {**current, "metadata": {**after, "finalizers": kept}})
        if "deletionTimestamp" in after and not kept and not after.get("deletionGracePeriodSeconds"):
            self.remove(path)
        return stored

    def _delete(self, path: str, body: JSON) -> JSON:
        current = self._found(path)
        if current["metadata"]["uid"] != body["preconditions"]["uid"]:
            raise conflict(path)
        if current["metadata"].get("finalizers"):
            # As the API server does: nothing waits for a pod that has ended.
            ended = current.get("status", {}).get("phase") in ("Succeeded", "Failed")
            grace = 0 if ended else body.get("gracePeriodSeconds", 30)
            going = {"deletionTimestamp": "2026-05-04T12:00:00Z", "deletionGracePeriodSeconds": grace}
            return self.put(path, {**current, "metadata": {**current["metadata"], **going}})
        self.remove(path)
        return {}

    def _compare(self, path: str, body: JSON) -> JSON:
        """The stored object, if the request names its version and its UID."""
        current = self._found(path)
        uid = body["metadata"].get("uid", current["metadata"]["uid"])
        if (uid, body["metadata"]["resourceVersion"]) != (current["metadata"]["uid"], current["metadata"]["resourceVersion"]):
            raise conflict(path)
        return current

    def _scaled(self, path: str, replicas: int) -> JSON:
        """The Deployment's Scale."""
        current = self._found(path)
        self.put(path, {**current, "spec": {**current["spec"], "replicas": replicas}})
        labels = current["spec"]["selector"]["matchLabels"].items()
        return {"spec": {"replicas": replicas}, "status": {"selector": ",".join(f"{key}={value}" for key, value in labels)}}

    def _list(self, path: str, query: Mapping[str, str]) -> JSON:
        """All objects, or a page of them. Its position is the number of objects before it: fit for lists that stand still."""
        prefix, _, plural = path.rpartition("/")
        items = [
            copy.deepcopy(body)
            for at, body in self.objects.items()
            if at.startswith(f"{prefix}/") and at.split("/")[-2] == plural and _selected(body, query.get("labelSelector", ""))
        ]
        start = int(query.get("continue", 0))
        end = start + int(query.get("limit", len(items)))
        rest = {"continue": str(end)} if end < len(items) else {}
        return {"metadata": {"resourceVersion": str(self.version), **rest}, "items": items[start:end]}

    def _found(self, path: str) -> JSON:
        if path not in self.objects:
            raise not_found(path)
        return copy.deepcopy(self.objects[path])


def _selected(body: JSON, selector: str) -> bool:
    """Of label selectors, what the operator uses: `key` and `key=value`, joined by commas."""
    labels = body["metadata"].get("labels", {})
    terms = (term.partition("=") for term in selector.split(",") if term)
    return all(key in labels and (not equals or labels[key] == value) for key, equals, value in terms)


def merged(target: object, patch: object) -> Any:
    """MergePatch of RFC 7386 section 2, as it is written there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
