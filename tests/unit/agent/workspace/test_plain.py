"""What the model sees of output that was made for a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workspace.plain import HELD_LIMIT, Plain


def shown(*pieces: str) -> str:
    plain = Plain()
    return "".join(map(plain.feed, pieces)) + plain.rest()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[1;31merror\x1b[0m: no\n", "error: no\n"),
        ("\x1b]0;title\x07text \x1b]8;;https://a.example\x1b\\link\x1b]8;;\x1b\\", "text link"),
        ("\x1b(Ba\x1b[?25lb\x1b[2Kc\x1b7d\x1bM\x1bPq data\x1b\\e", "abcde"),
        (" 1%\r 50%\r100%\ndone\n", "100%\ndone\n"),
        (" 1%\r 50%\r100%\r", "100%"),
        ("\x1b[2K\r 1%\x1b[2K\r 2%", " 2%"),
        ("one\r\ntwo\r\n", "one\ntwo\n"),
        ("s\bsh\bho\bow\bw |\b/\b\x07", "show "),
        ("\b\bx", "x"),
        ("a\tb\n\n  c", "a\tb\n\n  c"),
        ("cut off \x1b[3", "cut off "),
        ("\x1b", ""),
        ("", ""),
    ],
)
def test_the_model_sees_what_a_terminal_shows(text: str, plain: str) -> None:
    assert shown(text) == plain
    assert shown(*text) == plain, "in pieces of one character"


def test_the_last_character_of_a_spinner_is_taken_back() -> None:
    assert shown("working |\b/\b-\b\\\b \n") == "working  \n"


@given(st.lists(st.text(st.sampled_from("ab\r\n\b\x1b[0m]\x07\\;P "))))
def test_it_does_not_matter_how_the_text_is_cut(pieces: list[str]) -> None:
    assert shown(*pieces) == shown("".join(pieces))


def test_what_is_held_back_is_bounded() -> None:
    plain = Plain()
    assert plain.feed("x" * (HELD_LIMIT + 1)) == "x" * (HELD_LIMIT + 1)
    for number in range(3):
        assert plain.feed(f"\r{number}" + "y" * 50_000) == ""
    assert plain.rest() == "2" + "y" * 50_000
    assert len(plain.feed("\n\x1b]" + "z" * 2 * HELD_LIMIT)) > HELD_LIMIT
