from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.redaction import MASK, Redactor, UnclearMask, without_surrogates

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


def test_each_line_of_a_longer_secret_is_masked() -> None:
    """A tool numbers the lines of a file, or shows some of them."""
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
    redactor = Redactor([key, "a\nb\nc\nd"])
    assert redactor.text("1\tMIIEvQIBADANBgkq\n") == f"1\t{MASK}\n"
    assert redactor.text(key).count(MASK) == 2
    assert MASK in redactor.text(json.dumps(key))
    assert redactor.text("a\nb\nc\nd") == MASK


def test_what_is_shown_as_masked_text_is_found_in_the_original() -> None:
    redactor = Redactor([SECRET, "another-secret"])
    text = f"key={SECRET}\nkey=another-secret\nkey={MASK}\nend"
    assert redactor.originals(f"key={MASK}\n", text) == [f"key={SECRET}\n", "key=another-secret\n", f"key={MASK}\n"]
    assert redactor.originals("end", text) == ["end"]
    assert redactor.originals("REDACTED]\nend", text) == []


def test_a_mask_stands_for_what_it_hid() -> None:
    redactor = Redactor([SECRET, "another-secret"])
    text = f"a: {SECRET}\nb: another-secret\n"
    assert redactor.restored(f"b: {MASK}\nc: 1\na: {MASK}\n", text) == f"b: another-secret\nc: 1\na: {SECRET}\n"
    assert redactor.restored(f"A={MASK} B={MASK}", text) == f"A={SECRET} B=another-secret"
    assert redactor.restored(f"x {MASK} {MASK}", f"a: {SECRET}") == f"x {SECRET} {SECRET}"
    assert redactor.restored(f"x {MASK}", "nothing hidden") == f"x {MASK}"
    with pytest.raises(UnclearMask, match="one of 2 hidden values"):
        redactor.restored(f"x {MASK}", text)
    before = {"command": f"echo {SECRET}", "more": [1, SECRET], "n": 1}
    after = {"command": f"printf {MASK}", "more": [2, MASK, MASK], "n": MASK, "new": MASK}
    found = redactor.restored(after, before)
    assert found == {"command": f"printf {SECRET}", "more": [2, SECRET, MASK], "n": MASK, "new": MASK}


def test_halves_of_surrogate_pairs_are_replaced_everywhere() -> None:
    replaced = {"a\N{REPLACEMENT CHARACTER}": ["\N{REPLACEMENT CHARACTER}", 1]}
    assert without_surrogates({"a\ud83d": ["\ud83d", 1]}) == replaced
