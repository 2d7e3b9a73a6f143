"""What a tool's server asks a person in the middle of a call (MCP: elicitation), and what they answer. Values only.

A form is the flat subset of JSON Schema that MCP allows (2025-11-25, client features, elicitation): texts, numbers, booleans,
and choices. It is checked here and not by a validator of JSON Schema: a server's regular expressions are never run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit

Action = Literal["accept", "decline", "cancel"]

Kind = Literal["text", "number", "integer", "boolean", "choice", "choices"]

MAX_FIELDS: Final = 64
"""Fields of a form."""

MAX_FORM: Final = 20_000
"""Characters of a form as JSON."""

MAX_MESSAGE: Final = 4_000
"""Characters of a question's text."""

MAX_ADDRESS: Final = 2_048
"""Characters of an address that a person is asked to visit."""


class UnusableQuestion(ValueError):
    """A question that cannot be put to a person; the message says why, for the server."""


@dataclass(frozen=True)
class Question:
    """Asks for a form's values, or to visit an address, or only for consent."""

    server: str
    message: str
    form: Mapping[str, Any] | None = None
    """JSON Schema of a flat object."""
    url: str | None = None

    @property
    def reason(self) -> str:
        """Why the call waits, in words."""
        return f"the MCP server {self.server} asks: {self.message}"


@dataclass(frozen=True)
class OpenQuestion:
    """A question that waits for a person."""

    id: str
    tool_call_id: str
    tool: str
    arguments: dict[str, Any]
    """Of the call, with secrets masked."""
    question: Question
    parent: str | None = None
    """For a sub-agent's call, the id of the call that the sub-agent works for."""


@dataclass(frozen=True)
class QuestionAnswer:
    """What a person, or somebody for them, answers."""

    action: Action
    content: Mapping[str, Any] | None = None
    """The values of the form; what is missing has its default."""


DECLINED: Final = QuestionAnswer("decline")
CANCELLED: Final = QuestionAnswer("cancel")


@dataclass(frozen=True)
class FormField:
    """One field of a form."""

    name: str
    kind: Kind
    title: str
    description: str = ""
    required: bool = False
    default: Any = None
    """None when it has none."""
    choices: tuple[tuple[str, str], ...] = ()
    """Values and what people are shown for them."""
    least: float = -math.inf
    """Of the value, or of its length for texts and lists."""
    most: float = math.inf
    format: str = ""

    def problem(self, value: object) -> str | None:
        """What is wrong with a value; None when nothing is."""
        if not _fits_kind(self.kind, value):
            return f"must be {_KINDS[self.kind]}"
        if self.kind not in ("boolean", "choice") and not self.least <= _measured(value) <= self.most:
            return f"must {self._bounds()}"
        if self.choices:
            values = {known for known, _ in self.choices}
            wrong = [each for each in (value if isinstance(value, list) else [value]) if each not in values]
            return f"must be of: {', '.join(known for known, _ in self.choices)}" if wrong else None
        return f"must be {_FORMATS[self.format]}" if isinstance(value, str) and _misses_format(self.format, value) else None

    def read(self, text: str) -> Any:
        """The value that a person means by a line of text. Raises ValueError, in words."""
        value: Any = text
        match self.kind:
            case "integer" | "number":
                value = _number(text)
            case "boolean":
                value = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}.get(text.lower(), text)
            case "choice":
                value = self._chosen(text)
            case "choices":
                value = [self._chosen(each.strip()) for each in text.split(",") if each.strip()]
        problem = self.problem(value)
        if problem is not None:
            raise ValueError(problem)
        return value

    def _chosen(self, text: str) -> str:
        """The value with this number, name or label."""
        if text.isdecimal() and text not in dict(self.choices) and 0 < int(text) <= len(self.choices):
            return self.choices[int(text) - 1][0]
        return next((value for value, label in self.choices if text in (value, label)), text)

    def _bounds(self) -> str:
        unit = {"text": " characters", "choices": " values"}.get(self.kind, "")
        least = f"at least {self.least:g}" if self.least > -math.inf else ""
        most = f"at most {self.most:g}" if self.most < math.inf else ""
        return f"{'have' if unit else 'be'} {' and '.join(part for part in (least, most) if part)}{unit}"


def form_fields(form: Mapping[str, Any]) -> tuple[FormField, ...]:
    """The fields of a form, in its order. Raises UnusableQuestion."""
    properties = form.get("properties", {})
    if not isinstance(properties, Mapping) or len(properties) > MAX_FIELDS:
        raise UnusableQuestion(f"requestedSchema.properties is no object of at most {MAX_FIELDS} fields")
    required = form.get("required")
    names = required if isinstance(required, list) else []
    if missing := [name for name in names if not isinstance(name, str) or name not in properties]:
        raise UnusableQuestion(f"requestedSchema requires fields that it does not have: {', '.join(map(str, missing))}")
    return tuple(_field(name, schema, name in names) for name, schema in properties.items())


def checked(question: Question) -> Question:
    """The question, if it can be put to a person. Raises UnusableQuestion."""
    if question.form is not None:
        if len(json.dumps(question.form, ensure_ascii=False)) > MAX_FORM:
            raise UnusableQuestion(f"requestedSchema has more than {MAX_FORM} characters")
        form_fields(question.form)
    if question.url is not None and not _is_address(question.url):
        raise UnusableQuestion(f"url is no http or https address of at most {MAX_ADDRESS} characters")
    return question


