"""Faults of the network and of the API server do not take a count above its cap."""

from __future__ import annotations

from support.faults.judge import at_most
from support.faults.request import on, reserves
from support.faults.rules import Answer, Hold, Reset, Rule
from support.faults.table import Record
from support.faults.world import OpenWorld


def test_one_refused_reservation_leaves_the_others_counted(open_world: OpenWorld, record: Record) -> None:
    """Cap 4. Of four reservations one is refused and three are slow; four sessions of other users arrive meanwhile."""
    w = open_world(cap=4, start=False)
    w.proxy.use(
        Rule(reserves("slow-0"), Answer(429, retry_after=1), times=1),
        Rule(reserves("slow-*"), Hold("slow")),
        Rule(on("patch", "agentsessions/status", "slow-*"), Hold("rest")),
    )
    for number in range(4):
        w.create(f"slow-{number}", user="alice")
    w.operator.start()  # it finds all four in its first list: one pass
    w.until(lambda: w.proxy.held("slow") == 3, "three slow reservations")
    for user in ("bob", "carol", "dave", "erin"):
        w.create(f"new-{user}", user=user)
    # Less than the operator waits for an answer (5 s): the slow ones are neither refused nor given up.
    w.comes(lambda: len(w.proxy.seen(reserves("new-*"))) >= 3, within=3.0)
    w.proxy.release("slow")
    w.until(
        lambda: all(one.answered or one.code for one in w.proxy.seen(reserves("slow-*"))),
        "the server's answers to the slow ones",
    )
    w.proxy.release("rest")
    w.until(lambda: len(w.recorder.history.end().holders()) >= 4, "four holders")
    w.until(lambda: all(w.condition(name, "Admitted")[0] for name in w.names().values()), "a word on every session")
    history = w.history()
    most, breaches = history.most_holders(), history.breaches(at_most(4))
    record("1 a refused reservation beside slow ones", "at most 4 holders", f"{most} holders", not breaches)


def test_a_reset_reservation_counts_until_it_cannot_land(open_world: OpenWorld, record: Record) -> None:
    """Cap 2. The connection of a reservation is reset, and the request reaches the server later."""
    w = open_world(cap=2)
    w.proxy.use(
        Rule(reserves("a2"), Reset(), Hold("late"), times=1),
        Rule(on("get", "pods", "a2*"), Hold("read")),
        Rule(on("patch", "agentsessions/status", "a2"), Hold("rest")),
    )
    w.create("a1", user="alice")
    w.until(lambda: w.admitted("a1"), "the first session")
    w.create("a2", user="alice")
    w.until(lambda: w.proxy.held("late") == 1, "a reservation under way")
    w.create("b1", user="bob")
    w.until(lambda: w.proxy.has_delivered("agentsessions", "b1"), "the other user's session")
    w.proxy.release("read")
    w.comes(lambda: w.proxy.seen(reserves("b1")), within=1.5)
    w.proxy.release("late")
    w.until(lambda: w.proxy.seen(reserves("a2"))[0].code, "the server's answer to the late reservation")
    w.until(lambda: len(w.recorder.history.end().holders()) >= 2, "two holders")
    w.proxy.release("rest")
    w.until(lambda: all(w.condition(name, "Admitted")[0] for name in ("a1", "a2", "b1")), "a word on every session")
    history = w.history()
    most, breaches = history.most_holders(), history.breaches(at_most(2))
    record("2 a reservation without an answer", "at most 2 holders", f"{most} holders", not breaches)


def test_a_write_of_a_killed_operator_counts_for_the_next(open_world: OpenWorld, record: Record) -> None:
    """Cap 2. The operator is killed with a reservation in flight; the next one starts, and then the write lands."""
    w = open_world(cap=2)
    w.proxy.use(
        Rule(reserves("a2"), Hold("late"), times=1),
        Rule(on("patch", "agentsessions/status", "a2"), Hold("rest")),
    )
    w.create("a1", user="alice")
    w.until(lambda: w.admitted("a1"), "the first session")
    w.create("a2", user="alice")
    w.until(lambda: w.proxy.held("late") == 1, "a reservation under way")
    w.operator.kill()
    w.create("b1", user="bob")
    w.operator.start(ready=False)
    w.comes(lambda: w.proxy.seen(reserves("b1")), within=4.0)
    w.proxy.release("late")
    w.until(lambda: w.proxy.seen(reserves("a2"))[0].code, "the server's answer to the late reservation")
    w.until(lambda: len(w.recorder.history.end().holders()) >= 2, "two holders")
    w.proxy.release("rest")
    w.until(lambda: all(w.condition(name, "Admitted")[0] for name in ("a1", "a2", "b1")), "a word on every session")
    history = w.history()
    most, breaches = history.most_holders(), history.breaches(at_most(2))
    record("2 a write in flight when the operator was killed", "at most 2 holders", f"{most} holders", not breaches)
