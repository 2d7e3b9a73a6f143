from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

from hypothesis import given
from hypothesis import strategies as st

from agent.redaction import MASK, Redactor

SECRET = 'hf_Sëcret"/value+42'
short = st.text("abc", min_size=6, max_size=8)


def test_every_form_of_a_secret_is_masked() -> None:
    redactor = Redactor([SECRET])
    in_json = (json.dumps(SECRET)[1:-1], json.dumps(SECRET)[1:-1].replace("/", "\\/"))
    in_addresses = (quote(SECRET), quote(SECRET, safe=""), quote_plus(SECRET), "hf_S%c3%abcret%22%2fvalue%2b42")
    for form in (SECRET, *in_json, *in_addresses):
        assert redactor.text(f"<{form}>") == f"<{MASK}>"


@given(st.binary(max_size=7), st.binary(max_size=7))
def test_base64_of_text_around_a_secret_does_not_give_it_away(before: bytes, after: bytes) -> None:
    text = base64.b64encode(before + SECRET.encode() + after).decode()
    masked = Redactor([SECRET]).text(text)
    assert MASK in masked
    # What is left cannot hold more of it than a byte at either end.
    left = masked.replace(MASK, "")
    assert len(left) * 6 / 8 <= len(before) + len(after) + 6


@given(st.lists(short, min_size=1, max_size=3), st.text("abc", max_size=60), st.lists(st.integers(1, 9), max_size=60))
def test_text_in_pieces_is_masked_like_text_in_one(secrets: list[str], text: str, sizes: list[int]) -> None:
    redactor = Redactor(secrets)
    stream = redactor.stream()
    shown, rest = "", text
    for size in sizes:
        piece, rest = rest[:size], rest[size:]
        shown += stream.feed(piece)
    shown += stream.feed(rest) + stream.flush()
    assert shown == redactor.text(text)


def test_ordinary_text_is_not_held_back() -> None:
    assert Redactor([SECRET]).stream().feed("nothing to hide") == "nothing to hide"
    assert Redactor([]).stream().feed(SECRET) == SECRET


def test_short_values_are_left_alone_and_values_inside_json_are_found() -> None:
    redactor = Redactor(["true", SECRET])
    assert redactor.value({"a": [f"x{SECRET}", True, 1], SECRET: None}) == {"a": [f"x{MASK}", True, 1], MASK: None}
    assert redactor.text("true") == "true"
