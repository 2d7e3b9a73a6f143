"""Decisions are functions of values: what import contracts cannot see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "operator" / "agentsession_operator"
PURE = [path for room in ("api", "decisions", "manifests") for path in sorted((PACKAGE / room).rglob("*.py"))]


@pytest.mark.parametrize("path", PURE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_pure_room_neither_awaits_nor_asks_for_the_time(path: Path) -> None:
    assert not re.findall(r"\bdatetime\.(?:now|utcnow|today)\b|\basync def\b|\bawait\b", path.read_text())
