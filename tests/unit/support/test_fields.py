"""The values for fields: small schemas have all kinds of nodes, and the committed ones have what the generator needs."""

from __future__ import annotations

import jsonschema
import pytest

from support.api import JSON
from support.fields import cases, schema_of

KINDS = ["sessionquotas.yaml", "agentsessionclasses.yaml", "agentsessions.yaml"]


def text(**rest: object) -> JSON:
    return {"type": "string", "maxLength": 10, **rest}


def rows(schema: JSON) -> set[tuple[str, str, bool]]:
    return {(case.path, case.what, case.fits) for case in cases({"type": "object", "properties": {"f": schema}})}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (text(minLength=1), {("spec.f", "1 characters", True), ("spec.f", "empty", False), ("spec.f", "11 characters", False)}),
        (text(enum=["A"]), {("spec.f", "A", True), ("spec.f", "no such word", False)}),
        (
            {"type": "integer", "minimum": 1, "maximum": 9},
            {("spec.f", "1", True), ("spec.f", "9", True), ("spec.f", "0", False), ("spec.f", "10", False)},
        ),
        ({"type": "boolean"}, {("spec.f", "True", True), ("spec.f", "of a wrong type", False)}),
        (
            {"type": "array", "minItems": 1, "maxItems": 2, "x-kubernetes-list-type": "set", "items": text()},
            {("spec.f", "0 items", False), ("spec.f", "2 items", True), ("spec.f", "3 items", False)}
            | {("spec.f[1]", "the same item twice", False), ("spec.f[0]", "11 characters", False)},
        ),
        (
            {"type": "object", "maxProperties": 1, "additionalProperties": text()},
            {("spec.f", "1 entries", True), ("spec.f", "2 entries", False), ("spec.f.key", "11 characters", False)},
        ),
        (
            {"type": "object", "required": ["a"], "properties": {"a": text()}},
            {("spec.f.a", "absent", False), ("spec.f", "only what is required", True)},
        ),
        ({"x-kubernetes-int-or-string": True, "maxLength": 32}, {("spec.f", "'100m'", True), ("spec.f", "True", False)}),
    ],
)
def test_each_kind_of_node_has_its_bounds(schema: JSON, expected: set[tuple[str, str, bool]]) -> None:
    assert expected <= rows(schema)


RULES = ("the same item twice", "neither ")
"""What only the API server's own rules refuse."""


@pytest.mark.parametrize("file", KINDS)
def test_what_fits_is_what_the_schema_allows(file: str) -> None:
    """By another reader of schemas, which does not know the rules of lists and of Kubernetes' own types."""
    schema = schema_of(file)
    checker = jsonschema.Draft202012Validator(schema)
    found = list(cases(schema))
    assert len(found) > 100
    for case in found:
        if case.fits:
            assert checker.is_valid(case.spec), case
        elif not case.what.startswith(RULES) and "allowedNetworks" not in case.path and "resources" not in case.path:
            assert not checker.is_valid(case.spec), case


@pytest.mark.parametrize("file", KINDS)
def test_every_field_has_values_that_fit_and_others(file: str) -> None:
    found = list(cases(schema_of(file)))
    for path in {case.path for case in found if not case.path.endswith("[1]")}:
        assert {case.fits for case in found if case.path == path} == {True, False}, path
