"""The workspace server can be put into any image with Python 3.9: its own modules, and nothing but the standard library."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from session_runtime.workspace.bundle import MODULES, PACKAGES, main, write_bundle
from session_runtime.workspace.client import SocketWorkspace
from support.runtime.workspace_process import ROOT, server

pytestmark = pytest.mark.anyio


def violations(*files: Path) -> str:
    """What in these files is newer than Python 3.9: syntax, and names of the standard library with their arguments, by
    vermin's tables of when each appeared."""
    vermin = Path(sys.executable).with_name("vermin")
    result = subprocess.run([vermin, "--target=3.9-", "--violations", "--no-tips", *files], capture_output=True, text=True)
    assert "Minimum required versions" in result.stdout, result.stdout + result.stderr
    return "" if result.returncode == 0 else result.stdout


def test_it_uses_nothing_newer_than_python_3_9() -> None:
    assert violations(*(ROOT / module for module in MODULES + PACKAGES)) == ""


@pytest.mark.parametrize(
    "newer", ["import asyncio\nasyncio.timeout(1)", "import tomllib", "match 1:\n    case 1: pass", "zip((), strict=True)"]
)
def test_that_test_would_find_it(tmp_path: Path, newer: str) -> None:
    (tmp_path / "newer.py").write_text(newer)
    assert "requires !2, 3.1" in violations(tmp_path / "newer.py")


@pytest.mark.parametrize("module", MODULES + PACKAGES)
def test_it_imports_the_standard_library_and_its_own_modules(module: str) -> None:
    own = {path.removesuffix(".py").replace("/", ".") for path in MODULES} | {"agent.workspace"}
    tree = ast.parse((ROOT / module).read_text(), feature_version=(3, 9))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported - own if name.split(".")[0] not in sys.stdlib_module_names}


def interpreters() -> list[str]:
    """The oldest Python that has to do, where this machine has it, and the one of the tests."""
    old = shutil.which("python3.9")
    works = old is not None and subprocess.run([old, "-c", ""], capture_output=True).returncode == 0
    return [*([old] if old and works else []), sys.executable]


@pytest.mark.parametrize("python", interpreters())
async def test_the_bundle_serves_with_nothing_else(short_path: Path, python: str) -> None:
    write_bundle(short_path / "workspace.pyz")
    async with server(short_path, program=(python, "-I", str(short_path / "workspace.pyz"))):
        workspace = SocketWorkspace(short_path / "w.sock")
        await workspace.write("sub/a.txt", "one\n")
        assert (await workspace.edit("sub/a.txt", "one", "two")).count == 1
        assert await workspace.read("sub/a.txt") == "two\n"
        assert [entry.path for entry in (await workspace.list(depth=2)).entries] == ["sub", "sub/a.txt"]
        assert (await workspace.run("sleep 60", timeout=0.2)).timed_out
        assert (await workspace.run("cat sub/a.txt", timeout=60)).output == "two\n"


def test_the_bundle_names_the_version_that_it_needs_to_an_older_python(tmp_path: Path) -> None:
    write_bundle(tmp_path / "workspace.pyz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["workspace.pyz"], "nothing unfinished is left"
    pretend = "import sys, runpy; sys.version_info = (3, 8, 18); runpy.run_path(sys.argv[1], run_name='__main__')"
    result = subprocess.run(
        [sys.executable, "-c", pretend, tmp_path / "workspace.pyz"], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    assert "has Python 3.8" in result.stderr
    assert "3.9 or later" in result.stderr


def test_beside_it_is_a_passwd_entry_for_the_user(tmp_path: Path) -> None:
    """`pwd.getpwuid` reads /etc/passwd; here it is read as that would be."""
    main(["--home", "/workspace", str(tmp_path / "workspace.pyz")])
    entries = [line.split(":") for line in (tmp_path / "passwd").read_text().splitlines()]
    mine = next(entry for entry in entries if entry[2] == str(os.getuid()))
    assert mine == ["agentsession", "x", str(os.getuid()), str(os.getgid()), "agentsession", "/workspace", "/bin/sh"]
    assert len({entry[2] for entry in entries}) == len(entries) >= 2
    groups = [line.split(":") for line in (tmp_path / "group").read_text().splitlines()]
    assert str(os.getgid()) in {group[2] for group in groups}
