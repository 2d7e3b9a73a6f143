"""What MCP servers offer and answer, in the loop's terms. Values in, values out; `mcp` does the talking.

A server is not trusted: nothing that it says can break a request to the model, fill the context, or take the place of
another tool.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import mimetypes
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from agent.images import Image, ImageProblem
from agent.tools.tool import ToolResult, cut_output

if TYPE_CHECKING:
    import mcp_types

NAME_LIMIT = 64
"""Characters in a tool's name, at most, for OpenAI and Anthropic alike."""

SERVER_LIMIT = 32
"""Those of them that the server's name may take."""

DESCRIPTION_LIMIT = 2_000
"""Characters of a tool's description that the model gets to see, with every request."""

SCHEMA_LIMIT = 20_000
"""Characters of a tool's input schema as JSON that the model gets to see, with every request."""

REFUSED_AT_THE_TOP = {"oneOf", "anyOf", "allOf", "not", "enum"}
"""Keywords that OpenAI or Anthropic refuse there, and with them the whole request."""

TEXT_TYPES = re.compile(r"text/.*|application/(.*\+)?(json|xml|yaml|x-yaml|toml|javascript|sql|x-ndjson|jsonl|csv)")
"""Media types whose bytes are shown as text."""


def tool_name(server: str, tool: str) -> str:
    """`server__tool`, with the characters and the length that the providers accept.

    A part that has to be changed for that gets a mark made of the original, so that `get.it` and `get_it`, or two long
    names that begin alike, stay two names. What stands before the first `__` is always the server's name alone: no
    server can offer a tool that looks like another server's.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*", server) or len(server) > SERVER_LIMIT:
        server = _marked(re.sub(r"[^A-Za-z0-9-]+", "-", server), server, SERVER_LIMIT)
    limit = NAME_LIMIT - len(server) - 2
    if not re.fullmatch(r"[A-Za-z0-9_-]+", tool) or len(tool) > limit:
        tool = _marked(re.sub(r"[^A-Za-z0-9_-]", "_", tool), tool, limit)
    return f"{server}__{tool}"


def _marked(fitted: str, original: str, limit: int) -> str:
    mark = hashlib.sha256(original.encode()).hexdigest()[:8]
    return f"{fitted[: limit - len(mark) - 1]}-{mark}"


def definition(tool: mcp_types.Tool) -> tuple[str, Mapping[str, Any]]:
    """The description and the parameters as a provider takes them.

    One schema that a provider refuses would fail every request of the session. Such a tool takes any arguments, and
    the model reads in the description what the server has to say about them; the server checks them in any case.
    """
    description = cut_output(tool.description or tool.name, DESCRIPTION_LIMIT)
    schema = tool.input_schema
    text = json.dumps(schema, ensure_ascii=False)
    if len(text) <= SCHEMA_LIMIT:
        merged = _merged(schema)
        if merged is not None and _acceptable(merged):
            if merged is not schema:
                conditions = {key: schema[key] for key in sorted(REFUSED_AT_THE_TOP & schema.keys())}
                said = cut_output(json.dumps(conditions, ensure_ascii=False), DESCRIPTION_LIMIT)
                description = f"{description}\nIts arguments also have to fit: {said}"
            return description, _without_patterns(merged)
    return f"{description}\nIts arguments: {cut_output(text, DESCRIPTION_LIMIT)}", {"type": "object"}


def _merged(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema with the fields of its `anyOf`, `oneOf` and `allOf` in `properties`, so that a provider takes them and the
    model sees them. None when a branch is no object schema of this document.
    """
    if not REFUSED_AT_THE_TOP & schema.keys():
        return schema
    # Without additionalProperties: it spoke of the fields at the top alone.
    kept = {key: value for key, value in schema.items() if key not in REFUSED_AT_THE_TOP | {"additionalProperties"}}
    fields: dict[str, list[Any]] = {}
    required = set(_strings(schema.get("required")))
    parts = [schema]
    for keyword in ("anyOf", "oneOf", "allOf"):
        branches = [_followed(branch, schema) for branch in _items(schema.get(keyword))]
        if not all(isinstance(branch, dict) and branch.get("type", "object") == "object" for branch in branches):
            return None
        parts += branches
        demands = [set(_strings(branch.get("required"))) for branch in branches]
        if demands:
            required |= set.union(*demands) if keyword == "allOf" else set.intersection(*demands)
    for part in parts:
        properties = part.get("properties")
        for name, field in (properties if isinstance(properties, dict) else {}).items():
            if field not in fields.setdefault(name, []):
                fields[name].append(field)
    kept["properties"] = {name: each[0] if len(each) == 1 else {"anyOf": each} for name, each in fields.items()}
    kept.pop("required", None)
    return {**kept, "required": sorted(required)} if required else kept


