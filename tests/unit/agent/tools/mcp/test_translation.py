"""What MCP servers offer and answer, in the loop's terms."""

from __future__ import annotations

import base64
import re
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
)

from agent.tools.mcp.translation import DESCRIPTION_LIMIT, SCHEMA_LIMIT, definition, render, tool_name
from agent.tools.router import argument_problem
from agent.tools.tool import Tool as AgentTool
from support.agent.pictures import image, png

ACCEPTED = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What OpenAI and Anthropic take for a tool's name."""


def test_a_plain_name_stays_as_it_is() -> None:
    assert tool_name("my-server_2", "get_it") == "my-server_2__get_it"


def test_names_that_have_to_be_changed_stay_apart() -> None:
    wanted = [
        *(("srv", name) for name in ("get_it", "get.it", "get/it", "get it", "t" * 80, "t" * 81, "", "_")),
        *((server, "get_it") for server in ("my.server", "my_server", "my/server", "s" * 40, "s" * 41, "", "a__b", "a_")),
        ("a", "b__c"),
        ("a__b", "c"),
        ("a", "_b"),
        ("a_", "b"),
    ]
    names = [tool_name(server, tool) for server, tool in wanted]
    assert len(set(names)) == len(wanted)
    assert all(ACCEPTED.fullmatch(name) for name in names)
    assert names == [tool_name(server, tool) for server, tool in wanted]


@given(st.lists(st.tuples(st.text(max_size=80), st.text(max_size=80)), min_size=2, max_size=5, unique=True))
def test_any_two_tools_have_two_names_that_providers_accept(tools: list[tuple[str, str]]) -> None:
    for one, other in combinations(tools, 2):
        assert tool_name(*one) != tool_name(*other)
        assert ACCEPTED.fullmatch(tool_name(*one))


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_no_server_can_offer_a_tool_that_looks_like_another_servers(server: str, tool: str, own: str) -> None:
    assert tool_name(server, tool).partition("__")[0] == tool_name(server, own).partition("__")[0]
    if server != own:
        assert tool_name(server, tool).partition("__")[0] != tool_name(own, tool).partition("__")[0]


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_a_good_schema_is_passed_on() -> None:
    good = schema(a={"type": "integer"})
    assert definition(Tool(name="t", description="Does it.", input_schema=good)) == ("Does it.", good)
    assert definition(Tool(name="t", input_schema=good)) == ("t", good)


@pytest.mark.parametrize(
    "bad",
    [
        schema(a={"type": "nonsense"}),
        schema(a={"type": "string", "pattern": "("}),
        {"type": "object", "required": "a"},
        {"type": "object", "anyOf": [{"type": "array"}]},
        {"type": "object", "anyOf": [{"$ref": "https://example.org/schema"}]},
        {"type": "object", "anyOf": [{"properties": {"a": {"type": "nonsense"}}}]},
        {"properties": {"a": {}}},
        {"type": "array"},
        {"type": "object", "properties": {"a": {"description": "x" * SCHEMA_LIMIT}}},
    ],
)
def test_a_schema_that_a_provider_would_refuse_is_described_instead(bad: dict[str, Any]) -> None:
    description, parameters = definition(Tool(name="t", description="Does it.", input_schema=bad))
    assert parameters == {"type": "object"}
    assert description.startswith("Does it.\nIts arguments: {")
    assert len(description) < DESCRIPTION_LIMIT + 200


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
def test_fields_of_a_combination_at_the_top_are_shown(keyword: str) -> None:
    by_id = {"properties": {"id": {"type": "integer"}, "to": {"type": "string"}}, "required": ["id", "to"]}
    by_name = {"$ref": "#/$defs/ByName"}
    defined = {"ByName": {"type": "object", "properties": {"id": {"type": "string"}, "name": {}}, "required": ["id"]}}
    top = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    given = {**top, "$defs": defined, keyword: [by_id, by_name]}
    description, parameters = definition(Tool(name="t", description="Does it.", input_schema=given))
    both = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert parameters["properties"] == {"n": {"type": "integer"}, "id": both, "to": {"type": "string"}, "name": {}}
    assert parameters["required"] == (["id", "n", "to"] if keyword == "allOf" else ["id", "n"])
    assert not {keyword, "additionalProperties"} & parameters.keys()
    assert description.startswith(f'Does it.\nIts arguments also have to fit: {{"{keyword}": [{{"properties"')


