from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket in it (108 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="as-"))
    yield path
    shutil.rmtree(path)
