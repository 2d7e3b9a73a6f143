"""Events as the session keeps and sends them: numbered, dated, and encoded once for the database and every subscriber."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from agent.events import TURN_ENDS

SLICE: Final = 64 * 1024
"""Bytes that are handed to a connection at once. asyncio's transports take no more until these are nearly sent."""


@dataclass(frozen=True)
class Draft:
    """An event that has no number yet."""

    type: str
    data: Mapping[str, Any]
    time: datetime
    submission_id: str | None = None


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Frame:
    """One event as it goes over the wire."""

    seq: int
    submission_id: str | None
    time: str
    body: str
    """The event as JSON: `seq`, `type`, `time`, `submission_id`, `data`."""


def slices(frames: Iterable[Frame], characters: int = SLICE) -> Iterator[bytes]:
    """The frames as server-sent events (WHATWG HTML, 9.2.5), in pieces of at most so many bytes.

    What a follower is sent waits in memory until it takes it. A long event is encoded piece by piece from the one text that all
    followers share. JSON has no raw line breaks, so one `data:` line is enough for each event.
    """
    piece = ""
    for frame in frames:
        head, start = f"id: {frame.seq}\ndata: ", 0
        if len(piece) + len(head) > characters:
            yield piece.encode()
            piece = ""
        piece += head
        while (room := max(0, characters - len(piece))) < len(frame.body) - start + len("\n\n"):
            yield (piece + frame.body[start : start + room]).encode()
            piece, start = "", min(start + room, len(frame.body))
        piece += frame.body[start:] + "\n\n"
    if piece:
        yield piece.encode()


def number(draft: Draft, seq: int) -> Frame:
    """The event with its place in the session."""
    time = timestamp(draft.time)
    body = {"seq": seq, "type": draft.type, "time": time, "submission_id": draft.submission_id, "data": draft.data}
    # Escaped to ASCII, because text that a tool printed may hold lone surrogates, which UTF-8 cannot carry.
    return Frame(seq, draft.submission_id, time, json.dumps(body, separators=(",", ":")))


def earliest(frames: Iterable[Frame], characters: int) -> list[Frame]:
    """The first of the frames that fit into so many characters; at least one, if there is any."""
    fitting: list[Frame] = []
    for frame in frames:
        characters -= len(frame.body)
        if fitting and characters < 0:
            break
        fitting.append(frame)
    return fitting


def latest(frames: Sequence[Frame], characters: int) -> list[Frame]:
    """The last of the frames that fit into so many characters; at least one, if there is any."""
    return earliest(reversed(frames), characters)[::-1]


def gap(after: int, continues_with: int, time: datetime) -> Frame:
    """Says that the events behind number `after` are gone, up to the one that it continues with.

    It has the number of the event before that one, so that a client that breaks off here resumes rightly.
    """
    return number(Draft("gap", {"after": after, "continues_with": continues_with}, time), continues_with - 1)


def joined(first: Draft, second: Draft) -> Draft | None:
    """Two neighbouring pieces of one message as one event; None when they are not that.

    A model streams some hundred pieces a second; the database and the subscribers get them four times a second.
    """
    if not (first.type == second.type == "assistant_chunk") or first.submission_id != second.submission_id:
        return None
    before, after = first.data, second.data
    if before.get("message_id") != after.get("message_id") or not ("text" in before and "text" in after):
        return None
    return replace(first, data={**before, "text": before["text"] + after["text"]})


def ends_submission(submission_type: str, event_type: str) -> bool:
    """Whether an event of this type is the last one of such a submission."""
    if submission_type in ("user_input", "approval"):
        return event_type in TURN_ENDS
    return event_type in _LAST_EVENTS.get(submission_type, ())


_LAST_EVENTS: Mapping[str, frozenset[str]] = {
    "undo": frozenset({"undo_complete", "error", "interrupted"}),
    "compact": frozenset({"compacted", "error", "interrupted"}),
    "shutdown": frozenset({"shutdown"}),
}


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC with milliseconds. `time` must be in UTC."""
    return time.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