def test_conditions_without_fields_are_told_in_the_description() -> None:
    given = {**schema(a={}, b={}), "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}}
    description, parameters = definition(Tool(name="t", input_schema=given))
    assert parameters == schema(a={}, b={})
    assert '{"anyOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}}' in description


async def nothing(_: dict[str, Any]) -> str:
    return ""


def test_regular_expressions_are_the_servers_to_match() -> None:
    """With this one, and 40 letters to match, the agent would stand still for hours."""
    endless = "^(a+)+$"
    inner = {"type": "object", "patternProperties": {endless: {}}, "additionalProperties": False}
    given = schema(a={"type": "string", "pattern": endless, "description": "Letters."}, pattern={"type": "string"}, b=inner)
    description, parameters = definition(Tool(name="t", input_schema=given))
    tool = AgentTool("t", description, parameters, nothing)
    assert argument_problem(tool, {"a": "a" * 40 + "!", "b": {"a" * 40 + "!": 1}}) is None
    assert argument_problem(tool, {"pattern": 1}) is not None
    assert parameters["properties"]["a"] == {"type": "string", "description": "Letters. [pattern: ^(a+)+$]"}


def test_a_long_description_is_cut() -> None:
    description, _ = definition(Tool(name="t", description="first words. " + "x" * 100_000, input_schema=schema()))
    assert description.startswith("first words. ")
    assert "characters cut" in description
    assert len(description) < DESCRIPTION_LIMIT + 100


def text(*texts: str) -> list[TextContent]:
    return [TextContent(type="text", text=each) for each in texts]


@pytest.mark.parametrize(
    ("texts", "structured"),
    [
        (['{"a": 1, "b": [2]}'], {"b": [2], "a": 1}),
        (["42"], {"result": 42}),
        (["42"], {"result": "42"}),
        (["one", "two"], {"result": ["one", "two"]}),
        (['{"a": 1}', '{"a": 2}'], {"result": [{"a": 1}, {"a": 2}]}),
        (["one"], {"result": ["one"]}),
        (["null"], None),
        (['here: ["x"]', '["x"]'], ["x"]),
    ],
)
def test_structured_content_that_the_text_repeats_is_shown_once(texts: list[str], structured: object) -> None:
    assert render(text(*texts), structured).output == "\n".join(texts)


def test_structured_content_that_the_text_only_sums_up_is_shown_as_well() -> None:
    assert render(text("2 rows found"), {"rows": [1, "ü"]}).output == '2 rows found\n{"rows": [1, "ü"]}'
    assert render([], {"rows": []}).output == '{"rows": []}'
    picture = ImageContent(type="image", data="AAAA", mime_type="image/png")
    shown = "[image, image/png, 3 bytes: it is no PNG, JPEG, GIF, WebP image, by its first bytes]"
    assert render([picture], {"width": 1}).output == f'{shown}\n{{"width": 1}}'


def test_what_is_no_text_is_described() -> None:
    blocks: list[ContentBlock] = [
        *text("look:"),
        ImageContent(type="image", data="AAAA" * 4, mime_type="image/png"),
        AudioContent(type="audio", data="AAAA", mime_type="audio/wav"),
        ResourceLink(type="resource_link", name="log", uri="file:///log", description="what happened"),
        EmbeddedResource(type="resource", resource=TextResourceContents(uri="file:///a", text="inside")),
        EmbeddedResource(type="resource", resource=BlobResourceContents(uri="file:///b", blob="AAAA")),
        EmbeddedResource(
            type="resource", resource=BlobResourceContents(uri="file:///c", blob="AAAA", mime_type="application/pdf")
        ),
    ]
    assert render(blocks).output == (
        "look:\n[image, image/png, 12 bytes: it is no PNG, JPEG, GIF, WebP image, by its first bytes]\n"
        "[audio, audio/wav, 3 bytes]\n[resource file:///log: what happened]\n"
        "inside\n[resource file:///b, application/octet-stream, 3 bytes]\n[resource file:///c, application/pdf, 3 bytes]"
    )
    assert render([]).output == "[no output]"


@pytest.mark.parametrize(
    ("uri", "media_type", "shown"),
    [
        ("file:///a", "text/csv; charset=utf-8", "ä,b"),
        ("file:///a", "application/problem+json", "ä,b"),
        ("file:///a.csv", None, "ä,b"),
        (
            "file:///a",
            "image/png",
            "[resource file:///a, image/png, 4 bytes: it is no PNG, JPEG, GIF, WebP image, by its first bytes]",
        ),
    ],
)
def test_a_blob_of_a_text_type_is_shown_as_text(uri: str, media_type: str | None, shown: str) -> None:
    blob = base64.b64encode("ä,b".encode()).decode()
    contents = BlobResourceContents(uri=uri, blob=blob, mime_type=media_type)
    assert render([EmbeddedResource(type="resource", resource=contents)]).output == shown


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg"])
def test_an_image_is_shown_by_its_bytes_wherever_it_is(media_type: str) -> None:
    data = base64.b64encode(png()).decode()
    resource = BlobResourceContents(uri="file:///b", blob=data, mime_type=media_type)
    blocks: list[ContentBlock] = [
        ImageContent(type="image", data=data, mime_type=media_type),
        EmbeddedResource(type="resource", resource=resource),
    ]
    found = render(blocks, failed=True)
    assert found.output.splitlines() == [
        f"[image, {media_type}: {image().description}]",
        f"[resource file:///b, {media_type}: {image().description}]",
    ]
    assert (found.images, found.success) == ((image(), image()), False)
    assert render([ImageContent(type="image", data="A", mime_type="image/png")]).output.endswith(
        "bytes: it is no valid base64]"
    )


@pytest.mark.parametrize("blob", ["/w==", "no base64!"])
def test_a_blob_that_is_not_the_text_that_it_claims_is_described(blob: str) -> None:
    contents = BlobResourceContents(uri="file:///a", blob=blob, mime_type="text/plain")
    assert render([EmbeddedResource(type="resource", resource=contents)]).output.startswith("[resource file:///a, text/plain, ")
