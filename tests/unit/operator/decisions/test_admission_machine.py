"""The admission of a whole cluster against a judge outside of it: arrivals, creations with and without an answer, lost pods,
suspensions, ends, deletions, changes of the caps.

What the operator keeps from one step to the next is what the API server keeps (sessions with their status, and pods) and the
creations whose answer is not known. The judge counts as design says: pods that have not ended, and sessions that say Admitted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentsession_operator.api.objects import Pod, Session, SessionUID
from agentsession_operator.decisions.admission import Caps, Ledger, plan
from agentsession_operator.decisions.decide import decide
from agentsession_operator.decisions.decision import CreatePod, DeletePod, ReleasePod
from agentsession_operator.decisions.facts import Facts
from agentsession_operator.decisions.ledger import Startable, build_ledger
from agentsession_operator.decisions.persistent import IN_A_ROW, workspace_of
from agentsession_operator.decisions.resolve import Resolved, resolve
from support.control_plane.builders import (
    JSON,
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
REJECTED = pod_status("Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu")
users = st.sampled_from(["ada", "bob", "cyn"])
class_names = st.sampled_from([None, None, "kept", "kept", "nowhere"])
answers = st.lists(st.sampled_from(["created", "created", "refused", "unknown"]), min_size=1, max_size=4)


class Admission(RuleBasedStateMachine):
    """Rules are what may happen; invariants are what must always hold."""

    @initialize(
        sessions=st.integers(1, 4), per_user=st.integers(1, 3), before=st.lists(st.tuples(users, class_names), max_size=4)
    )
    def begin(self, sessions: int, per_user: int, before: list[tuple[str, str | None]]) -> None:
        """Some sessions may be there and run already: most of what can happen takes a running one."""
        self.caps = Caps(sessions, per_user)
        self.sessions: dict[SessionUID, Session] = {}
        self.pods: dict[SessionUID, Pod] = {}
        self.creating: dict[SessionUID, str] = {}
        self.refused: set[SessionUID] = set()
        self.started: Counter[SessionUID] = Counter()
        """How many pods of a session had their agent started."""
        self.created = 0
        self.arrived = 0
        self.now = NOW
        for user, class_name in before:
            self.arrive(user, class_name)
        self.admit(["created"])
        for uid in self.running():
            self.answer(uid)

    def ledger(self) -> Ledger:
        return build_ledger(
            self.sessions.values(), self.pods.values(), Startable(CLASSES), self.creating, self.refused.__contains__
        )

    # What users do.

    @rule(user=users, class_name=class_names)
    def arrive(self, user: str, class_name: str | None) -> None:
        self.arrived += 1
        second = f"2026-05-04T10:{self.arrived // 60:02}:{self.arrived % 60:02}Z"
        made = session(f"s{self.arrived}", user=user, created=second, className=class_name)
        self.sessions[made.meta.uid] = made

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """The session's object is gone at once; its pod stays until the kubelet has stopped it."""
        uid = data.draw(st.sampled_from(sorted(self.sessions)))
        del self.sessions[uid]

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), suspend=st.booleans())
    def suspend_or_have_back(self, data: st.DataObject, suspend: bool) -> None:
        uid = data.draw(st.sampled_from(sorted(self.sessions)))
        of = self.sessions[uid]
        self.sessions[uid] = Session(of.meta, of.spec.model_copy(update={"suspend": suspend}), of.status)
        self.reconcile(uid)

    @rule(sessions=st.sampled_from([4, 3, 2, 1, 0]), per_user=st.sampled_from([3, 2, 1, 0]))
    def change_the_caps(self, sessions: int, per_user: int) -> None:
        self.caps = Caps(sessions, per_user)

    # What the operator does.

    @rule(outcomes=answers)
    def admit(self, outcomes: list[str]) -> None:
        """One pass: each creation is answered, refused, or has no answer."""
        before = Counter(self.ledger().holders)
        for number, uid in enumerate(plan(self.ledger(), self.caps).grants):
            uid, of = SessionUID(uid), self.sessions[SessionUID(uid)]
            assert not of.finished
            assert not of.spec.suspend
            match outcomes[number % len(outcomes)]:
                case "created":
                    self.create(uid)
                case "refused":
                    self.refused.add(uid)
                case "unknown":
                    self.creating[uid] = of.spec.user
        self.check_caps(before)

    @precondition(lambda self: self.creating)
    @rule(data=st.data(), landed=st.booleans())
    def settle(self, data: st.DataObject, landed: bool) -> None:
        """A creation without an answer turns out to have landed, or never will; its session may be gone."""
        uid = data.draw(st.sampled_from(sorted(self.creating)))
        user = self.creating.pop(uid)
        if landed:
            self.create(uid, user)

    @rule()
    def forgive(self) -> None:
        """The refused may ask again."""
        self.refused.clear()

    def create(self, uid: SessionUID, user: str | None = None) -> None:
        of = self.sessions.get(uid)
        workspace: JSON | None = None
        if of is not None:
            resolved = resolve(of.spec, CLASSES)
            assert isinstance(resolved, Resolved)
            kept = workspace_of(of, resolved)
            workspace = None if kept is None else kept.to_wire()
        assert uid not in self.pods, "the name is taken"
        self.created += 1
        self.put(uid, STARTING, user=user or self.sessions[uid].spec.user, pod_uid=f"pod-{self.created}", workspace=workspace)
        self.reconcile(uid)

    def reconcile(self, uid: SessionUID) -> None:
        """Write what `decide` says and do what it asks for, until it asks for nothing more."""
        for _ in range(5):
            of = self.sessions.get(uid)
            if of is None or uid in self.creating:
                return
            decision = decide(Facts(of, resolve(of.spec, CLASSES), self.pods.get(uid)), self.now)
            self.sessions[uid] = Session(of.meta, of.spec, decision.status)
            for action in decision.actions:
                match action:
                    case CreatePod():
                        self.create(uid)
                    case DeletePod():
                        self.pods[uid] = replace(action.pod, meta=replace(action.pod.meta, deleting=True))
                    case ReleasePod():
                        self.pods.pop(uid, None)  # it was to be deleted: without our finalizer it is gone
            if not decision.actions:
                return

    # What kubelets and people with rights on pods do.

    def put(
        self, uid: SessionUID, status: JSON, *, user: str, pod_uid: str, workspace: JSON | None, **fields: bool | int
    ) -> None:
        name = uid.removeprefix("uid-of-")
        grace = int(fields.get("grace", 15))
        deleting = bool(fields.get("deleting"))
        self.pods[uid] = pod(name, user=user, uid=pod_uid, status=status, workspace=workspace, deleting=deleting, grace=grace)

    def become(self, uid: SessionUID, status: JSON, **fields: bool | int) -> None:
        before = self.pods[uid]
        workspace = None if before.workspace is None else before.workspace.to_wire()
        fields = {"deleting": before.meta.deleting, **fields}
        self.put(uid, status, user=before.user, pod_uid=before.meta.uid, workspace=workspace, **fields)
        self.now += IN_A_ROW  # losses too seldom to be given up
        self.reconcile(uid)

    def running(self) -> list[SessionUID]:
        return sorted(uid for uid, one in self.pods.items() if not one.ended)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def become_ready(self, data: st.DataObject) -> None:
        self.answer(data.draw(st.sampled_from(self.running())))

    def answer(self, uid: SessionUID) -> None:
        if not self.pods[uid].conditions or self.pods[uid].phase != "Running":
            self.started[uid] += 1
        self.become(uid, READY)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), phase=st.sampled_from(["Succeeded", "Failed"]))
    def end_a_pod(self, data: st.DataObject, phase: str) -> None:
        uid = data.draw(st.sampled_from(self.running()))
        last = report(uid.removeprefix("uid-of-"), outcome="Completed").model_dump_json()
        self.become(uid, ended(phase, last))

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def evict_a_pod(self, data: st.DataObject) -> None:
        """It has failed, and nobody says how the session went: a persistent one continues."""
        self.become(data.draw(st.sampled_from(self.running())), ended("Failed", code=137))

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def reject_a_pod(self, data: st.DataObject) -> None:
        """The kubelet refuses it before anything ran."""
        uid = data.draw(st.sampled_from(self.running()))
        if self.pods[uid].phase != "Running":
            self.become(uid, REJECTED)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def force_a_pod_away(self, data: st.DataObject) -> None:
        """Deleted without grace, or its node is gone: only our finalizer keeps it."""
        uid = data.draw(st.sampled_from(self.running()))
        self.become(uid, READY if self.pods[uid].phase == "Running" else STARTING, deleting=True, grace=0)

    @precondition(lambda self: any(uid not in self.sessions for uid in self.pods))
    @rule(data=st.data())
    def clean_up(self, data: st.DataObject) -> None:
        """A pod whose session is gone ends, and is released."""
        del self.pods[data.draw(st.sampled_from(sorted(uid for uid in self.pods if uid not in self.sessions)))]

    # What must hold.

    def judged(self) -> Counter[str]:
        """Who holds a slot, by what anybody can see, and by what may be on its way."""
        holders = {uid: one.user for uid, one in self.pods.items() if not one.ended} | dict(self.creating)
        holders |= {uid: of.spec.user for uid, of in self.sessions.items() if of.admitted}
        return Counter(holders.values())

    def check_caps(self, before: Counter[str]) -> None:
        holders = self.judged()
        if holders != before:
            assert holders.total() <= max(self.caps.sessions, before.total())
        for user, count in holders.items():
            assert count <= max(self.caps.per_user, before[user])

    @invariant()
    def the_ledger_counts_what_holds(self) -> None:
        assert Counter(self.ledger().holders) == self.judged()

    @invariant()
    def nobody_both_holds_and_asks(self) -> None:
        asking = {waiting.uid for waiting in self.ledger().waiting}
        assert not asking & (self.creating.keys() | {uid for uid, of in self.sessions.items() if of.admitted})
        assert not any(self.sessions[SessionUID(uid)].spec.suspend for uid in asking)

    @invariant()
    def nobody_waits_while_a_slot_that_they_may_use_is_free(self) -> None:
        ledger = self.ledger()
        decision = plan(ledger, self.caps)
        user_of = {waiting.uid: waiting.user for waiting in ledger.waiting}
        held = self.judged() + Counter(user_of[uid] for uid in decision.grants)
        for uid in decision.waits:
            assert held.total() >= self.caps.sessions or held[user_of[uid]] >= self.caps.per_user

    @invariant()
    def no_ephemeral_session_starts_twice(self) -> None:
        for uid, count in self.started.items():
            if uid in self.sessions and self.sessions[uid].status.workspace is None:
                assert count <= 1

    @invariant()
    def an_operator_that_starts_now_counts_the_same(self) -> None:
        """It has lists of sessions and pods, and waits until what was in doubt has landed or never will."""
        if not self.creating:
            sessions, pods = list(self.sessions.values())[::-1], list(self.pods.values())[::-1]
            again = build_ledger(sessions, pods, Startable(CLASSES), {}, self.refused.__contains__)
            assert Counter(again.holders) == self.judged()


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(max_examples=200, stateful_step_count=40)
