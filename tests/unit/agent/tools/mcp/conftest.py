"""Servers of these tests may start slowly on a loaded machine."""

from __future__ import annotations

import pytest

from agent.tools.mcp import connection


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until a server has started; what happens when it takes too long has a test of its own."""
    monkeypatch.setattr(connection, "OPEN_WAIT", 120.0)
