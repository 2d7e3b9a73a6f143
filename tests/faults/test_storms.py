"""Nothing is written without backoff for one object, and nothing for a session that is gone."""

from __future__ import annotations

import time

import pytest

from support.api import pods_path, sessions_path
from support.faults.request import Request, When, event, kopf_s, on, reserves
from support.faults.rules import Answer, EventRule, Hold, Rule, Swallow
from support.faults.table import Record
from support.faults.world import OpenWorld, World

WRITES_TOLERATED = 8
"""For one object within `WATCHED` seconds: more than any backoff that doubles from 0.2 s makes."""
WATCHED = 6.0


def of(session: str) -> When:
    """Requests about a session or its pod, whose name begins with the session's."""
    return lambda request: request.name == session or request.name.startswith(f"{session}-")


def storm(w: World, session: str, since: float) -> tuple[int, int, float]:
    """Pods created and other writes for a session since a moment, and the seconds watched: fewer in a storm."""

    def recent(when: When) -> int:
        return sum(one.came >= since for one in w.proxy.writes(lambda request: of(session)(request) and when(request)))

    def creates(request: Request) -> bool:
        return request.verb == "create" and request.resource == "pods"

    w.comes(lambda: recent(lambda _: True) > 5 * WRITES_TOLERATED, within=WATCHED)
    pods = recent(creates)
    return pods, recent(lambda _: True) - pods, time.monotonic() - since


@pytest.mark.parametrize("state", ["pending", "running", "persistent"])
def test_a_missed_deletion_causes_no_writes(open_world: OpenWorld, record: Record, persistent: str, state: str) -> None:
    """The watch does not deliver the deletion of a session; the garbage collector deletes its pod."""
    w = open_world()
    w.node.starts = state != "pending"
    w.proxy.use(EventRule(event("DELETED", "agentsessions", "gone"), Swallow(), times=1))
    w.create("gone", **({"className": persistent} if state == "persistent" else {}))
    if state == "pending":
        w.until(lambda: w.condition("gone", "PodReady")[1] == "Creating" and w.pods(), "a pod that does not run")
    else:
        w.until(lambda: w.condition("gone", "PodReady")[0] == "True", "a pod that runs")
    began = time.monotonic()
    w.delete("gone", propagationPolicy="Background")
    pods, others, seconds = storm(w, "gone", began)
    record(
        f"3 a missed deletion ({state})",
        f"no pod, at most {WRITES_TOLERATED} writes in {WATCHED:.0f} s",
        f"{pods} pods, {others} other writes in {seconds:.1f} s",
        pods == 0 and others <= WRITES_TOLERATED,
    )


def test_a_deletion_between_two_lists_at_a_restart_causes_no_pods(open_world: OpenWorld, record: Record) -> None:
    """The operator has listed the session; kopf's own list, which comes later, does not hold it any more."""
    w = open_world()
    w.node.starts = False
    w.create("gone")
    w.until(lambda: w.pods() and w.condition("gone", "PodReady")[1] == "Creating", "a pod that does not run")
    w.operator.kill()
    w.proxy.use(Rule(kopf_s(on("list", "agentsessions")), Hold("list")))
    w.operator.start()
    w.until(lambda: w.proxy.held("list") == 1, "kopf's list")
    began = time.monotonic()
    w.delete("gone", propagationPolicy="Background")
    w.proxy.release("list")
    pods, others, seconds = storm(w, "gone", began)
    record(
        "3 a deletion between two lists at a restart",
        f"no pod, at most {WRITES_TOLERATED} writes in {WATCHED:.0f} s",
        f"{pods} pods, {others} other writes in {seconds:.1f} s",
        pods == 0 and others <= WRITES_TOLERATED,
    )


def test_a_session_that_is_always_refused_does_not_block_the_next(open_world: OpenWorld, record: Record) -> None:
    w = open_world(cap=1)
    w.proxy.use(Rule(reserves("a-refused"), Answer(422)))
    w.create("a-refused", user="alice")  # its name comes first: creation times have whole seconds
    w.until(lambda: w.proxy.seen(reserves("a-refused")), "a refusal")
    w.create("b-next", user="bob")
    ok = w.comes(lambda: w.admitted("b-next"), within=30)
    record("4 a session that is always refused", "the next one is admitted", "it is" if ok else "it is not, in 30 s", ok)


@pytest.mark.parametrize("code", [422, 429, 500])
def test_refusals_of_one_session_are_answered_with_backoff(open_world: OpenWorld, record: Record, code: int) -> None:
    w = open_world()
    w.proxy.use(Rule(reserves("refused"), Answer(code)))
    w.create("refused")
    w.until(lambda: w.proxy.seen(reserves("refused")), "a refusal")
    began = time.monotonic()
    limit = 3 * WRITES_TOLERATED
    w.comes(lambda: len(w.proxy.seen(of("refused"))) > 10 * limit, within=WATCHED)
    requests, seconds = len(w.proxy.seen(of("refused"))), time.monotonic() - began
    record(
        f"4 a reservation answered with {code} each time",
        f"at most {limit} requests in {WATCHED:.0f} s",
        f"{requests} requests in {seconds:.1f} s",
        requests <= limit,
    )


def test_a_session_whose_status_does_not_fit_frees_its_slot(open_world: OpenWorld, record: Record) -> None:
    """A session as large as the API server takes: its status makes it too large."""
    w = open_world(cap=1)
    path, accepted, answer = sessions_path(w.namespace), False, ""
    for length in range(1535, 1490, -1):
        rules = [
            {"tool": "*", "action": "Ask", "arguments": {f"{rule:02}{key:02}{'x' * (length - 4)}": "*" for key in range(16)}}
            for rule in range(64)
        ]
        try:
            w.create("huge", agent={"approvalPolicy": rules})
        except Exception as error:
            answer = str(error)[:80]
            if "422" in answer:
                break  # the schema bounds it
            continue
        accepted = True
        break
    w.create("next", user="bob")
    # An answer of 500 says nothing of the write: the slot is the next one's 8 s after it was sent.
    ok = w.comes(lambda: w.admitted("next"), within=30)
    how = "accepted" if accepted else f"refused ({answer})"
    record(
        "4 a session too large for its own status",
        "refused, or the next one is admitted",
        f"{how}; the next one {'is' if ok else 'is not'} admitted",
        ok,
    )
    assert w.api.get(path)
    assert w.api.get(pods_path(w.namespace))
