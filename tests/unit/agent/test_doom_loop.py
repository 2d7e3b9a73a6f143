from __future__ import annotations

import pytest

from agent.doom_loop import find_loop
from agent.messages import ToolCall


def sequence(names: str) -> list[ToolCall]:
    return [ToolCall(str(at), name, "{}") for at, name in enumerate(names)]


@pytest.mark.parametrize(
    ("names", "looping"),
    [
        ("", False),
        ("aa", False),
        ("aaa", True),
        ("baaa", True),
        ("aaab", False),
        ("abab", True),
        ("xabcabc", True),
        ("abcdeabcde", True),
        ("abcdefabcdef", False),
        ("abac", False),
    ],
)
def test_what_counts_as_a_loop(names: str, looping: bool) -> None:
    assert (find_loop(sequence(names)) is not None) is looping


def test_a_loop_is_the_same_wherever_in_it_the_model_is() -> None:
    assert find_loop(sequence("abab")) == find_loop(sequence("ababa")) == find_loop(sequence("ababab"))
