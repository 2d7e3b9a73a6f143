"""`python -m session_runtime` with a scripted model: a program for tests that need a process to kill.

The script is JSON in the environment variable SCRIPT: a list of answers, each the fields of `agent.testing.Reply`.
"""

from __future__ import annotations

import json
import os
import sys

from session_runtime.__main__ import run
from unit.runtime.harness import ConversationModel, reply_from_json

if __name__ == "__main__":
    replies = [reply_from_json(fields) for fields in json.loads(os.environ["SCRIPT"])]
    status = run(sys.argv[1:], lambda _: ConversationModel(*replies))
    sys.stdout.flush()
    os._exit(status)
