from __future__ import annotations

import pytest

from agent.doom_loop import Done, calls_of_turn, find_loop
from agent.messages import Message, ToolCall


def sequence(names: str) -> list[Done]:
    return [Done(name, "{}", "same") for name in names]


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


@pytest.mark.parametrize("names", ["aaaaaa", "ababab"])
def test_polling_with_changing_results_is_no_loop(names: str) -> None:
    assert find_loop([Done(name, "{}", f"{at} % done") for at, name in enumerate(names)]) is None


def test_calls_count_since_a_person_spoke_with_their_results() -> None:
    calls = tuple(ToolCall(name, "look", "{}") for name in "ab")
    messages = (
        Message("user", "go"),
        Message("assistant", "", calls),
        Message("tool", "1", tool_call_id="a"),
        Message("tool", "2", tool_call_id="b"),
    )
    assert calls_of_turn(messages) == [Done("look", "{}", "1"), Done("look", "{}", "2")]
    assert calls_of_turn((*messages, Message("user", "stop"))) == []
