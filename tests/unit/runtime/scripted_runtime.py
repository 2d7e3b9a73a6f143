"""`python -m session_runtime` with a scripted model: a program for tests that need a process to kill.

The script is JSON in the environment variable SCRIPT: a list of answers, each the fields of `agent.testing.Reply`.
With CRASH_AT=n the process kills itself at the n-th moment, where each transaction has two: before it and after it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from itertools import count

from session_runtime.__main__ import run
from session_runtime.store import Commit, Store
from unit.runtime.harness import ConversationModel, reply_from_json


def crash_at(moment: int) -> None:
    """Kill this process at that moment, as `kill -9` would."""
    moments = count(1)
    apply = Store.apply

    def crashing(store: Store, commit: Commit) -> None:
        if next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        apply(store, commit)
        if next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(Store, "apply", crashing)  # noqa: B010 - the only way to be there at each transaction


if __name__ == "__main__":
    if "CRASH_AT" in os.environ:
        crash_at(int(os.environ["CRASH_AT"]))
    replies = [reply_from_json(fields) for fields in json.loads(os.environ["SCRIPT"])]
    status = run(sys.argv[1:], lambda _: ConversationModel(*replies))
    sys.stdout.flush()
    os._exit(status)
