"""What several tests of the agent use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.workspace.local import LocalWorkspace


@pytest.fixture
def workspace(tmp_path: Path) -> LocalWorkspace:
    return LocalWorkspace(tmp_path, {"PATH": os.environ["PATH"], "GREETING": "hello"})
