"""Replacing text in a file's content, with any line ends."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

NEAREST_LINES = 20_000
"""Most lines of a file that are compared with a text that was not found."""

NEAREST_LENGTH = 200
"""Characters of a line that are compared and shown."""

NEAREST_RATIO = 0.6
"""How alike a line must be to be shown (difflib's measure, 0 to 1)."""

SHOWN_LINES = 12

_END = re.compile(rb"\r?\n")


def pattern(old: bytes) -> re.Pattern[bytes]:
    """What finds `old`. Its line ends match both kinds, because `read` does not show which. A text with a carriage return must
    occur exactly so."""
    if b"\r" in old:
        return re.compile(re.escape(old))
    return re.compile(rb"\r?\n".join(map(re.escape, old.split(b"\n"))))


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    """`content` with `new` for each `old`. Lines that stay, or take the place of one, keep its end; others get the usual."""
    if b"\r" in old:
        return content.replace(old, new)
    before, after = old.split(b"\n"), _END.sub(b"\n", new).split(b"\n")
    leading = len(before) if len(before) == len(after) else _equal(before, after)
    trailing = min(_equal(before[::-1], after[::-1]), len(before) - leading, len(after) - leading)

    def put(match: re.Match[bytes]) -> bytes:
        ends = _END.findall(match[0])
        usual = max(ends, key=ends.count) if ends else _end_near(content, match.start(), match.end())
        pieces = []
        for number, line in enumerate(after):
            from_last = len(after) - 1 - number  # ends that follow
            if from_last == 0:
                end = b""
            elif number < leading and number < len(ends):
                end = ends[number]
            elif from_last < trailing and from_last <= len(ends):
                end = ends[-from_last]
            else:
                end = usual
            pieces.append(line + end)
        return b"".join(pieces)

    return pattern(old).sub(put, content)


def _equal(one: list[bytes], other: list[bytes]) -> int:
    """How many lines are equal from the first on."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


def _end_near(content: bytes, start: int, stop: int) -> bytes:
    """The line end behind this place; before it, where there is none behind."""
    found = _END.search(content, stop)
    if found is not None:
        return found[0]
    last = content.rfind(b"\n", 0, start)
    return b"\r\n" if last > 0 and content[last - 1 : last] == b"\r" else b"\n"


def nearest(content: bytes, old: bytes) -> str:
    """The lines that are most like a text that was not found, with their numbers; empty when none is."""
    wanted = [line.strip() for line in old.decode(errors="replace").splitlines()]
    anchor = max(wanted, key=len, default="")[:NEAREST_LENGTH]
    if not anchor:
        return ""
    lines = content.decode(errors="replace").split("\n")[:NEAREST_LINES]
    matcher = SequenceMatcher(b=anchor, autojunk=False)
    best, best_ratio = -1, NEAREST_RATIO
    for number, line in enumerate(lines):
        matcher.set_seq1(line.strip()[:NEAREST_LENGTH])
        if matcher.real_quick_ratio() > best_ratio and matcher.quick_ratio() > best_ratio and matcher.ratio() > best_ratio:
            best, best_ratio = number, matcher.ratio()
    if best < 0:
        return ""
    first = max(0, best - next(place for place, line in enumerate(wanted) if line.startswith(anchor)))
    shown = lines[first : first + min(len(wanted), SHOWN_LINES)]
    return "\n".join(f"{number:6}\t{line.rstrip()[:NEAREST_LENGTH]}" for number, line in enumerate(shown, first + 1))
