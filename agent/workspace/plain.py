"""What a terminal would show of a text: without colors, and of a line that was written again and again the last version."""

from __future__ import annotations

import re

HELD_LIMIT = 64 * 1024
"""Characters of an unfinished line that are held back, because it may be written again."""

SEQUENCE_LIMIT = 4096
"""Characters of an unfinished escape sequence that are held back."""

SEQUENCE = re.compile(
    r"""
    \x1b\[ [0-?]* [ -/]* [@-~]                # CSI: colors, cursor
    | \x1b[\]PX^_] [^\x07\x1b]* (?:\x07|\x1b\\)   # OSC, DCS, SOS, PM, APC: titles, links
    | \x1b [ -/]* [0-OQ-WYZ\\`-~]             # one character, with intermediate ones
    | \x1b | \x07                             # what begins nothing, and the bell
    """,
    re.VERBOSE,
)
"""ECMA-48, as far as terminals have it."""

UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)\Z")


class Plain:
    """Text in pieces, as a terminal would show it. Text behind a carriage return replaces its line."""

    def __init__(self) -> None:
        self._held = ""
        """The end of the text: a line, or a part of one, that is not finished."""

    def feed(self, text: str) -> str:
        """The text up to its last finished line."""
        text = self._held + text
        held_back = ""
        unfinished = UNFINISHED.search(text)
        if unfinished is not None and len(unfinished[0]) <= SEQUENCE_LIMIT:
            text, held_back = text[: unfinished.start()], unfinished[0]
        *lines, last = SEQUENCE.sub("", text).split("\n")
        out = "".join(f"{_last_version(line)}\n" for line in lines)
        if "\r" in last.rstrip("\r"):
            last = _last_version(last) + "\r" * last.endswith("\r")
        if len(last) > HELD_LIMIT:
            out, last = out + last, ""
        self._held = last + held_back
        return out

    def rest(self) -> str:
        """What is left of the text at its end."""
        return _last_version(SEQUENCE.sub("", UNFINISHED.sub("", self._held)))


def _last_version(line: str) -> str:
    """What a terminal shows of a line, if each version is as long as the one before it."""
    line = line.rstrip("\r")
    shown = line[line.rfind("\r") + 1 :]
    return _without_backspaces(shown) if "\b" in shown else shown


def _without_backspaces(line: str) -> str:
    shown: list[str] = []
    for character in line:
        if character != "\b":
            shown.append(character)
        elif shown:
            shown.pop()
    return "".join(shown)
