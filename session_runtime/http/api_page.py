"""The API's reference as one page for a person: the OpenAPI document in HTML, with nothing to load and nothing to run.

The usual pages load their scripts from the internet, which a cluster may not reach.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

CONTENT_SECURITY_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"

_STYLE: Final = """
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-top: 1px solid #bbb; padding-top: 1rem; font-family: monospace; }
table { border-collapse: collapse; }
td, th { border: 1px solid #bbb; padding: .2rem .6rem; text-align: left; vertical-align: top; }
code { background: #eee; padding: 0 .2rem; }
"""


def render(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document (3.1)."""
    info, schemas = document["info"], document.get("components", {}).get("schemas", {})
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(f"{info['title']} {info['version']}")
    body = [
        f"<h1>{title}</h1>",
        f"<p>{escape(info.get('description', ''))} Every path but the health checks needs the session's token: "
        "<code>Authorization: Bearer TOKEN</code>. The same for programs: <code>/v1/openapi.json</code>.</p>",
        *operations,
        "<h1>Types</h1>",
        *(_schema(name, schema) for name, schema in schemas.items()),
    ]
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    lines = ["<!DOCTYPE html>", f'<html lang="en"><head>{head}</head><body>', *body, "</body></html>", ""]
    return "\n".join(lines)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    text = operation.get("description") or operation.get("summary", "")
    parts = [f"<h2>{escape(f'{method.upper()} {path}')}</h2>", *_paragraphs(text)]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = ((f"{p['name']} ({p['in']})", _type(p["schema"]), p.get("description", "")) for p in parameters)
        parts.append(_table(("parameter", "type", ""), rows))
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body: <code>{escape(media_type)}</code>, {_type(content.get('schema', {}))}</p>")
    rows = ((status, _content(response), response["description"]) for status, response in operation["responses"].items())
    parts.append(_table(("status", "answer", ""), rows))
    return "\n".join(parts)


def _content(response: Mapping[str, Any]) -> str:
    answers = (
        f"<code>{escape(media_type)}</code> {_type(content.get('schema', {}))}"
        for media_type, content in response.get("content", {}).items()
    )
    return "<br>".join(answers)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = (
        (field + ("" if field in required else "?"), _type(about), about.get("description", ""))
        for field, about in schema.get("properties", {}).items()
    )
    heading = f'<h2 id="{escape(name)}">{escape(name)}</h2>'
    return "\n".join([heading, *_paragraphs(schema.get("description", "")), _table(("field", "type", ""), rows)])


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, as HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for one_of in ("oneOf", "anyOf"):
        if one_of in schema:
            return " or ".join(map(_type, schema[one_of]))
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    bounds = (f"{name} {schema[name]}" for name in _BOUNDS if name in schema)
    return escape(", ".join([schema.get("type", "anything"), *bounds]))


_BOUNDS: Final = ("minLength", "maxLength", "minimum", "maximum", "maxItems", "pattern")


def _table(heads: Iterable[str], rows: Iterable[tuple[str, str, str]]) -> str:
    """`rows` are a name, a type as HTML, and words about it."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    lines = (f"<tr><td><code>{escape(n)}</code></td><td>{t}</td><td>{escape(words)}</td></tr>" for n, t, words in rows)
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _paragraphs(text: str) -> Iterable[str]:
    return (f"<p>{escape(' '.join(part.split()))}</p>" for part in text.split("\n\n") if part.strip())
