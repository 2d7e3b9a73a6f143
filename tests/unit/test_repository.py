"""What holds for the repository as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = re.compile(r"(?<![\w.])/(?:root|work)/")
"""Where this was written, which is nowhere else."""


def committed() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in committed():
        data = path.read_bytes()
        if b"\0" not in data:
            found.append((path.relative_to(ROOT), data.decode()))
    return found


def test_the_directory_operator_is_not_a_package() -> None:
    """With an __init__.py it would shadow the standard library's `operator`, and nothing would start."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "tests" / "unit" / "operator" / "__init__.py").exists()


@pytest.mark.parametrize("directory", [".", "tests", "tests/unit", "operator"])
def test_the_standard_librarys_operator_is_found_from_anywhere_in_the_repository(directory: str) -> None:
    code = "import operator; assert operator.add(1, 2) == 3, operator"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / directory, check=True, timeout=60)


def test_no_committed_file_names_a_path_of_the_authors_machine() -> None:
    assert not [f"{path}: {line}" for path, text in texts() for line in text.splitlines() if PLACES.search(line)]


def test_locked_requirements_name_no_index_and_hash_everything() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        for line in path.read_text().replace("\\\n", " ").splitlines():
            requirement = line.partition("#")[0].strip()
            assert "://" not in requirement, f"{path.name}: {line}"
            assert not requirement or "--hash=sha256:" in requirement, f"{path.name}: {line}"


def test_no_conflict_markers_were_committed() -> None:
    marker = re.compile(r"^(?:<{7} |>{7} )", re.MULTILINE)
    assert not [str(path) for path, text in texts() if marker.search(text)]
