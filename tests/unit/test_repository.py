"""What holds for the repository as a whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

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


def test_the_version_is_the_same_everywhere() -> None:
    """pyproject.toml is where it is written; a release changes the chart's with it."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((ROOT / "charts/agentsession/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    for program in ("agentsession_operator", "session_runtime", "agent"):
        command = [sys.executable, "-m", program, "--version"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
        shown = subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60, capture_output=True, text=True)
        assert shown.stdout.split()[-1] == version


SOURCES = ("operator", "session_runtime", "agent", "tools")


def modules(*folders: str) -> list[Path]:
    return [path for path in committed() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def test_no_module_is_longer_than_400_lines() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules(*SOURCES, "tests")}
    assert not {name: size for name, size in sizes.items() if size > 400}


def test_no_folder_has_more_than_sixteen_modules() -> None:
    counted = Counter(str(path.parent.relative_to(ROOT)) for path in modules(*SOURCES) if path.name != "__init__.py")
    assert not {name: count for name, count in counted.items() if count > 16}


def test_the_pure_rooms_are_those_whose_coverage_is_gated() -> None:
    """A module that joins a purity contract joins the coverage gate with it, and the other way round."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    names = ("pure", "is a function of values")
    contracts = [one for one in tools["importlinter"]["contracts"] if any(name in one["name"] for name in names)]
    assert len(contracts) == 2
    pure = {module for contract in contracts for module in contract["source_modules"]}
    gated = tools["coverage"]["report"]["include"]
    assert pure == {path.removeprefix("operator/").removesuffix("/*").removesuffix(".py").replace("/", ".") for path in gated}


OLD_WORDS = re.compile(
    r"\b(goes on|gone on|anew|whoever|whatever|for ever|what came of|so often at most|of which)\b", re.IGNORECASE
)
"""Words that a reader in a second language stumbles over; CONTRIBUTING.md has what to write instead."""


def test_the_prose_is_plain() -> None:
    about = {Path("tests/unit/test_repository.py"), Path("CONTRIBUTING.md")}
    prose = [(path, text) for path, text in texts() if path.suffix in (".py", ".md", ".yaml") and path not in about]
    assert not [f"{path}: {line.strip()}" for path, text in prose for line in text.splitlines() if OLD_WORDS.search(line)]


def test_helpers_of_tests_are_in_support_and_conftest() -> None:
    imported = re.compile(r"^(?:from|import) (?:unit|api|chart|faults|crash|e2e)\.(?!conftest)\S+", re.MULTILINE)
    folders = ("unit", "api", "chart", "faults", "crash", "e2e")
    of_tests = [path for path in modules("tests") if path.relative_to(ROOT).parts[1] in folders]
    assert not [str(path) for path in of_tests if imported.search(path.read_text())]
    assert not [str(path) for path in of_tests if not path.name.startswith(("test_", "conftest", "__init__"))]


def test_a_tests_name_has_at_most_twelve_words() -> None:
    names = [name for path in modules("tests") for name in re.findall(r"def (test_\w+)", path.read_text())]
    assert not [name for name in names if len([word for word in name.split("_") if word]) > 13]
