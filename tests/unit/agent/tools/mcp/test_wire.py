"""Messages of MCP servers, repaired so that the official client reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import CallToolResult, JSONRPCResponse, ListToolsResult, jsonrpc_message_adapter
from mcp_types.methods import validate_server_result
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from agent.tools.mcp.translation import definition, render
from agent.tools.mcp.wire import LEFT_OUT, MAX_DEPTH, repaired

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BLOCKS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["text", "image", "audio", "resource", "resource_link", "video"]) | JSON,
        **dict.fromkeys(("text", "data", "mimeType", "uri", "name", "resource", "annotations", "_meta", "size", "icons"), JSON),
    },
)
TOOLS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(min_size=1) | JSON,
        **dict.fromkeys(("description", "title", "inputSchema", "outputSchema", "annotations", "icons", "_meta"), JSON),
    },
)


def read(result: str) -> dict[str, Any]:
    """A result as the official client gets it from its parser."""
    message = jsonrpc_message_adapter.validate_json(repaired(f'{{"jsonrpc":"2.0","id":1,"result":{result}}}'.encode()))
    assert isinstance(message, JSONRPCResponse)
    return message.result


def listed(result: str) -> ListToolsResult:
    raw = read(result)
    for version in HANDSHAKE_PROTOCOL_VERSIONS:
        validate_server_result("tools/list", version, raw)
    return ListToolsResult.model_validate(raw, by_name=False)


def shown(result: str) -> str:
    raw = read(result)
    for version in HANDSHAKE_PROTOCOL_VERSIONS:
        validate_server_result("tools/call", version, raw)
    called = CallToolResult.model_validate(raw, by_name=False)
    return render(called.content, called.structured_content).output


@given(st.lists(TOOLS | JSON, max_size=4))
def test_any_list_of_tools_can_be_read(tools: list[object]) -> None:
    named = [tool for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str) and tool["name"]]
    result = listed(json.dumps({"tools": tools}))
    assert len(result.tools) == len(named)
    assert (result.meta or {}).get(LEFT_OUT, 0) == len(tools) - len(named)


@given(st.lists(BLOCKS | JSON, max_size=4), JSON, JSON, JSON)
def test_any_result_of_a_call_can_be_read(blocks: list[object], structured: object, error: object, meta: object) -> None:
    result = {"content": [*blocks, {"type": "text", "text": "the good text"}], "isError": error, "_meta": meta}
    assert "the good text" in shown(json.dumps({**result, "structuredContent": structured}))


@pytest.mark.parametrize("depth", [MAX_DEPTH - 10, 150, 300, 5_000, 100_000])
def test_one_schema_that_is_nested_deeply_costs_no_other_tool(depth: int) -> None:
    deep = '{"type":"object","properties":{"a":' * depth + "{}" + "}}" * depth
    result = listed(f'{{"tools":[{{"name":"deep","inputSchema":{deep}}},{{"name":"good","inputSchema":{{"type":"object"}}}}]}}')
    assert [tool.name for tool in result.tools] == ["deep", "good"]
    assert definition(result.tools[0])[1]["type"] == "object"


def test_half_an_emoji_is_replaced() -> None:
    assert shown(r'{"content":[{"type":"text","text":"good \ud83d text \ud83d\ude00"}]}') == "good \ufffd text \U0001f600"
    [tool] = listed(r'{"tools":[{"name":"t","description":"half \udc00","inputSchema":{"type":"object"}}]}').tools
    assert tool.description == "half \ufffd"


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    raw = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"caf\xe9"}]}}'
    message = jsonrpc_message_adapter.validate_json(repaired(raw))
    assert isinstance(message, JSONRPCResponse)
    assert message.result["content"] == [{"type": "text", "text": "caf\ufffd"}]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1E+999", "9" * 400 + ".0"])
def test_numbers_that_json_does_not_have_become_null(number: str) -> None:
    assert read(f'{{"content":[],"structuredContent":{{"a":{number}}}}}')["structuredContent"] == {"a": None}


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (
            {"type": "image", "data": "iVBORw0KGgo="},
            "[image, image/png, 8 bytes: it is damaged: it begins as a PNG image, and does not say its dimensions]",
        ),
        ({"type": "audio", "data": "AAAA"}, "[audio, application/octet-stream, 3 bytes]"),
        ({"type": "video", "url": "x"}, '{"type": "video", "url": "x"}'),
        ({"type": "text", "text": 5}, '{"type": "text", "text": 5}'),
        ({"type": "resource_link", "uri": "a:b"}, "[resource a:b: a:b]"),
        ({"type": "resource", "resource": {"text": "inside"}}, "inside"),
        ("bare", "bare"),
    ],
)
def test_a_block_that_is_not_as_it_must_be_is_shown(block: object, text: str) -> None:
    good = {"type": "text", "text": "good"}
    assert shown(json.dumps({"content": [good, block]})) == f"good\n{text}"


def test_structured_content_without_content_is_shown() -> None:
    assert shown('{"structuredContent":{"a":1}}') == '{"a": 1}'
    assert shown('{"structuredContent":[1]}') == '{"result": [1]}'


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"1", b"null", b"[" * 200_000, b'{"a":' + b"[" * 2_000_000])
def test_what_is_no_message_stays_as_it_is(raw: bytes) -> None:
    assert repaired(raw) == raw


def test_an_error_and_a_request_are_kept() -> None:
    for message in (
        {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "m", "data": [1]}},
        {"id": 2, "method": "ping"},
    ):
        assert json.loads(repaired(json.dumps(message).encode())) == message
