"""What the distribution holds, by building it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from images import plan


def test_the_wheel_is_typed_and_leaves_the_local_model_out(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=plan.ROOT, capture_output=True, timeout=60, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.split("-")[1] == tomllib.loads((plan.ROOT / "pyproject.toml").read_text())["project"]["version"]
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"{package}/py.typed" for package in ("agent", "session_runtime", "agentsession_operator")} <= set(names)
    assert "session_runtime/wire.py" in names
    assert not [name for name in names if name.startswith("session_runtime/local_model/")]
