"""The admission of a whole cluster against a model of it: arrivals, grants, lost pods, suspensions, ends, deletions and changes
of the caps.

What the operator keeps from one step to the next is only what the API server keeps: sessions with their status, and pods.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.decisions.admission import Caps, Ledger, plan
from agentsession_operator.decisions.decide import decide
from agentsession_operator.decisions.facts import Facts, Granted
from agentsession_operator.decisions.ledger import build_ledger
from agentsession_operator.decisions.replacement import IN_A_ROW
from agentsession_operator.decisions.resolve import resolve
from support.control_plane.builders import (
    NOW,
    READY,
    STARTING,
    classes,
    ended,
    pod,
    pod_status,
    report,
    session,
    session_class,
)

CLASSES = classes(session_class(), session_class("kept", default=False, workspace={"type": "Persistent", "size": "5Gi"}))
EVICTED = pod_status("Failed", reason="Evicted", message="The node was low on resource: memory.")
users = st.sampled_from(["ada", "bob", "cyn"])
class_names = st.sampled_from([None, None, "kept", "kept", "nowhere"])


@dataclass
class Truth:
    """What really holds a slot, as the model knows it, without looking at conditions."""

    user: str
    persistent: bool = False
    reserved: bool = False
    pod_runs: bool = False
    over: bool = False

    @property
    def holds(self) -> bool:
        return self.pod_runs or (self.reserved and not self.over)


class Admission(RuleBasedStateMachine):
    """Rules are what may happen; invariants are what must always hold."""

    @initialize(
        sessions=st.integers(1, 4), per_user=st.integers(1, 3), before=st.lists(st.tuples(users, class_names), max_size=4)
    )
    def begin(self, sessions: int, per_user: int, before: list[tuple[str, str | None]]) -> None:
        """Some sessions may be there and run already: most of what can happen takes a running one."""
        self.caps = Caps(sessions, per_user)
        self.sessions: dict[str, Session] = {}
        self.pods: dict[str, Pod] = {}
        self.truth: dict[str, Truth] = {}
        self.in_flight: dict[str, str] = {}
        self.arrived = 0
        self.now = NOW
        for user, class_name in before:
            self.come(user, class_name)
        self.admit()
        for uid in self.podless():
            self.start(uid)
            self.answer(uid)

    def ledger(self) -> Ledger:
        return build_ledger(self.sessions.values(), self.pods.values(), CLASSES, self.in_flight)

    def reconcile(self, uid: str) -> None:
        """Write what `decide` says about the status; pods are made and removed by rules of their own."""
        of = self.sessions[uid]
        decision = decide(Facts(of, resolve(of.spec, CLASSES), self.pods.get(uid)), self.now)
        self.sessions[uid] = Session(of.meta, of.spec, decision.status)

    # What users do.

    @rule(user=users, class_name=class_names)
    def arrive(self, user: str, class_name: str | None) -> None:
        self.come(user, class_name)

    def come(self, user: str, class_name: str | None) -> None:
        self.arrived += 1
        second = f"2026-05-04T10:{self.arrived // 60:02}:{self.arrived % 60:02}Z"
        made = session(f"s{self.arrived}", user=user, created=second, className=class_name)
        self.sessions[made.meta.uid] = made
        self.truth[made.meta.uid] = Truth(user, persistent=class_name == "kept")

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """The session's object is gone at once; its pod stays until the kubelet has stopped it."""
        uid = data.draw(st.sampled_from(sorted(self.sessions)))
        del self.sessions[uid]
        self.in_flight.pop(uid, None)
        self.truth[uid].reserved = False

    @precondition(lambda self: self.settled())
    @rule(data=st.data())
    def suspend(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(self.settled()))
        self.want(uid, suspend=True)
        self.rest_if_it_can(uid)

    @precondition(lambda self: self.settled())
    @rule(data=st.data())
    def have_back(self, data: st.DataObject) -> None:
        self.want(data.draw(st.sampled_from(self.settled())), suspend=False)

    def settled(self) -> list[str]:
        """Sessions of which the operator knows what is written."""
        return sorted(self.sessions.keys() - self.in_flight.keys())

    def want(self, uid: str, *, suspend: bool) -> None:
        of = self.sessions[uid]
        self.sessions[uid] = Session(of.meta, of.spec.model_copy(update={"suspend": suspend}), of.status)
        self.reconcile(uid)

    def rest_if_it_can(self, uid: str) -> None:
        """Nothing is lost by resting, and no pod runs: the slot is given back."""
        truth = self.truth[uid]
        if self.sessions[uid].spec.suspend and truth.persistent and not truth.pod_runs:
            truth.reserved = False

    @rule(sessions=st.sampled_from([4, 3, 2, 1, 0]), per_user=st.sampled_from([3, 2, 1, 0]))
    def change_the_caps(self, sessions: int, per_user: int) -> None:
        self.caps = Caps(sessions, per_user)

    # What the operator does.

    @rule()
    def admit(self) -> None:
        """One pass: every grant is written."""
        before = self.ledger()
        for uid in plan(before, self.caps).grants:
            of = self.sessions[uid]
            assert not of.finished
            assert not of.spec.suspend
            granted = decide(Facts(of, resolve(of.spec, CLASSES), self.pods.get(uid), verdict=Granted()), self.now)
            self.sessions[uid] = Session(of.meta, of.spec, granted.status)
            self.truth[uid].reserved = True
        self.check_caps_after_admission(Counter(before.holders))

    @rule()
    def admit_without_an_answer(self) -> None:
        """The first grant of a pass is written, and the operator does not hear of it: it stays in doubt."""
        before = self.ledger()
        for uid in plan(before, self.caps).grants[:1]:
            self.in_flight[uid] = self.truth[uid].user
            self.truth[uid].reserved = True
        self.check_caps_after_admission(Counter(before.holders))

    @rule()
    def settle_doubts(self) -> None:
        for uid in self.in_flight:
            of = self.sessions[uid]
            granted = decide(Facts(of, resolve(of.spec, CLASSES), self.pods.get(uid), verdict=Granted()), self.now)
            self.sessions[uid] = Session(of.meta, of.spec, granted.status)
        self.in_flight.clear()

    @precondition(lambda self: self.podless())
    @rule(data=st.data())
    def start_a_pod(self, data: st.DataObject) -> None:
        self.start(data.draw(st.sampled_from(self.podless())))

    def start(self, uid: str) -> None:
        self.pods[uid] = pod(uid.removeprefix("uid-of-"), user=self.truth[uid].user, status=STARTING)
        self.truth[uid].pod_runs = True
        self.reconcile(uid)

    def podless(self) -> list[str]:
        return sorted(uid for uid, of in self.sessions.items() if of.admitted and not of.finished and uid not in self.pods)

    # What kubelets do.

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def become_ready(self, data: st.DataObject) -> None:
        self.answer(data.draw(st.sampled_from(self.running())))

    def answer(self, uid: str) -> None:
        self.pods[uid] = pod(uid.removeprefix("uid-of-"), user=self.truth[uid].user, status=READY)
        if uid in self.sessions:
            self.reconcile(uid)

    def running(self) -> list[str]:
        return sorted(uid for uid, one in self.pods.items() if not one.ended)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), phase=st.sampled_from(["Succeeded", "Failed"]))
    def end_a_pod(self, data: st.DataObject, phase: str) -> None:
        """With or without its session."""
        uid = data.draw(st.sampled_from(self.running()))
        name = uid.removeprefix("uid-of-")
        last = report(name, outcome="Completed").model_dump_json()
        self.pods[uid] = pod(name, user=self.truth[uid].user, status=ended(phase, last))
        self.truth[uid].pod_runs = False
        if uid in self.sessions:
            self.truth[uid].over = True
            self.reconcile(uid)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def evict_a_pod(self, data: st.DataObject) -> None:
        """It has failed, and nobody says how the session went: a persistent one goes on."""
        uid = data.draw(st.sampled_from(self.running()))
        self.pods[uid] = pod(uid.removeprefix("uid-of-"), user=self.truth[uid].user, status=EVICTED)
        self.lose(uid, over=True)

    @precondition(lambda self: self.pods)
    @rule(data=st.data())
    def remove_a_pod(self, data: st.DataObject) -> None:
        """Deleted, drained, lost, or collected: with or without its session."""
        uid = data.draw(st.sampled_from(sorted(self.pods)))
        of = self.sessions.get(uid)
        del self.pods[uid]
        self.lose(uid, over=of is not None and of.status.start_time is not None)

    def lose(self, uid: str, *, over: bool) -> None:
        """A pod does not run any more; `over` says whether that is the end of a session that is not persistent."""
        self.truth[uid].pod_runs = False
        self.now += IN_A_ROW  # too seldom to be given up
        if uid in self.sessions:
            self.truth[uid].over |= over and not self.truth[uid].persistent
            self.reconcile(uid)
            self.rest_if_it_can(uid)

    # What must hold.

    def check_caps_after_admission(self, before: Counter[str]) -> None:
        holders = self.really_holding()
        if holders != before:
            assert holders.total() <= self.caps.sessions
        for user, count in holders.items():
            assert count <= max(self.caps.per_user, before[user])

    def really_holding(self) -> Counter[str]:
        return Counter(truth.user for truth in self.truth.values() if truth.holds)

    @invariant()
    def the_ledger_counts_what_really_holds(self) -> None:
        assert Counter(self.ledger().holders) == self.really_holding()

    @invariant()
    def nobody_both_holds_and_asks(self) -> None:
        asking = {waiting.uid for waiting in self.ledger().waiting}
        assert not asking & {uid for uid, truth in self.truth.items() if truth.holds or truth.over}

    @invariant()
    def nobody_asks_who_is_wanted_to_rest(self) -> None:
        assert not any(self.sessions[waiting.uid].spec.suspend for waiting in self.ledger().waiting)

    @invariant()
    def at_rest_nobody_waits_while_a_slot_that_they_may_use_is_free(self) -> None:
        """ "At rest" is after as many passes as it takes: it takes one."""
        ledger = self.ledger()
        decision = plan(ledger, self.caps)
        user_of = {waiting.uid: waiting.user for waiting in ledger.waiting}
        held = self.really_holding() + Counter(user_of[uid] for uid in decision.grants)
        for uid in decision.waits:
            assert held.total() >= self.caps.sessions or held[user_of[uid]] >= self.caps.per_user

    @invariant()
    def an_operator_that_starts_now_counts_the_same(self) -> None:
        """It has lists of sessions and pods, and no writes in flight: what was in doubt it reads as it was written."""
        if not self.in_flight:
            again = build_ledger(list(self.sessions.values())[::-1], list(self.pods.values())[::-1], CLASSES, {})
            assert Counter(again.holders) == self.really_holding()


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(max_examples=200, stateful_step_count=40)
