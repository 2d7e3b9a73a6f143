"""Forms that servers ask people to fill in: what can be asked, how a line of text is read, and what fits."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.question import (
    CANCELLED,
    DECLINED,
    MAX_ADDRESS,
    MAX_FIELDS,
    MAX_FORM,
    Question,
    QuestionAnswer,
    UnusableQuestion,
    checked,
    complete,
    form_fields,
    problems_with,
)

TITLED = {"oneOf": [{"const": "w", "title": "Window"}, {"const": "a"}, {"title": "no value"}, "nonsense"]}


def form(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def asked(*required: str, **properties: Any) -> Question:
    return Question("travel", "Which seat?", {**form(**properties), "required": list(required)})


def accepted(**content: Any) -> QuestionAnswer:
    return QuestionAnswer("accept", content)


def problem(schema: dict[str, Any], value: object) -> str | None:
    (field,) = form_fields(form(it=schema))
    return field.problem(value)


# What can be asked.


def test_fields_have_their_kinds_choices_and_words() -> None:
    fields = form_fields(
        form(
            name={"type": "string", "title": "Your name", "description": "As in the passport"},
            age={"type": "integer", "minimum": 0},
            weight={"type": "number"},
            sure={"type": "boolean", "default": False},
            seat={"type": "string", **TITLED},
            meal={"type": "string", "enum": ["m", "v"], "enumNames": ["Meat", "Vegetables"]},
            old={"type": "string", "enum": ["m", "v"], "enumNames": ["Meat"]},
            days={"type": "array", "items": {"type": "string", "enum": ["sat", "sun"]}},
            rooms={"type": "array", "items": {"anyOf": [{"const": "x", "title": "X-ray"}]}},
        )
    )
    assert [(field.name, field.kind) for field in fields] == [
        ("name", "text"),
        ("age", "integer"),
        ("weight", "number"),
        ("sure", "boolean"),
        ("seat", "choice"),
        ("meal", "choice"),
        ("old", "choice"),
        ("days", "choices"),
        ("rooms", "choices"),
    ]
    assert (fields[0].title, fields[0].description, fields[1].title) == ("Your name", "As in the passport", "age")
    assert [field.choices for field in fields[4:]] == [
        (("w", "Window"), ("a", "a")),
        (("m", "Meat"), ("v", "Vegetables")),
        (("m", "m"), ("v", "v")),
        (("sat", "sat"), ("sun", "sun")),
        (("x", "X-ray"),),
    ]
    assert form_fields({}) == ()


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"properties": []}, "no object"),
        ({"properties": {str(n): {"type": "string"} for n in range(MAX_FIELDS + 1)}}, "at most 64 fields"),
        ({"properties": {"a": "text"}}, "a is no schema"),
        ({"properties": {"a": {"type": "object"}}}, "a is none of"),
        ({"properties": {"a": {"type": "array"}}}, "a is none of"),
        ({"properties": {"a": {"type": ["string", "null"]}}}, "a is none of"),
        ({"properties": {"a": {"type": "string", "enum": [1, 2]}}}, "a has nothing to choose from"),
        ({"properties": {}, "required": ["a", 1]}, "requires fields that it does not have: a, 1"),
        (form(a={"type": "string", "description": "x" * MAX_FORM}), "more than 20000 characters"),
    ],
)
def test_a_form_that_cannot_be_filled_in_is_refused(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(UnusableQuestion, match=why):
        checked(Question("travel", "?", schema))


def test_an_address_must_be_one_that_a_person_can_read_and_visit() -> None:
    for url in ("https://example.com/sign?x=1", "http://127.0.0.1:8000/"):
        assert checked(Question("a", "?", url=url)).url == url
    for url in (
        "javascript:alert(1)",
        "https://",
        "https://example.com/a b",
        "https://example.com/\u202ebad",
        "https://example.com:99999/",
        "https://[",
        "https://example.com/" + "x" * MAX_ADDRESS,
    ):
        with pytest.raises(UnusableQuestion, match="no http or https address"):
            checked(Question("a", "?", url=url))


def test_what_a_server_asks_is_said_with_its_name() -> None:
    assert asked().reason == "the MCP server travel asks: Which seat?"


# What fits.


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, ["", "x"], [1, None, True, ["x"]]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd"]),
        ({"type": "string", "format": "email"}, ["a@b"], ["a", "@b", "a@", "a @b"]),
        ({"type": "string", "format": "uri"}, ["mailto:a@b", "https://x"], ["x", "//["]),
        ({"type": "string", "format": "date"}, ["2026-12-31"], ["2026-13-31", "tomorrow"]),
        ({"type": "string", "format": "date-time"}, ["2026-12-31T10:00:00Z"], ["2026-12-31", "now"]),
        ({"type": "string", "format": "unheard-of"}, ["x"], []),
        ({"type": "number", "maximum": 10.5}, [1, 1.5, 10.5, -3], [11, "1", True, math.nan, math.inf]),
        ({"type": "integer", "minimum": 0}, [0, 3, 3.0, 10**400], [-1, 3.5, "3", False, math.inf]),
        ({"type": "integer", "minimum": "0", "maximum": True}, [-1, 5], []),
        ({"type": "boolean", "minimum": 5}, [True, False], [0, 1, "true"]),
        ({"type": "string", "minimum": 5, **TITLED}, ["w", "a"], ["Window", "", 1]),
        ({"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 1}, [[], ["a"]], [["a", "b"], ["c"], "a", [1]]),
    ],
)
def test_a_value_fits_or_does_not(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if problem(schema, value) is not None] == []
    assert [value for value in bad if problem(schema, value) is None] == []


def test_what_is_wrong_with_a_value_says_what_would_be_right() -> None:
    assert problem({"type": "integer"}, 1.5) == "must be a whole number"
    assert problem({"type": "integer", "minimum": 1, "maximum": 9}, 10) == "must be at least 1 and at most 9"
    assert problem({"type": "string", "maxLength": 3}, "long") == "must have at most 3 characters"
    assert problem({"type": "array", "items": {"enum": ["a"]}, "minItems": 1}, []) == "must have at least 1 values"
    assert problem({"type": "string", "enum": ["a", "b"]}, "c") == "must be of: a, b"
    assert problem({"type": "string", "format": "email"}, "me") == "must be an email address"


def test_an_answer_is_checked_field_by_field() -> None:
    question = asked("name", "age", name={"type": "string"}, age={"type": "integer"}, seat={"type": "string"})
    assert problems_with(question, accepted(name="Ann", age=3)) == {}
    wrong = problems_with(question, accepted(age="3", hat="red"))
    assert wrong == {"hat": "the form has no such field", "name": "is required", "age": "must be a whole number"}


def test_only_an_accepted_form_has_content() -> None:
    for question in (asked(), Question("a", "?", url="https://x.example/")):
        for answer in (DECLINED, CANCELLED):
            assert problems_with(question, answer) == {}
            assert problems_with(question, QuestionAnswer(answer.action, {})) == {"": "only an accepted form has content"}
    visit = Question("a", "?", url="https://x.example/")
    assert problems_with(visit, QuestionAnswer("accept")) == {}
    assert problems_with(visit, accepted(x=1)) == {"": "only an accepted form has content"}


# Defaults.


def test_what_is_missing_in_an_accepted_form_has_its_default() -> None:
    question = asked(
        "name", name={"type": "string", "default": "Ann"}, sure={"type": "boolean", "default": False}, x={"type": "number"}
    )
    assert complete(question, QuestionAnswer("accept")).content == {"name": "Ann", "sure": False}
    assert complete(question, accepted(name="Bob", x=1)).content == {"name": "Bob", "sure": False, "x": 1}
    assert problems_with(question, QuestionAnswer("accept")) == {}
    assert complete(question, DECLINED) == DECLINED
    visit = Question("a", "?", url="https://x.example/")
    assert complete(visit, QuestionAnswer("accept")) == QuestionAnswer("accept")


def test_a_default_that_does_not_fit_is_none() -> None:
    (field,) = form_fields(form(age={"type": "integer", "minimum": 18, "default": 3}))
    assert field.default is None
    assert problems_with(asked("age", age={"type": "integer", "default": "3"}), QuestionAnswer("accept")) == {
        "age": "is required"
    }


# Lines of text.


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, " a b ", " a b "),
        ({"type": "integer"}, "42", 42),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "boolean"}, "Yes", True),
        ({"type": "boolean"}, "n", False),
        ({"type": "string", **TITLED}, "Window", "w"),
        ({"type": "string", **TITLED}, "a", "a"),
        ({"type": "string", **TITLED}, "2", "a"),
        ({"type": "string", "enum": ["2", "1"]}, "2", "2"),
        ({"type": "array", "items": {"enum": ["a", "b", "c"]}}, "1, c,", ["a", "c"]),
    ],
)
def test_a_line_of_text_becomes_a_value(schema: dict[str, Any], text: str, value: object) -> None:
    (field,) = form_fields(form(it=schema))
    assert field.read(text) == value
    assert type(field.read(text)) is type(value)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer"}, "many"),
        ({"type": "integer"}, "1.5"),
        ({"type": "boolean"}, "perhaps"),
        ({"type": "string", **TITLED}, "0"),
        ({"type": "string", **TITLED}, "3"),
        ({"type": "array", "items": {"enum": ["a"]}}, "a, b"),
    ],
)
def test_a_line_that_is_no_value_says_what_would_be_one(schema: dict[str, Any], text: str) -> None:
    (field,) = form_fields(form(it=schema))
    with pytest.raises(ValueError, match="must be"):
        field.read(text)


SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "enum", "oneOf", "items", "const", "title", "default", "minimum", "minLength", "properties"]
            ),
            inner | st.sampled_from(["string", "integer", "array", "boolean"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["properties", "required"]), SCHEMAS), st.dictionaries(st.text(max_size=3), SCHEMAS))
def test_anything_that_a_server_sends_is_a_form_or_refused(schema: dict[str, Any], content: dict[str, Any]) -> None:
    try:
        question = checked(Question("a", "?", schema))
    except UnusableQuestion:
        return
    complete(question, accepted(**content))
    assert all(isinstance(text, str) for text in problems_with(question, QuestionAnswer("accept", content)).values())
    json.dumps(question.form)