def problems_with(question: Question, answer: QuestionAnswer) -> dict[str, str]:
    """What is wrong with an answer, by the fields of the form; "" stands for all of it. Empty when nothing is."""
    if answer.action != "accept" or question.form is None:
        return {} if answer.content is None else {"": "only an accepted form has content"}
    content = complete(question, answer).content or {}
    fields = {each.name: each for each in form_fields(question.form)}
    problems = {name: "the form has no such field" for name in content if name not in fields}
    for name, each in fields.items():
        problem = each.problem(content[name]) if name in content else "is required" if each.required else None
        if problem is not None:
            problems[name] = problem
    return problems


def complete(question: Question, answer: QuestionAnswer) -> QuestionAnswer:
    """The answer with the defaults of the form for what is missing in it (SEP-1034)."""
    if answer.action != "accept" or question.form is None:
        return answer
    defaults = {each.name: each.default for each in form_fields(question.form) if each.default is not None}
    return QuestionAnswer("accept", {**defaults, **(answer.content or {})})


# -- the parts of a form -----------------------------------------------------------------------------------------------

_KINDS: Final[Mapping[str, str]] = {
    "text": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "choice": "text",
    "choices": "a list of texts",
}

_FORMATS: Final[Mapping[str, str]] = {
    "email": "an email address",
    "uri": "an address with its scheme",
    "date": "a date as in 2026-12-31",
    "date-time": "a time as in 2026-12-31T23:59:59Z",
}


def _field(name: str, schema: object, required: bool) -> FormField:
    if not isinstance(schema, Mapping):
        raise UnusableQuestion(f"requestedSchema.properties.{name} is no schema")
    kind, choices = _kind(name, schema)
    low, high = _LIMITS.get(kind, ("minimum", "maximum"))
    made = FormField(
        name=name,
        kind=kind,
        title=_text(schema.get("title")) or name,
        description=_text(schema.get("description")),
        required=required,
        choices=choices,
        least=_limit(schema.get(low), -math.inf),
        most=_limit(schema.get(high), math.inf),
        format=_text(schema.get("format")),
    )
    default = schema.get("default")
    usable = default is not None and made.problem(default) is None
    return replace(made, default=default) if usable else made


_LIMITS: Final[Mapping[str, tuple[str, str]]] = {"text": ("minLength", "maxLength"), "choices": ("minItems", "maxItems")}


def _kind(name: str, schema: Mapping[str, Any]) -> tuple[Kind, tuple[tuple[str, str], ...]]:
    match schema.get("type"):
        case "string" if "enum" in schema or "oneOf" in schema or "anyOf" in schema:
            return "choice", _choices(name, schema)
        case "string":
            return "text", ()
        case "number" | "integer" | "boolean" as kind:
            return kind, ()
        case "array" if isinstance(schema.get("items"), Mapping):
            return "choices", _choices(name, schema["items"])
    raise UnusableQuestion(f"requestedSchema.properties.{name} is none of: text, number, integer, boolean, choice")


def _choices(name: str, schema: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Of `enum` (with the older `enumNames`), or of constants with titles."""
    found: list[tuple[str, str]] = []
    if isinstance(values := schema.get("enum"), list):
        names = schema.get("enumNames")
        labels = names if isinstance(names, list) and len(names) == len(values) else values
        found = [(value, str(label)) for value, label in zip(values, labels, strict=True) if isinstance(value, str)]
    options = schema.get("oneOf") or schema.get("anyOf")
    for option in options if isinstance(options, list) else ():
        if isinstance(option, Mapping) and isinstance(value := option.get("const"), str):
            found.append((value, _text(option.get("title")) or value))
    if not found:
        raise UnusableQuestion(f"requestedSchema.properties.{name} has nothing to choose from")
    return tuple(found)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _limit(value: object, otherwise: float) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def _number(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _fits_kind(kind: Kind, value: object) -> bool:
    match kind:
        case "text" | "choice":
            return isinstance(value, str)
        case "choices":
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
        case "boolean":
            return isinstance(value, bool)
    if isinstance(value, float):
        return math.isfinite(value) and (kind == "number" or value.is_integer())
    return isinstance(value, int) and not isinstance(value, bool)


def _measured(value: object) -> float:
    """What a field's limits are about: a number, or the length of anything else."""
    return value if isinstance(value, int | float) else len(value) if isinstance(value, str | list) else 0


def _misses_format(name: str, value: str) -> bool:
    try:
        match name:
            case "email":
                return not all(value.rpartition("@")) or any(each.isspace() for each in value)
            case "uri":
                return not urlsplit(value).scheme
            case "date":
                date.fromisoformat(value)
            case "date-time":
                datetime.fromisoformat(value)
                return "T" not in value.upper()
    except ValueError:
        return True
    return False


def _is_address(url: str) -> bool:
    try:
        address = urlsplit(url)
        port_is_valid = address.port is None or address.port > 0
    except ValueError:
        return False
    shown = len(url) <= MAX_ADDRESS and url.isprintable() and " " not in url
    return address.scheme in ("http", "https") and bool(address.hostname) and port_is_valid and shown
