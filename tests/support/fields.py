"""Values for every field of a kind, made from its committed schema: valid, at and beyond each bound, wrong, absent.

A pattern does not say what fits it, so `FITTING` does. Rules of several fields (CEL) are not read: what fits the schema may
still be refused, by a rule that names a field beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import yaml

from support.api import JSON
from support.cluster import ROOT

FITTING: Final[dict[str, Callable[[int], str]]] = {
    # By pattern: a text of this length that fits.
    r"^[0-9]{1,9}(\.[0-9]{1,6})?$": lambda length: "1" * length if length <= 9 else f"{'1' * (length - 7)}.{'2' * 6}",
    r"^[A-Za-z0-9_./*?!\[\]-]+$": lambda length: "a" * length,
    r"^[!#-\[\]-~]+$": lambda length: "a" * length,
    r"^[A-Za-z0-9_-]+$": lambda length: "a" * length,
    "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$": lambda length: "a" * length,
    r"^https?://[^/@?#]+([/?].*)?$": lambda length: "http://" + "a" * (length - 7),
    r"^https?://[^/@?#]+(/[^?#]*)?$": lambda length: "http://" + "a" * (length - 7),
    "^https?://": lambda length: "http://" + "a" * (length - 7),
    r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$": lambda length: "a/" + "a" * (length - 2),
    r"^[1-9][0-9]*(\.[0-9]+)?(M|G|T|P|Mi|Gi|Ti|Pi)$": lambda length: "1" * (length - 2) + "Mi",
}
BESIDE: Final[dict[str, JSON]] = {
    # What a field needs beside it, where its object has such fields.
    "values": {"operator": "In"},
    "size": {"type": "Persistent"},
    "storageClassName": {"type": "Persistent", "size": "1Gi"},
}
SHORTEST: Final = 9
"""Characters of a valid text where nothing asks for another length: enough for each pattern."""
MISFIT: Final = "~ ~"
"""Fits no pattern, no enum and no network."""
NETWORK: Final = "10.0.0.0/8"
EITHER: Final = re.compile(r"has\(self\.(\w+)\) != has\(self\.(\w+)\)")


@dataclass(frozen=True, slots=True)
class Case:
    """One value of one field, in an otherwise minimal spec."""

    path: str
    """The field as the API server names it, for example spec.userRules[0].weight."""
    what: str
    """What is special about the value, for a person."""
    spec: Any
    fits: bool
    """Whether the schema allows it."""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def schema_of(file: str) -> JSON:
    """The schema of a kind's spec, as committed."""
    body = yaml.safe_load((ROOT / "manifests" / "crds" / file).read_text())
    version: JSON = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return dict(version["properties"]["spec"])


def cases(schema: JSON, path: str = "spec") -> Iterator[Case]:
    """All cases of a node and of what is in it."""
    if schema.get("x-kubernetes-int-or-string"):
        yield from _of_quantity(schema, path)
        return
    yield Case(path, "of a wrong type", [] if schema["type"] != "array" else "text", fits=False)
    match schema["type"]:
        case "object" if "additionalProperties" in schema:
            yield from _of_map(schema, path)
        case "object":
            yield from _of_object(schema, path)
        case "array":
            yield from _of_array(schema, path)
        case "integer":
            yield from _of_integer(schema, path)
        case "boolean":
            yield from (Case(path, str(value), value, fits=True) for value in (True, False))
        case _:
            yield from _of_text(schema, path)


def minimal(schema: JSON, number: int = 0) -> Any:
    """The smallest valid value; another one for each `number`."""
    if schema.get("x-kubernetes-int-or-string"):
        return number
    match schema["type"]:
        case "object" if "additionalProperties" in schema:
            return {}
        case "object":
            needed = {*schema.get("required", []), *(one for one, _ in alternatives(schema))}
            return {name: minimal(child, number) for name, child in schema["properties"].items() if name in needed}
        case "array":
            return [minimal(schema["items"], index) for index in range(schema.get("minItems", 0))]
        case "integer":
            return max(schema.get("minimum", 0), 0) + number
        case "boolean":
            return True
        case _:
            return _text(schema, SHORTEST, number)


def _text(schema: JSON, length: int, number: int = 0) -> str:
    if "enum" in schema:
        # The last one has no rule about the fields beside it.
        return str(schema["enum"][-1])
    if _is_network(schema):
        return f"10.{number}.0.0/16"
    if "pattern" in schema:
        text = FITTING[schema["pattern"]](length)
        return text[: len(text) - 2] + f"{number:02}" if text[-2:] == "aa" else text
    return f"{number:02}".rjust(length, "x")[-length:] if length else ""


