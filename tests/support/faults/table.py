"""The table of faults: what each test expects and what it saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    test: str
    fault: str
    expected: str
    seen: str
    holds: bool


Record = Callable[[str, str, str, bool], None]
"""Add a row: the fault, what is expected, what was seen, and whether the two agree. Fails the test if not."""
