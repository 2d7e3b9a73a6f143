"""A slot is free once its pod has ended, even if a finalizer keeps the session's object."""

from __future__ import annotations

from support.api import sessions_path
from support.faults.table import Record
from support.faults.world import OpenWorld


def test_a_foreign_finalizer_keeps_no_slot(open_world: OpenWorld, record: Record) -> None:
    w = open_world(cap=1)
    w.create("held", user="alice")
    w.api.patch(sessions_path(w.namespace, "held"), {"metadata": {"finalizers": ["example.com/hold"]}})
    w.until(lambda: w.condition("held", "PodReady")[0] == "True", "the holder")
    w.create("next", user="bob")
    w.until(lambda: w.waits("next"), "the next session's wait")
    w.delete("held")
    w.until(lambda: not any(pod["metadata"]["name"].startswith("held") for pod in w.pods()), "the end of its pod")
    ok = w.comes(lambda: w.admitted("next"), within=30)
    record(
        "11 a session deleted under a foreign finalizer", "the next is admitted", "it is" if ok else "it is not, in 30 s", ok
    )
