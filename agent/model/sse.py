"""Server-sent events out of bytes that arrive in pieces, with the liberties that model servers take."""

from __future__ import annotations

import codecs
import re

MAX_EVENT = 16 * 1024 * 1024
"""Characters of one event, at most."""

_LINE_END = re.compile("\r\n|\n|\r")


class EventTooLong(Exception):
    """An event is longer than `MAX_EVENT`."""


class EventDecoder:
    """Takes bytes, gives the data of events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    A line of data that is followed by another is an event of its own unless it is unfinished JSON: not all servers put an
    empty line between two events. That is left to the reader: each event is a list of its lines of data.
    """

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._lines: list[str] = []

    def feed(self, data: bytes) -> list[list[str]]:
        """The events that these bytes complete."""
        return self._take(self._text.decode(data))

    def end(self) -> list[list[str]]:
        """The last event, which nothing may have ended."""
        return self._take(self._text.decode(b"", True) + "\n\n")

    def _take(self, text: str) -> list[list[str]]:
        text = self._rest + text
        if len(text) > MAX_EVENT:
            raise EventTooLong
        # A carriage return at the end may be the first half of a line's end.
        keep_from = len(text) - 1 if text.endswith("\r") else len(text)
        *lines, last = _LINE_END.split(text[:keep_from])
        self._rest = last + text[keep_from:]
        events = []
        for line in lines:
            name, _, value = line.partition(":")
            if name.lstrip("\ufeff") == "data":
                self._lines.append(value.removeprefix(" "))
            elif not line and self._lines:
                events.append(self._lines)
                self._lines = []
        return events
