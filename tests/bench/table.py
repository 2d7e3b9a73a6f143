"""How the benchmarks print: one table, a row as soon as it is known."""

from __future__ import annotations

NAME, FIGURE = 66, 32
"""Widths of the columns, in characters."""


def title(text: str) -> None:
    """Begin a part of the table."""
    print(f"\n{text}\n| {'-' * NAME} | {'-' * FIGURE} |", flush=True)


def row(what: str, figure: str) -> None:
    print(f"| {what:<{NAME}} | {figure:>{FIGURE}} |", flush=True)
