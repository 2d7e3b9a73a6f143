"""The CustomResourceDefinitions: structural, explained, and the committed files up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentsession_operator.api import crd
from agentsession_operator.api.meta import Schema
from agentsession_operator.api.size import MAX_CHARACTERS, characters

JSON = dict[str, Any]
ROOT = Path(__file__).parents[4]
DEFINITIONS = [crd.agent_session, crd.agent_session_class, crd.session_quota]
SUBSCHEMAS = ("properties", "items", "additionalProperties")
OF_THE_API = {(name,) for name in ("apiVersion", "kind", "metadata")}

every_kind = pytest.mark.parametrize("define", DEFINITIONS, ids=lambda define: define.__name__)
Define = Callable[[], JSON]


def schema(define: Define) -> JSON:
    (version,) = define()["spec"]["versions"]
    found: JSON = version["schema"]["openAPIV3Schema"]
    return found


def nodes(node: JSON, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], JSON]]:
    """Every schema in a schema, with its path of property names ("[]" for items, "{}" for values)."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, (*path, name))
    for key, name in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], (*path, name))


@every_kind
def test_every_node_has_a_type_and_nothing_that_a_structural_schema_forbids(define: Define) -> None:
    for path, node in nodes(schema(define)):
        if node.get("x-kubernetes-int-or-string"):
            assert "type" not in node, path
            continue
        assert node["type"] in ("object", "array", "string", "integer", "number", "boolean"), path
        assert not node.keys() & {"$ref", "$defs", "definitions", "anyOf", "oneOf", "allOf", "not", "title", "const"}, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert ("items" in node) == (node["type"] == "array"), path
        assert not isinstance(node.get("additionalProperties"), bool), path


@every_kind
def test_every_field_is_explained_in_a_sentence(define: Define) -> None:
    for path, node in nodes(schema(define)):
        if path and path[-1] not in ("[]", "{}") and path not in OF_THE_API:
            text = node.get("description", "")
            assert text[:1].isupper() or text[:1].isdigit() or text.startswith("`"), path
            assert text.endswith((".", "!", "?")), path
            assert len(text.split()) >= 2, path
            assert "  " not in text, path
            assert "\n" not in text, path


@every_kind
def test_texts_lists_and_maps_of_a_spec_have_a_bound(define: Define) -> None:
    """Rules over them need a cost estimate, and nobody shall fill etcd with one object."""
    for path, node in nodes(schema(define)["properties"]["spec"]):
        match node.get("type"):
            case "string":
                assert "maxLength" in node or "enum" in node, path
            case "array":
                assert "maxItems" in node, path
            case "object":
                assert "maxProperties" in node or "properties" in node, path
            case None:
                assert "maxLength" in node, path


def longest(node: dict[str, Any]) -> int:
    """Bytes of the longest JSON of a schema when all its texts are empty: punctuation, numbers, names of fields."""
    match node.get("type"):
        case "object" if "properties" in node:
            return 2 + sum(len(name) + 4 + longest(child) for name, child in node["properties"].items())
        case "object":
            return 2 + int(node["maxProperties"]) * (len('"":,') + longest(node["additionalProperties"]))
        case "array":
            return 2 + int(node["maxItems"]) * (1 + longest(node["items"]))
        case "string":
            return 2 + max((len(value) for value in node.get("enum", ())), default=0)
        case "integer" | "boolean":
            return 20
        case _:
            return 2


@pytest.mark.parametrize("define", [crd.agent_session, crd.agent_session_class], ids=["session", "class"])
def test_a_spec_at_its_maxima_is_at_most_512_kib_long(define: Define) -> None:
    """The API server writes a character in at most six bytes: `<` as \\u003c, a control character as \\u0001."""
    spec = schema(define)["properties"]["spec"]
    rules = [rule for rule in spec["x-kubernetes-validations"] if f"<= {MAX_CHARACTERS}" in rule["rule"]]
    assert len(rules) == 1
    assert longest(spec) + 6 * MAX_CHARACTERS <= 512 * 1024


def test_every_text_of_a_spec_counts_towards_its_size() -> None:
    """A field, a list of texts, a map of them, and objects in a list."""
    text = {"type": "string", "maxLength": 8}
    spec = {
        "type": "object",
        "properties": {
            "a": text,
            "kind": {"type": "string", "enum": ["X"]},
            "number": {"type": "integer"},
            "list": {"type": "array", "maxItems": 2, "items": text},
            "numbers": {"type": "array", "maxItems": 2, "items": {"type": "integer"}},
            "map": {"type": "object", "maxProperties": 2, "additionalProperties": text},
            "amounts": {
                "type": "object",
                "maxProperties": 2,
                "additionalProperties": {"x-kubernetes-int-or-string": True, "maxLength": 32},
            },
            "objects": {"type": "array", "maxItems": 2, "items": {"type": "object", "properties": {"b": text}}},
            "empty": {"type": "object", "properties": {}},
        },
    }
    assert characters(spec, "self") == (
        "((has(self.a) ? self.a.size() : 0)"
        " + (has(self.list) ? self.list.map(x, x.size()).sum() : 0)"
        " + (has(self.map) ? self.map.map(x, x.size() + self.map[x].size()).sum() : 0)"
        " + (has(self.amounts) ? self.amounts.map(x, x.size() + 32).sum() : 0)"
        " + (has(self.objects) ? self.objects.map(x, (has(x.b) ? x.b.size() : 0)).sum() : 0))"
    )


