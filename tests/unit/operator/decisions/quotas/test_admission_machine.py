"""The admission of a whole cluster against a judge outside of it: arrivals, creations with and without an answer, lost pods,
suspensions, ends, deletions, edits of quotas, relabeled namespaces, idle agents, restarts of the operator.

What the operator keeps over a restart is what the API server keeps: sessions with their status, and pods. The judge counts as
design says (pods that have not ended, and sessions that say Admitted), and reads the quotas by rules of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentsession_operator.api.objects import Pod, Session, SessionUID
from agentsession_operator.decisions.decide import decide
from agentsession_operator.decisions.decision import CreatePod, DeletePod, ReleasePod
from agentsession_operator.decisions.facts import Facts, ReceivedReport
from agentsession_operator.decisions.persistent import IN_A_ROW, workspace_of
from agentsession_operator.decisions.quotas.admission import Admission as Decider
from agentsession_operator.decisions.quotas.claims import Claim, Offers, claim_of, claim_of_leftovers
from agentsession_operator.decisions.resolve import Resolved, resolve
from support.control_plane.builders import (
    JSON,
    NOW,
    READY,
    STARTING,
    ended,
    pod,
    report,
    session,
)
from support.control_plane.judged_quotas import CLASSES, LABELS, QUOTAS, REJECTED, JudgedQuota

users = st.sampled_from(["ada", "bob", "ci:1", "ci:2"])
class_names = st.sampled_from([None, None, "kept", "kept", "urgent", "nowhere"])
namespaces = st.sampled_from(["team", "lab"])
answers = st.lists(st.sampled_from(["created", "created", "refused", "unknown"]), min_size=1, max_size=4)


class Admission(RuleBasedStateMachine):
    """Rules are what may happen; invariants are what must always hold."""

    @initialize(quotas=st.sampled_from(sorted(QUOTAS)), before=st.lists(st.tuples(users, class_names, namespaces), max_size=4))
    def begin(self, quotas: str, before: list[tuple[str, str | None, str]]) -> None:
        """Some sessions may be there and run already: most of what can happen takes a running one."""
        self.sessions: dict[SessionUID, Session] = {}
        self.pods: dict[SessionUID, Pod] = {}
        self.creating: set[SessionUID] = set()
        self.refused: set[SessionUID] = set()
        self.idle: dict[SessionUID, str] = {}
        """What the operator has been told since it started: which agents wait for input, and since when."""
        self.started: Counter[SessionUID] = Counter()
        """How many pods of a session had their agent started."""
        self.created = 0
        self.arrived = 0
        self.now = NOW
        self.quotas: list[JudgedQuota] = []
        self.labels = dict(LABELS)
        self.claims: dict[SessionUID, Claim] = {}
        """Whom, where and as what each session ever counted."""
        self.restart()
        self.edit_the_quotas(quotas)
        for user, class_name, namespace in before:
            self.arrive(user, class_name, namespace)
        self.admit(["created"])
        for uid in self.running():
            self.answer(uid)

    # What the operator knows.

    @rule()
    def restart(self) -> None:
        """An operator that starts has lists of everything, and no reports; what was in doubt has landed or never will."""
        self.creating.clear()
        self.idle.clear()
        self.decider = Decider()
        self.decider.set_quotas([quota.written for quota in self.quotas])
        for namespace, labels in self.labels.items():
            self.decider.set_namespace(namespace, labels)
        self.learn()

    def learn(self) -> None:
        """Bring the ledger up to date."""
        offers = Offers(CLASSES)
        for uid in {*self.sessions, *self.pods, *self.creating, *map(SessionUID, self.decider.ledger.entries)}:
            mine = [self.pods[uid]] if uid in self.pods else []
            if (of := self.sessions.get(uid)) is not None:
                refused, creating = uid in self.refused, uid in self.creating
                since = self.idle.get(uid)
                claim = claim_of(of, mine, offers(of), creating=creating, backs_off=refused, idle_since=since)
            else:
                claim = claim_of_leftovers(mine, self.claims.get(uid), creating=uid in self.creating)
            if claim is not None:
                self.claims[uid] = claim
            self.decider.put(uid, claim)

    # What users and the platform team do.

    @rule(user=users, class_name=class_names, namespace=namespaces)
    def arrive(self, user: str, class_name: str | None, namespace: str) -> None:
        self.arrived += 1
        second = f"2026-05-04T10:{self.arrived // 60:02}:{self.arrived % 60:02}Z"
        made = session(f"s{self.arrived}", namespace=namespace, user=user, created=second, className=class_name)
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
        meta = replace(of.meta, generation=of.meta.generation + (of.spec.suspend != suspend))
        self.sessions[uid] = Session(meta, of.spec.model_copy(update={"suspend": suspend}), of.status)
        self.reconcile(uid)

    @rule(quotas=st.sampled_from(sorted(QUOTAS)))
    def edit_the_quotas(self, quotas: str) -> None:
        self.quotas = QUOTAS[quotas]
        self.decider.set_quotas([quota.written for quota in self.quotas])

    @rule(namespace=namespaces, team=st.sampled_from(["a", "b", None]))
    def relabel(self, namespace: str, team: str | None) -> None:
        self.labels[namespace] = {"team": team} if team else {}
        self.decider.set_namespace(namespace, self.labels[namespace])

    @rule(some=st.lists(st.tuples(users, class_names, namespaces), min_size=2, max_size=4))
    def a_quiet_hour(self, some: list[tuple[str, str | None, str]]) -> None:
        """Sessions come, those that get a slot start, and all that run wait for input. Then somebody else comes."""
        for user, class_name, namespace in some[1:]:
            self.arrive(user, class_name, namespace)
        self.admit(["created"])
        for uid in self.running():
            if not self.pods[uid].meta.deleting:
                self.answer(uid)
                self.idle[uid] = f"2026-05-04T11:{self.arrived % 60:02}:00Z"
        self.arrive(*some[0])
        self.admit(["created"])

    @precondition(lambda self: self.running())
    @rule(data=st.data(), idle=st.booleans())
    def report_activity(self, data: st.DataObject, idle: bool) -> None:
        uid = data.draw(st.sampled_from(self.running()))
        self.idle.pop(uid, None)
        if idle:
            self.idle[uid] = f"2026-05-04T11:{self.arrived % 60:02}:00Z"
        self.learn()
        self.reconcile(uid)

    # What the operator does.

    @rule(outcomes=answers)
    def admit(self, outcomes: list[str]) -> None:
        """One pass: each creation is answered, refused, or has no answer."""
        self.learn()
        before, asking = self.counts(), self.asking()
        heirs = {claim.successor for claim in self.claims.values() if claim.successor}
        plan = self.decider.decide(100)
        self.check_the_order([SessionUID(uid) for uid in plan.grants], asking, heirs)
        for number, uid in enumerate(plan.grants):
            uid, of = SessionUID(uid), self.sessions[SessionUID(uid)]
            assert not of.finished
            assert not of.spec.suspend
            match outcomes[number % len(outcomes)]:
                case "created":
                    self.create(uid)
                case "refused":
                    self.refused.add(uid)
                case "unknown":
                    self.creating.add(uid)
        self.check_caps(before)
        self.learn()
        for uid in plan.news:
            self.reconcile(SessionUID(uid))
        self.learn()

    @precondition(lambda self: self.creating)
    @rule(data=st.data(), landed=st.booleans())
    def settle(self, data: st.DataObject, landed: bool) -> None:
        """A creation without an answer turns out to have landed, or never will; its session may be gone."""
        uid = data.draw(st.sampled_from(sorted(self.creating)))
        self.creating.discard(uid)
        if landed:
            self.create(uid)

    @rule()
    def forgive(self) -> None:
        """The refused may ask again."""
        self.refused.clear()

    def create(self, uid: SessionUID) -> None:
        of, workspace = self.sessions.get(uid), None
        if of is not None:
            resolved = resolve(of.spec, CLASSES)
            assert isinstance(resolved, Resolved)
            kept = workspace_of(of, resolved)
            workspace = None if kept is None else kept.to_wire()
        assert uid not in self.pods, "the name is taken"
        self.created += 1
        self.put(uid, STARTING, user=self.claims[uid].user, pod_uid=f"pod-{self.created}", workspace=workspace)
        self.reconcile(uid)

    def reconcile(self, uid: SessionUID) -> None:
        """Write what `decide` says and do what it asks for, until it asks for nothing more."""
        for _ in range(5):
            of = self.sessions.get(uid)
            if of is None or uid in self.creating:
                return
            decision = decide(self.facts(of), self.now)
            if decision.status.rest is not None and of.status.rest is None:
                assert uid in self.idle, "only who waits for input makes room"
                if (successor := decision.status.rest.successor) is not None:
                    assert self.claims[uid].priority <= self.claims[SessionUID(successor)].priority
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

    def facts(self, of: Session) -> Facts:
        uid = of.meta.uid
        said = report(uid.removeprefix("uid-of-")) if uid in self.idle else None
        return Facts(
            session=of,
            resolved=resolve(of.spec, CLASSES),
            pod=self.pods.get(uid),
            report=ReceivedReport(said, self.now) if said is not None else None,
            verdict=self.decider.verdict(uid),
            displaced=self.decider.displaced(uid),
        )

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
        self.idle.pop(uid, None)
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

    def holders(self) -> set[SessionUID]:
        """Who holds a slot, by what anybody can see, and by what may be on its way."""
        seen = {uid for uid, one in self.pods.items() if not one.ended} | set(self.creating)
        return seen | {uid for uid, of in self.sessions.items() if of.admitted}

    def asking(self) -> set[SessionUID]:
        self.learn()
        entries = self.decider.ledger.entries
        return {SessionUID(uid) for uid, entry in entries.items() if entry.lane is not None}

    def counts(self, more: set[SessionUID] | None = None) -> dict[str, Counter[str]]:
        """Holders by quota and group, as the judge counts them."""
        counts: dict[str, Counter[str]] = {quota.name: Counter() for quota in JudgedQuota.and_built_in(self.quotas)}
        for uid in self.holders() | (more or set()):
            claim = self.claims[uid]
            for quota in JudgedQuota.of_session(self.quotas, claim, self.labels):
                counts[quota.name][quota.group(claim.user)] += 1
        return counts

    def check_caps(self, before: dict[str, Counter[str]]) -> None:
        after = self.counts()
        for quota in JudgedQuota.and_built_in(self.quotas):
            now, then = after[quota.name], before[quota.name]
            if now != then:
                assert now.total() <= max(quota.cap, then.total())
                assert not quota.held or now.total() <= then.total()
            for group, count in now.items():
                assert count <= max(quota.cap_of(group), then[group])

    def check_the_order(self, grants: list[SessionUID], asking: set[SessionUID], heirs: set[str]) -> None:
        """Slot by slot against the rule itself, with no queue and no heap."""
        granted: set[SessionUID] = set()
        for uid in grants:
            counts = self.counts(granted)
            if uid not in heirs:
                may = [self.claims[each] for each in asking - granted if not self.blocked(self.claims[each], counts)]
                best = min(may, key=lambda claim: (-claim.priority, self.share(claim, counts), claim.arrival))
                assert best.uid == uid
            granted.add(uid)

    def share(self, claim: Claim, counts: dict[str, Counter[str]]) -> float:
        quotas = JudgedQuota.of_session(self.quotas, claim, self.labels)
        return max(quota.share(claim.user, counts[quota.name]) for quota in quotas)

    def blocked(self, claim: Claim, counts: dict[str, Counter[str]]) -> bool:
        quotas = JudgedQuota.of_session(self.quotas, claim, self.labels)
        return any(quota.blocks(claim.user, counts[quota.name]) for quota in quotas)

    @invariant()
    def the_ledger_counts_what_holds(self) -> None:
        self.learn()
        entries = self.decider.ledger.entries
        assert {uid for uid, entry in entries.items() if entry.claim.holds} == self.holders()
        counted = {
            limit.name: Counter({f"{group.together}:{group.name}": group.held for group in limit.groups() if group.held})
            for limit in (*self.decider.ledger.limits.values(), self.decider.ledger.built_in)
        }
        assert counted == self.counts()
        assert list(self.decider.ledger.miscounts()) == []

    @invariant()
    def nobody_both_holds_and_asks(self) -> None:
        assert not self.asking() & self.holders()
        assert not any(self.sessions[uid].spec.suspend or self.sessions[uid].finished for uid in self.asking())

    @invariant()
    def nobody_waits_while_a_slot_that_they_may_use_is_free(self) -> None:
        counts = self.counts()
        for uid in self.asking() - {SessionUID(uid) for uid in self.decider.ledger.fresh}:
            if self.decider.ledger.next_lane() is None:
                assert self.blocked(self.claims[uid], counts)

    @invariant()
    def one_makes_room_for_one(self) -> None:
        leaving = [of.status.rest.successor for uid, of in self.sessions.items() if of.status.rest and uid in self.holders()]
        assert max(Counter(filter(None, leaving)).values(), default=1) == 1

    @invariant()
    def no_ephemeral_session_starts_twice(self) -> None:
        for uid, count in self.started.items():
            if uid in self.sessions and self.sessions[uid].status.workspace is None:
                assert count <= 1


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(max_examples=200, stateful_step_count=40)
