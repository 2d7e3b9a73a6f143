"""A request to the API server as a value, and predicates over requests and watch events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

JSON: TypeAlias = "dict[str, Any]"

UNCOUNTED: Final = ("leases", "tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews")
"""Written on a timer, or not stored: their number would make the numbers of all other writes depend on time."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the operator."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: JSON = field(default_factory=dict)
    agent: str = ""
    """The User-Agent header: kopf's requests and the operator's own differ in it."""
    write: int = 0
    """1 for the first write that the proxy saw, 2 for the next; 0 for reads and for what is `UNCOUNTED`."""

    @property
    def verb(self) -> str:
        """The verb as RBAC names it."""
        if self.method == "GET":
            if self.query.get("watch") in ("true", "1"):
                return "watch"
            return "get" if self.name else "list"
        if self.method == "DELETE" and not self.name:
            return "deletecollection"
        return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[self.method]

    @property
    def resource(self) -> str:
        """The resource with its subresource: "pods", "agentsessions/status"."""
        parts = self._parts()
        return "/".join(parts[:1] + parts[2:3])

    @property
    def namespace(self) -> str:
        """The namespace in the path; empty for what has none, and for requests over all namespaces."""
        parts = self.path.strip("/").split("/")
        start = _start(parts)
        return parts[start + 1] if len(parts) > start + 2 and parts[start] == "namespaces" else ""

    @property
    def name(self) -> str:
        """The object's name: from the path, or from the body of a creation."""
        parts = self._parts()
        if len(parts) > 1:
            return parts[1]
        return str(self.body.get("metadata", {}).get("name", "")) if self.method == "POST" else ""

    @property
    def object(self) -> tuple[str, str, str]:
        """Resource without subresource, namespace and name: the key to count writes by."""
        return self.resource.split("/")[0], self.namespace, self.name

    @property
    def is_write(self) -> bool:
        """Whether the request is a write that is numbered."""
        resource = self.resource
        return self.method != "GET" and resource not in UNCOUNTED and not resource.endswith("/token")

    def _parts(self) -> list[str]:
        """Resource, name and subresource, as far as the path has them."""
        parts = self.path.strip("/").split("/")
        start = _start(parts)
        if len(parts) > start + 2 and parts[start] == "namespaces":
            start += 2
        return parts[start:]


def _start(parts: list[str]) -> int:
    return 2 if parts[0] == "api" else 3


When: TypeAlias = "Callable[[Request], bool]"


def on(verbs: str, resources: str, name: str = "*", *, where: When | None = None, agent: str = "*") -> When:
    """Requests by verb ("create", "create|patch", "*"), resource ("pods", "agentsessions*") and name (a glob)."""

    def matches(request: Request) -> bool:
        return (
            _any(request.verb, verbs)
            and _any(request.resource, resources)
            and fnmatchcase(request.name, name)
            and fnmatchcase(request.agent, agent)
            and (where is None or where(request))
        )

    return matches


def write(number: int) -> When:
    """The write with this number."""
    return lambda request: request.write == number


def reserves(session: str = "*") -> When:
    """The write that takes a slot for a session: the creation of its pod, or a status that says Admitted=True.

    Either mechanism of admission is caught at the write that counts. The name is a glob over sessions' names.
    """
    return lambda request: fnmatchcase(reserved_session(request), session) and reserved_session(request) != ""


def reserved_session(request: Request) -> str:
    """The name of the session that a write reserves a slot for; empty for any other request."""
    if request.verb == "create" and request.resource == "pods":
        return str((request.body["metadata"].get("annotations") or {}).get("agentsession.dev/session", ""))
    return request.name if tells("Admitted", "True")(request) else ""


def tells(condition: str, status: str) -> When:
    """The writes of a session's status that say this of a condition. A list of conditions is written whole: what was said
    before is said again."""

    def matches(request: Request) -> bool:
        if request.verb not in ("patch", "update") or request.resource != "agentsessions/status":
            return False
        conditions = (request.body.get("status") or {}).get("conditions") or []
        return any(item.get("type") == condition and item.get("status") == status for item in conditions)

    return matches


def kopf_s(when: When) -> When:
    """Of these requests, those that kopf makes."""
    return lambda request: request.agent.startswith("kopf/") and when(request)


EventWhen: TypeAlias = "Callable[[str, str, JSON], bool]"
"""Whether a rule concerns a watch event: resource, type ("ADDED", "DELETED", ...) and object."""


def event(types: str, resource: str, name: str = "*") -> EventWhen:
    """Watch events by type, resource and the object's name (a glob)."""

    def matches(seen_resource: str, kind: str, body: JSON) -> bool:
        return (
            seen_resource == resource and _any(kind, types) and fnmatchcase(str(body.get("metadata", {}).get("name", "")), name)
        )

    return matches


def _any(value: str, patterns: str) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns.split("|"))