def alternatives(schema: JSON) -> list[tuple[str, str]]:
    """Pairs of fields: exactly one of the two must be there, as rules of the schema say."""
    found = (EITHER.fullmatch(rule["rule"]) for rule in schema.get("x-kubernetes-validations", ()))
    return [(match[1], match[2]) for match in found if match is not None]


def _is_network(schema: JSON) -> bool:
    return any("isCIDR" in rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))


def _of_object(schema: JSON, path: str) -> Iterator[Case]:
    base = minimal(schema)
    yield Case(path, "only what is required", base, fits=True)
    for one, other in alternatives(schema):
        without = {key: value for key, value in base.items() if key != one}
        yield Case(path, f"neither {one} nor {other}", without, fits=False)
    instead = {other: one for one, other in alternatives(schema)}
    for name, child in schema["properties"].items():
        base = {key: value for key, value in minimal(schema).items() if key != instead.get(name)}
        beside = {key: value for key, value in BESIDE.get(name, {}).items() if key in schema["properties"]}
        for case in cases(child, f"{path}.{name}"):
            yield replace(case, spec={**base, **beside, name: case.spec})
    for name in schema.get("required", ()):
        yield Case(f"{path}.{name}", "absent", {key: value for key, value in base.items() if key != name}, fits=False)


def _of_map(schema: JSON, path: str) -> Iterator[Case]:
    child, most = schema["additionalProperties"], schema["maxProperties"]
    for case in cases(child, f"{path}.key"):
        yield replace(case, spec={"key": case.spec})
    for number in (0, most, most + 1):
        spec = {f"key{index}": minimal(child, index) for index in range(number)}
        yield Case(path, f"{number} entries", spec, fits=number <= most)


def _of_array(schema: JSON, path: str) -> Iterator[Case]:
    child, least, most = schema["items"], schema.get("minItems", 0), schema["maxItems"]
    for case in cases(child, f"{path}[0]"):
        yield replace(case, spec=[case.spec])
    for number in sorted({0, least, most, most + 1}):
        items = [minimal(child, index) for index in range(number)]
        yield Case(path, f"{number} items", items, fits=least <= number <= most)
    if schema.get("x-kubernetes-list-type") in ("set", "map"):
        yield Case(f"{path}[1]", "the same item twice", [minimal(child)] * 2, fits=False)


def _of_integer(schema: JSON, path: str) -> Iterator[Case]:
    least, most = schema["minimum"], schema["maximum"]
    for value in sorted({least, min(least + 1, most), most}):
        yield Case(path, str(value), value, fits=True)
    wrongs: tuple[Any, ...] = (least - 1, most + 1, 1.5, "1")
    for wrong in wrongs:
        yield Case(path, repr(wrong), wrong, fits=False)


def _of_text(schema: JSON, path: str) -> Iterator[Case]:
    yield Case(path, "a number", 7, fits=False)
    if "enum" in schema:
        yield from (Case(path, value, value, fits=True) for value in schema["enum"])
        yield Case(path, "no such word", MISFIT, fits=False)
        return
    if _is_network(schema):
        yield Case(path, "a network", NETWORK, fits=True)
        yield Case(path, "no network", MISFIT, fits=False)
        return
    least, most = schema.get("minLength", 0), schema["maxLength"]
    if "pattern" in schema:
        yield Case(path, "not as the pattern", MISFIT, fits=False)
        lengths = {SHORTEST, most}
    else:
        lengths = {least, SHORTEST, most}
    for length in sorted(lengths):
        yield Case(path, f"{length} characters", _text(schema, length), fits=True)
    yield Case(path, f"{most + 1} characters", _text(schema, most + 1), fits=False)
    if least or "pattern" in schema:
        yield Case(path, "empty", "", fits=False)


def _of_quantity(schema: JSON, path: str) -> Iterator[Case]:
    for value in (0, 2, "100m", "1Gi"):
        yield Case(path, repr(value), value, fits=True)
    wrongs: tuple[Any, ...] = (True, [], "1" * (schema["maxLength"] + 1), "much", "-1", "1 Gi")
    for wrong in wrongs:
        yield Case(path, repr(wrong), wrong, fits=False)
