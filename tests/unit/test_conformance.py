"""What docs/mcp.md says of MCP's conformance suite, and what is installed for it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from conformance.scenarios import CLAIMED, NOT_CLAIMED

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "conformance"


def test_the_documentation_lists_every_scenario_where_it_belongs() -> None:
    page = (ROOT / "docs" / "mcp.md").read_text()
    _, passes, remains = re.split(r"^\| (?:passes|remains) \|", page, flags=re.MULTILINE)

    def listed(table: str) -> list[str]:
        rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
        return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]

    assert tuple(listed(passes)) == CLAIMED
    assert set(listed(remains)) == NOT_CLAIMED.keys()
    assert f"{len(CLAIMED) + len(NOT_CLAIMED)} scenarios" in page


def test_the_suite_is_pinned_with_hashes_and_without_a_registry() -> None:
    (dependency,) = json.loads((FOLDER / "package.json").read_text())["dependencies"].items()
    assert dependency == ("@modelcontextprotocol/conformance", "0.1.16")
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    assert len(packages) > 1
    for path, package in packages.items():
        assert "resolved" not in package
        assert not path or package["integrity"].startswith("sha512-")
    assert packages[f"node_modules/{dependency[0]}"]["version"] == dependency[1]
