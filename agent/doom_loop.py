"""Detects a model that repeats the same calls."""

from __future__ import annotations

from collections.abc import Sequence

from agent.messages import Message, ToolCall

WINDOW = 30
"""How many of the last calls are checked."""

IDENTICAL = 3
"""This many identical calls in a row are a loop."""

LONGEST_SEQUENCE = 5
"""A sequence of 2 up to this many calls is a loop if it occurs twice in a row."""

Pattern = tuple[tuple[str, str], ...]


def find_loop(calls: Sequence[ToolCall]) -> Pattern | None:
    """The names and arguments that the last calls repeat, None when they do not.

    The pattern begins at its least call, so that a loop is the same one wherever in it the model is.
    """
    done = [(call.name, call.arguments) for call in calls[-WINDOW:]]
    if len(done) >= IDENTICAL and len(set(done[-IDENTICAL:])) == 1:
        return (done[-1],)
    for length in range(2, LONGEST_SEQUENCE + 1):
        last, previous = done[-length:], done[-2 * length : -length]
        if len(previous) == length and last == previous:
            return min(tuple(last[at:] + last[:at]) for at in range(length))
    return None


def calls_of_turn(messages: Sequence[Message]) -> list[ToolCall]:
    """The calls since a person last said something."""
    calls: list[ToolCall] = []
    for message in messages:
        if message.from_person:
            calls = []
        calls.extend(message.tool_calls)
    return calls


def warning(pattern: Pattern) -> str:
    """What the model is told, once."""
    names = ", ".join(name for name, _ in pattern)
    what = f"{names} with the same arguments {IDENTICAL} times" if len(pattern) == 1 else f"the sequence {names} twice"
    return (
        f"You have called {what} in a row. Doing it again will give the same. Think about what you want to find out "
        "and do something else; or, if you cannot get on, say what is in the way and end your turn."
    )