@every_kind
def test_lists_with_keys_have_those_keys(define: Define) -> None:
    for path, node in nodes(schema(define)):
        for key in node.get("x-kubernetes-list-map-keys", ()):
            assert node["x-kubernetes-list-type"] == "map", path
            assert key in node["items"]["required"] or "default" in node["items"]["properties"][key], path


@every_kind
def test_required_fields_are_there_and_have_no_default(define: Define) -> None:
    for path, node in nodes(schema(define)):
        for name in node.get("required", ()):
            assert "default" not in node["properties"][name], (*path, name)


@every_kind
def test_printer_columns_and_selectable_fields_name_fields_that_exist(define: Define) -> None:
    (version,) = define()["spec"]["versions"]
    known = {".".join(("", *path)) for path, _ in nodes(schema(define))}
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [field["jsonPath"] for field in version.get("selectableFields", ())]
    for path in paths:
        plain = path.partition("[")[0]
        assert plain in known or plain.startswith(".metadata."), path


def test_kubectl_get_shows_what_was_promised() -> None:
    (version,) = crd.agent_session()["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    assert [column["name"] for column in columns if not column.get("priority")] == [
        "User",
        "Phase",
        "Reason",
        "Position",
        "Age",
    ]
    assert [column["name"] for column in columns if column.get("priority")] == ["Pod", "Model", "Tokens"]


@every_kind
def test_names_agree_with_each_other(define: Define) -> None:
    definition = define()
    names = definition["spec"]["names"]
    assert definition["metadata"]["name"] == f"{names['plural']}.agentsession.dev"
    assert names["singular"] == names["kind"].lower()


@every_kind
def test_uninstalling_the_chart_keeps_the_definitions_and_so_all_sessions(define: Define) -> None:
    assert define()["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_every_field_of_a_session_but_suspend_is_immutable() -> None:
    spec = schema(crd.agent_session)["properties"]["spec"]
    rules = spec["x-kubernetes-validations"]
    guarded = {rule["fieldPath"].lstrip(".") for rule in rules if "oldSelf" in rule["rule"] and "fieldPath" in rule}
    guarded |= {name for name, node in spec["properties"].items() if "x-kubernetes-validations" in node}
    assert guarded == spec["properties"].keys() - {"suspend"}


def test_the_longest_prompt_is_64_ki_characters() -> None:
    assert schema(crd.agent_session)["properties"]["spec"]["properties"]["prompt"]["maxLength"] == 65_536


@every_kind
def test_the_committed_file_is_what_the_models_say(define: Define) -> None:
    definition = define()
    path = ROOT / "manifests" / "crds" / f"{definition['spec']['names']['plural']}.yaml"
    assert yaml.safe_load(path.read_text()) == definition, f"{path.name} is stale: run `make manifests`"


def test_no_committed_definition_is_left_over() -> None:
    written = {path.stem for path in (ROOT / "manifests" / "crds").iterdir()}
    assert written == {define()["spec"]["names"]["plural"] for define in DEFINITIONS}


def test_what_is_written_is_the_committed_file_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["crd", str(tmp_path)])
    crd.main()
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (ROOT / "manifests" / "crds" / path.name).read_bytes()


# How the schema comes from a model.


class _Leaf(Schema):
    """A leaf."""

    number: int = 0
    """A number."""


class _Tree(Schema):
    """A tree."""

    leaf: _Leaf | None = None
    """A leaf of the tree."""
    leaves: list[_Leaf] = []  # noqa: RUF012 - pydantic copies it
    """Further leaves."""
    named: dict[str, str] = {}  # noqa: RUF012
    """Names of
    leaves."""


def test_references_are_inlined_and_the_fields_own_text_wins() -> None:
    assert crd.structural(_Tree) == {
        "type": "object",
        "description": "A tree.",
        "properties": {
            "leaf": {
                "type": "object",
                "description": "A leaf of the tree.",
                "properties": {"number": {"type": "integer", "default": 0, "description": "A number."}},
            },
            "leaves": {
                "type": "array",
                "description": "Further leaves.",
                "items": {
                    "type": "object",
                    "description": "A leaf.",
                    "properties": {"number": {"type": "integer", "default": 0, "description": "A number."}},
                },
            },
            "named": {"type": "object", "description": "Names of leaves.", "additionalProperties": {"type": "string"}},
        },
    }


def test_a_union_is_refused_because_no_structural_schema_can_say_it() -> None:
    class Either(Schema):
        value: int | str

    with pytest.raises(ValueError, match="structural schema"):
        crd.structural(Either)
