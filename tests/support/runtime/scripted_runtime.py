"""`python -m session_runtime` with a scripted model: a program for tests that need a process to kill.

The script is JSON in the environment variable SCRIPT: a list of answers, each the fields of `agent.testing.Reply`, or lists
of them by what the user has said last. Other variables:

- IMAGES: the model takes images
- STUCK_MILLISECONDS: a client that takes nothing is dropped after that time
- COUNT_MOMENTS: a file in which the number of moments so far is kept; each transaction has two: before it and after it
- CRASH_AT: with that, the process kills itself at the n-th moment
"""

from __future__ import annotations

import json
import os
import signal
import sys
from itertools import count
from pathlib import Path

from agent.testing import ScriptedModel
from session_runtime import __main__ as main
from session_runtime.session.store import Commit, Store
from support.runtime.harness import AnsweringModel, ConversationModel, reply_from_json


def model() -> ScriptedModel:
    script = json.loads(os.environ["SCRIPT"])
    images = "IMAGES" in os.environ
    if isinstance(script, list):
        return ConversationModel(*map(reply_from_json, script), images=images)
    return AnsweringModel({said: list(map(reply_from_json, replies)) for said, replies in script.items()}, images=images)


def crash_at(moment: int, counted: Path) -> None:
    """Kill this process at that moment, as `kill -9` would."""
    moments = count(1)
    apply = Store.apply

    def passing() -> None:
        now = next(moments)
        counted.write_text(str(now))
        if now == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def crashing(store: Store, commit: Commit) -> None:
        passing()
        apply(store, commit)
        passing()

    setattr(Store, "apply", crashing)  # noqa: B010 - the only way to be there at each transaction


if __name__ == "__main__":
    if "STUCK_MILLISECONDS" in os.environ:
        setattr(main, "STUCK_PEER_MILLISECONDS", int(os.environ["STUCK_MILLISECONDS"]))  # noqa: B010
    if "COUNT_MOMENTS" in os.environ:
        crash_at(int(os.environ.get("CRASH_AT", "0")), Path(os.environ["COUNT_MOMENTS"]))
    status = main.run(sys.argv[1:], lambda _: model())
    sys.stdout.flush()
    os._exit(status)
