"""Repairs the messages of MCP servers, so that one bad part of a message costs that part alone. Bytes in, bytes out.

The official client checks a message as a whole: half an emoji in one description, or one schema that is nested too deeply,
would cost all the server's tools, and one block of an unknown type the whole result of a call that was carried out.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final

MAX_ANSWER: Final[int] = 16 << 20
"""Bytes of one JSON answer, one event or one line, unpacked. Read as objects they take about five times as much."""

IN_A_THREAD: Final = 256 << 10
"""Bytes from which a message is repaired in a thread, so that interrupts and other sessions' requests do not wait."""

MAX_DEPTH: Final = 64
"""Levels of a message that are kept. The official client's parser takes about 200, some providers' fewer."""

MAX_TOKENS: Final = 1_000_000
"""Strings and brackets in a message that is searched for what is nested too deeply: a second of work, in a thread."""

LEFT_OUT: Final = "agentsession.dev/left-out"
"""In the `_meta` of a list of tools: how many of its entries are no tools."""

SESSION_LOST: Final = "agentsession.dev/session-lost"
"""The `data` of the error for a session that the server has forgotten."""

NOT_SENT: Final = "agentsession.dev/not-sent"
"""The `data` of the error for a request that did not reach the server."""

_READABLE_ELSEWHERE = ("annotations", "_meta", "icons", "size", "title")
"""Fields of a block that nothing here reads, and that could be malformed."""

_TOKENS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')

_SUSPICIOUS: Final = re.compile(r"\\u[dD][89a-fA-F]|\d[eE]\+?\d{3}|\d{300}")
"""Perhaps half a character, or a number that is too large for JSON's readers."""

_IMAGES: Final = {"iVBORw0KGgo": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}
"""How the base64 of an image begins."""


def repaired(raw: bytes) -> bytes:
    """One JSON-RPC message as the official client can read it; what is no such message stays as it is."""
    text = raw.decode("utf-8", "replace")
    try:
        message = _parsed(text)
    except (ValueError, RecursionError):
        return raw
    if not isinstance(message, dict):
        return raw
    if text.count("{") + text.count("[") > MAX_DEPTH or _SUSPICIOUS.search(text):
        message = clean(message)
    result = message.get("result")
    if isinstance(result, dict):
        message["result"] = _mended_result(result)
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


async def repaired_in_a_thread(raw: bytes) -> bytes:
    """As `repaired`, without holding up the event loop when the message is large."""
    return await asyncio.to_thread(repaired, raw) if len(raw) > IN_A_THREAD else repaired(raw)


def clean(value: Any) -> Any:
    """The value without half characters, infinite numbers, and what is nested more than MAX_DEPTH levels deep."""
    return _clean(value, MAX_DEPTH)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except RecursionError:
        return json.loads(_pruned(text), parse_constant=lambda _: None)


def _pruned(text: str) -> str:
    """The JSON text with null for what is nested more than MAX_DEPTH levels deep. Raises ValueError when it is too long."""
    kept: list[str] = []
    depth = begin = 0
    for number, token in enumerate(_TOKENS.finditer(text)):
        if (bracket := token.group()) in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept.extend((text[begin : token.start()], "null"))
        elif bracket in "]}":
            depth -= 1
            if depth == MAX_DEPTH:
                begin = token.end()
        if number > MAX_TOKENS:
            raise ValueError("too much to search")
    return "".join((*kept, text[begin:]))


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, float):
        return value if abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {_whole(key): _clean(each, depth - 1) for key, each in value.items()} if depth else None
    if isinstance(value, list):
        return [_clean(each, depth - 1) for each in value] if depth else None
    return value


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# -- results -----------------------------------------------------------------------------------------------------------


def _mended_result(result: dict[str, Any]) -> dict[str, Any]:
    if "tools" in result:
        return _mended_list(result)
    if "content" in result or "structuredContent" in result or "isError" in result:
        return _mended_call(result)
    return result


def _mended_list(result: dict[str, Any]) -> dict[str, Any]:
    listed = result["tools"] if isinstance(result["tools"], list) else []
    tools = [tool for tool in map(_mended_tool, listed) if tool is not None]
    kept = {key: value for key, value in result.items() if key != "nextCursor" or (isinstance(value, str) and value)}
    meta = result["_meta"] if isinstance(result.get("_meta"), dict) else {}
    if len(tools) < len(listed):
        meta = {**meta, LEFT_OUT: len(listed) - len(tools)}
    return {**kept, "tools": tools, "_meta": meta}


def _mended_tool(tool: object) -> dict[str, Any] | None:
    """The fields of a tool that are read here, each as it must be; None when it has no name.

    `outputSchema` is not among them: the official client refuses a result that does not fit it, after the call was
    carried out.
    """
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str) or not tool["name"]:
        return None
    kept: dict[str, Any] = {"name": tool["name"], "inputSchema": {"type": "object"}}
    if isinstance(tool.get("description"), str):
        kept["description"] = tool["description"]
    if isinstance(schema := tool.get("inputSchema"), dict):
        kept["inputSchema"] = {**schema, "type": "object"}
    if isinstance(hints := tool.get("annotations"), dict):
        kept["annotations"] = {
            name: value for name, value in hints.items() if name.endswith("Hint") and isinstance(value, bool)
        }
    return kept


def _mended_call(result: dict[str, Any]) -> dict[str, Any]:
    content = result.get("content")
    if not isinstance(content, list):
        content = [] if content is None else [content]
    kept = {**result, "content": [_mended_block(block) for block in content]}
    if "isError" in kept:
        kept["isError"] = bool(kept["isError"])
    structured = kept.get("structuredContent")
    if not isinstance(structured, dict):
        kept.pop("structuredContent", None)
        if structured is not None:
            kept["structuredContent"] = {"result": structured}
    if not isinstance(kept.get("_meta", {}), dict):
        del kept["_meta"]
    return kept


def _mended_block(block: object) -> dict[str, Any]:
    """A block of a result; what cannot be read as one is shown as the text that it is."""
    if isinstance(block, dict):
        block = {key: value for key, value in block.items() if key not in _READABLE_ELSEWHERE}
        match block.get("type"):
            case "text" if isinstance(block.get("text"), str):
                return block
            case "image" | "audio" if isinstance(data := block.get("data"), str):
                return block if isinstance(block.get("mimeType"), str) else {**block, "mimeType": _media_type(data)}
            case "resource_link" if isinstance(block.get("uri"), str):
                kept = {key: value for key, value in block.items() if isinstance(value, str)}
                return {"name": block["uri"], **kept}
            case "resource" if isinstance(resource := block.get("resource"), dict) and _holds(resource):
                kept = {key: value for key, value in resource.items() if isinstance(value, str)}
                return {"type": "resource", "resource": {"uri": "unnamed", **kept}}
    return {"type": "text", "text": block if isinstance(block, str) else json.dumps(block, ensure_ascii=False)}


def _holds(resource: Mapping[str, Any]) -> bool:
    return isinstance(resource.get("text"), str) or isinstance(resource.get("blob"), str)


def _media_type(data: str) -> str:
    known = (media_type for begin, media_type in _IMAGES.items() if data.startswith(begin))
    return next(known, "application/octet-stream")
