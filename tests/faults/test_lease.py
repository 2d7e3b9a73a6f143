"""The lease: after it is deleted, stolen or garbled, an operator soon leads again."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.api import JSON
from support.faults.judge import at_most
from support.faults.request import on
from support.faults.rules import Answer, Hold, Rule
from support.faults.table import Record
from support.faults.world import LEASE, OpenWorld, World
from support.operator_process import OperatorProcess

LEASES = LEASE.rsplit("/", 1)[0]
SOON = 15.0
"""Seconds within which a leader that has crashed is replaced."""


def lease(holder: str, *, seconds: int = 1) -> JSON:
    """A Lease of somebody who does not renew it."""
    spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": "2026-01-01T00:00:00.000000Z"}
    return {"metadata": {"name": "agentsession-operator"}, "spec": spec}


def leads_again(w: World, within: float) -> tuple[bool, str]:
    """Whether the operator is ready again, restarted as a kubelet would where its process ended; and in words."""
    began = time.monotonic()
    ended = ""

    def ready() -> bool:
        nonlocal ended
        if not w.running():
            ended = f"ended ({w.last_words()}), "
            w.operator.start(ready=False)
        return w.operator.get("/readyz")[0] == 200

    ok = w.comes(ready, within=within)
    health = "healthy" if w.operator.get("/healthz")[0] == 200 else "unhealthy"
    return ok, f"{ended}{f'ready after {time.monotonic() - began:.0f} s' if ok else f'{health}, not ready in {within:.0f} s'}"


def test_a_lease_deleted_and_made_by_another_is_won_back(open_world: OpenWorld, record: Record) -> None:
    """Deleted right before a renewal: the operator is answered 404, and then finds another's in its place."""
    w = open_world()
    w.proxy.use(Rule(on("update", "leases"), Hold("renewal"), times=1))
    w.until(lambda: w.proxy.held("renewal") == 1, "a renewal")
    w.api.delete(LEASE)
    w.proxy.release("renewal")
    w.until(lambda: any(one.code >= 400 for one in w.proxy.seen(on("update", "leases"))), "the refused renewal")
    w.api.create(LEASES, lease("another"))
    w.until(lambda: w.operator.get("/readyz")[0] != 200 or not w.running(), "the loss", within=20.0)
    ok, seen = leads_again(w, 20.0)
    record("10 a lease deleted and made by another, who dies", "ready again in 20 s", seen, ok)


def test_a_dead_holder_with_a_long_lease_keeps_nobody_out(open_world: OpenWorld, record: Record) -> None:
    w = open_world(start=False)
    w.api.delete(LEASE)
    w.api.create(LEASES, lease("dead", seconds=1_000_000))
    w.operator.start(ready=False)
    ok, seen = leads_again(w, 90.0)  # it waits for 60 s, after a start that a busy machine makes slow
    record("10 a dead holder's lease of 1,000,000 s", "ready in 90 s", seen, ok)


def test_a_lease_without_a_spec_is_no_defect(open_world: OpenWorld, record: Record) -> None:
    """Another server, or a client with other types, may leave it out."""
    w = open_world()
    bare = {"metadata": {"name": "agentsession-operator", "uid": "1", "resourceVersion": "1"}}
    w.proxy.use(Rule(on("get", "leases"), Answer(200, body=json.dumps(bare)), times=1))
    w.api.patch(LEASE, {"metadata": {"annotations": {"touched": "now"}}})  # the next renewal is a conflict, and reads it
    w.until(lambda: any(one.code == 409 for one in w.proxy.seen(on("update", "leases"))), "a renewal that meets it")
    w.comes(lambda: not w.running(), within=2.0)
    log = w.operator.log.read_text()
    ok, seen = leads_again(w, 25.0)
    defect = "KeyError" in log
    record(
        "10 a Lease without spec", "no KeyError, ready in 25 s", f"{'KeyError, ' if defect else ''}{seen}", ok and not defect
    )


