"""The client can be installed alone: without the model client, the server, and what else a session's pod needs."""

from __future__ import annotations

import subprocess
import sys

from support.runtime.harness import ROOT

PROGRAM = """
import sys

ABSENT = {"litellm", "fastapi", "uvicorn", "mcp", "huggingface_hub", "jsonschema", "prometheus_client"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import session_runtime.client
import session_runtime.client.chat
print(session_runtime.client.SessionClient.__name__)
"""


def test_the_client_needs_nothing_of_the_runtime() -> None:
    run = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(run, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "SessionClient\n"), result.stderr
