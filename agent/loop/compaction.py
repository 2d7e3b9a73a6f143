"""How a conversation that grows too long for the model is made shorter. Decisions only; `compactor` does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.conversation import Conversation
from agent.loop.images import TOO_LONG
from agent.messages import Message, text_tokens
from agent.tools.tool import cut_output

TRIGGER = 0.9
"""Part of the model's window that may be full before a call."""

TAIL = 0.3
"""Part of it that the last exchanges, which are kept as they are, may take."""

TRANSCRIPT = 0.75
"""Part of it that the text to be summarised may take in the request for its summary."""

WORTHWHILE = 200
"""Tokens; a shorter stretch is kept as it is."""

FIRST = 0.25
"""Part of it that the first message may take to be kept as it is."""

MAX_PIECES = 12
"""Requests for the summary of one part, about so many at most; what is left out of a longer one is its middle."""

SHORT_RESULTS = (2_000, 300)
"""Characters that a tool's result is cut to, one after the other, when summarising alone does not help."""

SUMMARY_REQUEST = """\
You summarise a part of a conversation between a person and an agent that works with tools, so that the agent can go \
on without that part. Keep what was asked for and decided, what was found out (names, paths, numbers, error messages \
as they were), what was done and changed, what failed and why, and what is still to be done. Leave out greetings and \
repetitions. Write plain text, as short as that allows."""

SUMMARY_INTRODUCTION = "[This stands for an earlier part of the conversation.]\n"


def total_tokens(messages: Sequence[Message]) -> int:
    """An estimate."""
    return sum(message.tokens for message in messages)


def context_tokens(conversation: Conversation, overhead: int) -> int:
    """What the next request will take: the provider's last count where there is one, and an estimate of what is new.

    `overhead` is an estimate of what is not in the conversation: the system message and the tools.
    """
    if conversation.measured is None:
        return overhead + total_tokens(conversation.messages)
    counted, tokens = conversation.measured
    return tokens + total_tokens(conversation.messages[counted:])


@dataclass(frozen=True)
class Cut:
    """A conversation in parts: `early` and `late` are to be summarised, the others stay as they are.

    The person's last message is between the two, so that undo still finds the work that followed it.
    """

    first: tuple[Message, ...]
    early: tuple[Message, ...]
    said: tuple[Message, ...]
    late: tuple[Message, ...]
    tail: tuple[Message, ...]


def choose_cut(messages: Sequence[Message], tail_tokens: int) -> Cut:
    """Keep the first message, the last one of a person, and as many of the last exchanges as `tail_tokens` hold.

    At least the last exchange is kept, and a call is never parted from its results. A first message that is too long to be
    carried along is summarised with what follows, unless it is the last one of a person, too.
    """
    tail_at = _tail_start(messages, tail_tokens)
    said_at = max((at for at, message in enumerate(messages) if message.from_person), default=0)
    if said_at and messages[0].tokens > FIRST / TAIL * tail_tokens:
        rest = min(said_at, tail_at)
        if said_at >= tail_at:
            return Cut((), tuple(messages[:rest]), (), (), tuple(messages[tail_at:]))
        return Cut(
            (), tuple(messages[:rest]), (messages[said_at],), tuple(messages[said_at + 1 : tail_at]), tuple(messages[tail_at:])
        )
    if said_at == 0 or said_at >= tail_at:
        before_tail = tuple(messages[1:tail_at])
        early, late = (before_tail, ()) if said_at else ((), before_tail)
        return Cut(tuple(messages[:1]), early, (), late, tuple(messages[max(1, tail_at) :]))
    return Cut(
        tuple(messages[:1]),
        tuple(messages[1:said_at]),
        (messages[said_at],),
        tuple(messages[said_at + 1 : tail_at]),
        tuple(messages[tail_at:]),
    )


def _tail_start(messages: Sequence[Message], tail_tokens: int) -> int:
    start, size, at = len(messages), 0, len(messages)
    while at > 1:
        end, at = at, at - 1
        while messages[at].role == "tool":
            at -= 1
        size += total_tokens(messages[at:end])
        if size > tail_tokens and start < len(messages):
            break
        start = at
    return start


def summary_of(part: Sequence[Message], summary: str) -> Message:
    """The message that takes the place of a part; never longer than half of it."""
    text = cut_output(summary, max(100, len(transcript(part)) // 2 - len(SUMMARY_INTRODUCTION)))
    stands_for_a_person = any(message.from_person or message.origin == "summary" for message in part)
    return Message("user", SUMMARY_INTRODUCTION + text, origin="summary" if stands_for_a_person else "note")


def with_short_results(messages: Sequence[Message], length: int) -> tuple[Message, ...]:
    """The same messages with the results of tools cut to so many characters, and without images."""
    return tuple(
        replace(message, content=cut_output(message.content, length)).without_images(TOO_LONG)
        if message.role == "tool"
        else message
        for message in messages
    )


def transcript(part: Sequence[Message]) -> str:
    """A part of a conversation as text to be read."""
    lines: list[str] = []
    for message in part:
        if message.content:
            lines.append(f"{message.role}: {message.content}")
        lines.extend(f"{message.role} calls {call.name} {call.arguments}" for call in message.tool_calls)
    return "\n".join(lines)


def first_piece(text: str, tokens: int, most: int) -> tuple[str, str]:
    """The beginning of the text with about so many tokens, up to the end of a line where that is possible, and the rest.

    What is more than `most` such pieces is cut out of the middle of the text first.
    """
    size = max(1, len(text) * tokens // text_tokens(text))
    if len(text) <= size:
        return text, ""
    text = cut_output(text, max(1, most) * size)
    end = text.rfind("\n", size // 2, size) + 1 or size
    return text[:end], text[end:]


def too_long_message(messages: Sequence[Message]) -> int | None:
    """Tokens of what a person said last, if it takes more than half of the conversation."""
    said = next((message for message in reversed(messages) if message.from_person), None)
    if said is None or 2 * said.tokens < total_tokens(messages):
        return None
    return said.tokens