def _followed(branch: object, schema: Mapping[str, Any]) -> Any:
    """A branch, or the definition of this document that it refers to."""
    reference = branch.get("$ref") if isinstance(branch, dict) else None
    if not isinstance(reference, str):
        return branch
    place, _, name = reference.removeprefix("#/").partition("/")
    definitions = schema.get(place)
    return definitions.get(name) if place in ("$defs", "definitions") and isinstance(definitions, dict) else None


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(value: object) -> list[str]:
    return [each for each in _items(value) if isinstance(each, str)]


def _acceptable(schema: Mapping[str, Any]) -> bool:
    if schema.get("type") != "object" or REFUSED_AT_THE_TOP & schema.keys():
        return False
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError):
        return False
    return True


def _without_patterns(schema: Any) -> Any:
    """The schema with its regular expressions told in descriptions, for the server alone to check: there are some that
    Python takes years to match against a line of text, in which nothing else could happen.
    """
    if isinstance(schema, list):
        return [_without_patterns(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _without_patterns(item) for name, item in schema.items()}
    if isinstance(kept.get("pattern"), str):  # a property of that name has a schema
        kept["description"] = f"{kept.get('description', '')} [pattern: {kept.pop('pattern')}]".strip()
    if "patternProperties" in kept:
        del kept["patternProperties"]
        kept.pop("additionalProperties", None)  # which means all but those
    return kept


def render(content: Sequence[mcp_types.ContentBlock], structured: object = None, failed: bool = False) -> ToolResult:
    """What a call has answered: its text, in which images are described, and the images.

    The protocol asks servers to put structured content into the text as well, for older clients. It is shown when they
    have not: the text is then a summary, and the data are what was asked for.
    """
    blocks = [_rendered(block) for block in content]
    parts = [text for text, _ in blocks]
    if structured is not None and not _repeats([block.text for block in content if block.type == "text"], structured):
        parts.append(json.dumps(structured, ensure_ascii=False))
    images = tuple(image for _, image in blocks if image is not None)
    return ToolResult("\n".join(parts) or "[no output]", not failed, images)


def _repeats(texts: Sequence[str], structured: object) -> bool:
    """Whether the text says what the structured content says."""
    # The official SDK for Python wraps what is no object, and puts the items of a list into texts of their own.
    bare = structured["result"] if isinstance(structured, dict) and structured.keys() == {"result"} else structured
    values = [_parsed(text) for text in texts]
    return any(said in (structured, bare) for said in (*texts, *values)) or bare in (list(texts), values)


def _parsed(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def _rendered(block: mcp_types.ContentBlock) -> tuple[str, Image | None]:
    """A block as text, and the image that it is."""
    if block.type == "text":
        return block.text, None
    if block.type == "image":
        return _picture(block.data, f"image, {block.mime_type}")
    if block.type == "audio":
        return f"[audio, {block.mime_type}, {_size(block.data)} bytes]", None
    if block.type == "resource_link":
        return f"[resource {block.uri}: {block.description or block.name}]", None
    resource = block.resource
    text = getattr(resource, "text", None)
    if isinstance(text, str):
        return text, None
    blob = getattr(resource, "blob", "")
    media_type = resource.mime_type or mimetypes.guess_type(resource.uri)[0] or "application/octet-stream"
    what = f"resource {resource.uri}, {media_type}"
    if media_type.startswith("image/"):
        return _picture(blob, what)
    if TEXT_TYPES.fullmatch(media_type.partition(";")[0].strip().lower()):
        with contextlib.suppress(ValueError):
            return base64.b64decode(blob, validate=True).decode("utf-8-sig"), None
    return f"[{what}, {_size(blob)} bytes]", None


def _picture(data: str, what: str) -> tuple[str, Image | None]:
    """An image by its bytes, and what it is in words; the server's word for its type is not relied on."""
    try:
        image = Image.of(base64.b64decode(data))
    except ImageProblem as problem:
        return f"[{what}, {_size(data)} bytes: it is {problem}]", None
    except ValueError:
        return f"[{what}, {_size(data)} bytes: it is no valid base64]", None
    return f"[{what}: {image.description}]", image


def _size(data: str) -> int:
    """Bytes that base64 stands for."""
    return len(data.rstrip("=")) * 3 // 4