def test_a_crashed_leader_is_replaced_in_15_seconds(open_world: OpenWorld, record: Record, tmp_path: Path) -> None:
    w = open_world()
    second = OperatorProcess(w.operator_kubeconfig, tmp_path / "second.log", identity="second")
    second.start(ready=False)
    try:
        w.until(lambda: "for the lease" in second.log.read_text(), "a follower")
        # Right after a renewal is the worst moment.
        renewals = len(w.proxy.seen(on("update", "leases")))
        w.until(lambda: len(w.proxy.seen(on("update", "leases"))) > renewals, "a renewal")
        w.operator.kill()
        began = time.monotonic()
        ok = w.comes(lambda: second.get("/readyz")[0] == 200, within=30.0)
        seconds = time.monotonic() - began
    finally:
        second.stop()
    seen = f"{seconds:.1f} s" if ok else "never"
    record("10 a leader killed after a renewal", f"another leads within {SOON:.0f} s", seen, ok and seconds <= SOON)


def test_a_leader_that_slept_longer_than_its_lease_writes_nothing(
    open_world: OpenWorld, record: Record, tmp_path: Path
) -> None:
    """SIGSTOP until another leads, then SIGCONT: a session that came meanwhile is served once."""
    w = open_world(cap=1)
    second = OperatorProcess(w.operator_kubeconfig, tmp_path / "second.log", identity="second")
    second.start(ready=False)
    try:
        w.until(lambda: "for the lease" in second.log.read_text(), "a follower")
        os.kill(w.operator.pid, signal.SIGSTOP)
        w.create("meanwhile")
        w.until(lambda: second.get("/readyz")[0] == 200, "the second operator's lead", within=30.0)
        w.until(lambda: w.admitted("meanwhile"), "an admission")
        os.kill(w.operator.pid, signal.SIGCONT)
        w.create("late", user="bob")
        w.until(lambda: w.waits("late"), "the second session's wait")
        w.comes(lambda: not w.running(), within=10.0)
    finally:
        second.stop()
    history = w.history()
    breaches, doubled = history.breaches(at_most(1)), history.doubled()
    seen = f"{history.most_holders()} holder, {len(doubled)} doubled"
    record("10 a leader stopped for longer than its lease", "1 holder, no pod doubled", seen, not breaches and not doubled)


@pytest.mark.parametrize(
    "odd",
    [
        {"renewTime": None, "leaseDurationSeconds": None},
        {"renewTime": "9999-12-31T23:59:59.999999Z"},
        {"leaseDurationSeconds": 2_147_483_647, "acquireTime": "0001-01-01T00:00:00.000000Z"},
        {"holderIdentity": "", "leaseTransitions": 2_147_483_647},
    ],
    ids=["nothing", "far future", "longest", "nobody"],
)
def test_a_garbled_lease_is_survived(open_world: OpenWorld, record: Record, odd: JSON) -> None:
    w = open_world()
    w.api.patch(LEASE, {"spec": odd})
    w.comes(lambda: not w.running(), within=4.0)
    ok, seen = leads_again(w, 25.0)
    record(f"10 a garbled lease: {' '.join(odd)}", "ready in 25 s", seen, ok)


def test_a_stolen_lease_is_won_back(open_world: OpenWorld, record: Record) -> None:
    """Somebody else's name is in it, and nobody renews it. Until it has run out, nothing is written."""
    w = open_world(cap=1)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    w.api.patch(LEASE, {"spec": {"holderIdentity": "thief", "renewTime": now, "leaseDurationSeconds": 10}})
    began = time.monotonic()
    w.until(lambda: w.operator.get("/readyz")[0] != 200 or not w.running(), "the loss", within=10.0)
    w.create("meanwhile")
    ok, seen = leads_again(w, 30.0)
    early = [one for one in w.proxy.writes() if one.came - began < 10.0 and one.request.name.startswith("meanwhile")]
    record("10 a stolen lease", "no write for 10 s, ready in 30 s", f"{len(early)} early writes, {seen}", ok and not early)


def test_another_leads_at_once_after_a_clean_exit(open_world: OpenWorld, record: Record, tmp_path: Path) -> None:
    w = open_world()
    second = OperatorProcess(w.operator_kubeconfig, tmp_path / "second.log", identity="second")
    second.start(ready=False)
    try:
        w.until(lambda: "for the lease" in second.log.read_text(), "a follower")
        code = w.operator.stop()
        began = time.monotonic()
        w.create("next")
        ok = w.comes(lambda: w.admitted("next"), within=30.0)
        seconds = time.monotonic() - began
    finally:
        second.stop()
    seen = f"exit {code}, the next session after {seconds:.1f} s" if ok else "never"
    record("10 a leader that exits cleanly", "another admits within 5 s", seen, ok and code == 0 and seconds <= 5.0)
