"""Detects a model that repeats the same calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agent.messages import Message, ToolCall

WINDOW = 30
"""How many of the last calls are checked."""

IDENTICAL = 3
"""This many identical calls in a row are a loop."""

LONGEST_SEQUENCE = 5
"""A sequence of 2 up to this many calls is a loop if it occurs twice in a row."""

Pattern = tuple[tuple[str, str], ...]


class Done(NamedTuple):
    """A call that was made, and what it gave: the same call with another result is progress, as in polling."""

    name: str
    arguments: str
    result: str


def find_loop(done: Sequence[Done]) -> Pattern | None:
    """The names and arguments that the last calls repeat, with the same results; None when they do not.

    The pattern begins at its least call, so that a loop is the same one wherever in it the model is.
    """
    done = done[-WINDOW:]
    if len(done) >= IDENTICAL and len(set(done[-IDENTICAL:])) == 1:
        return (done[-1][:2],)
    for length in range(2, LONGEST_SEQUENCE + 1):
        last, previous = done[-length:], done[-2 * length : -length]
        if len(previous) == length and list(last) == list(previous):
            pairs = [call[:2] for call in last]
            return min(tuple(pairs[at:] + pairs[:at]) for at in range(length))
    return None


def calls_of_turn(messages: Sequence[Message]) -> list[Done]:
    """The calls since a person last said something, in the order of their results."""
    calls: dict[str, ToolCall] = {}
    done: list[Done] = []
    for message in messages:
        if message.from_person:
            done = []
        calls |= {call.id: call for call in message.tool_calls}
        if message.tool_call_id in calls:
            call = calls[message.tool_call_id]
            done.append(Done(call.name, call.arguments, message.content))
    return done


def warning(pattern: Pattern) -> str:
    """What the model is told, once."""
    names = ", ".join(name for name, _ in pattern)
    what = f"{names} with the same arguments {IDENTICAL} times" if len(pattern) == 1 else f"the sequence {names} twice"
    return (
        f"You have called {what} in a row. Doing it again will give the same. Think about what you want to find out "
        "and do something else; or, if you cannot get on, say what is in the way and end your turn."
    )
