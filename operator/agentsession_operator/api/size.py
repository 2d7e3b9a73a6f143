"""A bound on the size of an object's spec, as a CEL rule that the API server evaluates.

Each text of a spec has a bound of its own, but all of them at their maxima would be several megabytes: more than etcd takes
(1.5 MiB for a request), and a session that was accepted could then not be given a status. So their sum is bounded too. The rule
is made from the schema, so a new field is counted from the start.
"""

from __future__ import annotations

from typing import Any, Final

JSON = dict[str, Any]

MAX_CHARACTERS: Final = 78_000
"""Of all texts of one spec together: values of fields, and keys and values of maps. The API server stores a character in at
most six bytes (`\\u003c`), so that a spec is at most 512 KiB long with all its punctuation, numbers and field names."""

VARIABLES: Final = "xyz"
"""Names of CEL variables, by the depth of the list or map."""


def size_rule(spec: JSON, *, only_at_creation: bool) -> JSON:
    """The rule for a spec's schema. `only_at_creation`: a spec that cannot change is not checked again with each status."""
    rule = f"{characters(spec, 'self')} <= {MAX_CHARACTERS}"
    message = f"must be shorter: all its texts together have at most {MAX_CHARACTERS:,} characters"
    if not only_at_creation:
        return {"rule": rule, "message": message}
    return {"rule": f"oldSelf.hasValue() || {rule}", "message": message, "optionalOldSelf": True}


def characters(node: JSON, path: str, depth: int = 0) -> str:
    """A CEL expression for the characters of all texts at `path`, inside `depth` lists and maps; "0" where there are none."""
    if node.get("x-kubernetes-int-or-string"):
        return str(node["maxLength"])
    if node.get("type") == "string":
        return "0" if "enum" in node else f"{path}.size()"
    name = VARIABLES[depth]
    if node.get("type") == "array":
        each = characters(node["items"], name, depth + 1)
        return "0" if each == "0" else f"{path}.map({name}, {each}).sum()"
    if "additionalProperties" in node:
        value = characters(node["additionalProperties"], f"{path}[{name}]", depth + 1)
        return f"{path}.map({name}, {name}.size() + {value}).sum()"
    parts = [
        f"(has({path}.{field}) ? {part} : 0)"
        for field, child in node.get("properties", {}).items()
        if (part := characters(child, f"{path}.{field}", depth)) != "0"
    ]
    return f"({' + '.join(parts)})" if len(parts) > 1 else "".join(parts) or "0"
