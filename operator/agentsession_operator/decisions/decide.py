"""The reconciler's decision: from what is known of one session to its status and what must be done. A pure function."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, cast

from agentsession_operator.api.names import claim_name, pod_name
from agentsession_operator.api.objects import Pod
from agentsession_operator.api.session import AgentSessionStatus, QueuePlace
from agentsession_operator.api.workspace import LostPods, WorkspaceStatus
from agentsession_operator.decisions import podstate, replacement
from agentsession_operator.decisions.admission import Wait
from agentsession_operator.decisions.condition_set import ConditionSet
from agentsession_operator.decisions.facts import Action, CreateClaim, CreatePod, Decision, DeletePod, Facts, Granted
from agentsession_operator.decisions.report_status import reported
from agentsession_operator.decisions.resolve import Misconfigured, Resolved
from agentsession_operator.decisions.summary import phase, summarise
from session_runtime.wire import Outcome, SessionReport

POSITIONS_SHOWN: Final = 50
"""Sessions further back in the queue are not told their place: it would cost a write each whenever anyone moves."""

OUTCOME_GRACE: Final = timedelta(seconds=60)
"""How long a pod may linger after its session is over. Then it is deleted, so that no slot leaks."""

VOLUME_GRACE: Final = timedelta(seconds=10)
"""How long a volume may take before its pod is told as unschedulable."""

_LOST: Final = frozenset({"PodGone", "Evicted"})
_SUSPENDED: Final = frozenset({"Suspending", "Suspended", "Resuming"})
_NO_POD: Final = _LOST | _SUSPENDED | {"Creating", "CreateFailed", "Misconfigured"}
"""Reasons of PodReady that say nothing of the pod that is there now."""

_NOT_PERSISTENT: Final = (
    "The workspace is ephemeral: its work would be lost, so the session goes on. Delete the session to free its slot, or set "
    "spec.suspend to false; sessions of a class with workspace.type Persistent can be suspended."
)


def decide(facts: Facts, now: datetime) -> Decision:
    """Decide on one session; `now` is UTC."""
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    session = facts.session
    conditions = ConditionSet(session.status.conditions, generation=session.meta.generation, now=stamp)
    draft = _Draft(facts, conditions, now, stamp, dict(session.status))
    if session.finished:
        draft.after_the_end()
    elif session.admitted or (isinstance(facts.verdict, Granted) and not session.spec.suspend):
        draft.holding_a_slot()
    else:
        draft.before_admission()
    return draft.decision()


@dataclass
class _Draft:
    """A status under construction: `fields` begins as the present status."""

    facts: Facts
    conditions: ConditionSet
    now: datetime
    stamp: str
    fields: dict[str, object]
    actions: tuple[Action, ...] = ()
    look_again: timedelta | None = None

    # The three stages of a session's life.

    def before_admission(self) -> None:
        pod, verdict = self.facts.pod, self.facts.verdict
        if pod is not None and not pod.ended and not pod.meta.deleting:
            # Somebody took the admission away (the status was edited): what runs without a slot is stopped.
            self.actions = (DeletePod(pod),)
        if self.facts.session.spec.suspend:
            self._release_while_suspended()
        elif isinstance(self.facts.resolved, Misconfigured):
            self.conditions.set("Admitted", "False", "Misconfigured", self.facts.resolved.message)
            self.fields["queue"] = None
        elif isinstance(verdict, Wait):
            self.conditions.set("Admitted", "False", verdict.reason, verdict.message)
            shown = verdict.position <= POSITIONS_SHOWN
            before = self.facts.session.status.queue
            self.fields["queue"] = QueuePlace(
                position=verdict.position if shown else None, since=before.since if before else self.stamp
            )

    def holding_a_slot(self) -> None:
        session, pod, resolved = self.facts.session, self.facts.pod, self.facts.resolved
        if not session.admitted:
            self.conditions.set("Admitted", "True", "Admitted", "The session holds a slot.")
            self.conditions.set("Finished", "False", "Running")
            self.conditions.set("Active", "False", "NotStarted")
        self.fields["queue"] = None
        self.fields["pod_name"] = pod_name(session.meta.name, session.meta.uid)
        if isinstance(resolved, Resolved) and self.fields["model"] is None:
            self.fields["model"] = resolved.agent.model
        if self.fields["workspace"] is not None and not self._is_over():
            self._keep_going(pod)
        elif pod is None:
            self._without_pod()
        elif pod.ended and pod.meta.deleting and not self._has_started():
            # A kubelet calls a deleted pod failed before it lets it go (KEP-3329), also one that never ran: another will.
            self.conditions.set("PodReady", "False", "PodGone", "The pod is being deleted.")
        elif pod.ended:
            self._finish_with(pod)
        else:
            self._with_pod(pod)

    def after_the_end(self) -> None:
        pod = self.facts.pod
        self._release_unless_running(pod)
        if pod is not None and not pod.ended and not pod.meta.deleting:
            self.actions = (DeletePod(pod),)

    # No pod.

    def _has_started(self) -> bool:
        """Whether the prompt may have been worked on. It is not worked on twice, so such a pod is not made again."""
        pod = self.facts.pod
        return (
            self.fields["start_time"] is not None
            or self.facts.report is not None
            or (pod is not None and podstate.started_at(pod) is not None)
        )

    def _is_over(self) -> bool:
        """Whether the session has come to its end, or its agent says so."""
        received, pod = self.facts.report, self.facts.pod
        last = received.report if received else None
        if pod is not None and not (last and last.outcome):
            last = podstate.final_report(pod)
        return bool(last and last.outcome) or (pod is not None and pod.phase == "Succeeded")

    def _without_pod(self) -> None:
        """No pod, and the workspace is ephemeral or the session is over."""
        if self._has_started():
            self._take_report()
            received = self.facts.report
            if received and received.report.outcome:
                self._finish(received.report.outcome, received.report.outcome_message or "")
            else:
                self._finish(
                    "Failed",
                    "The pod is gone (deleted, drained or lost with its node) and its work with it: "
                    "the workspace was ephemeral. Apply the session again under another name.",
                )
            self.conditions.set("PodReady", "False", "PodGone", "The pod is gone.")
        else:
            self._make_pod()

    def _make_pod(self) -> None:
        resolved = self.facts.resolved
        if isinstance(resolved, Misconfigured):
            self.conditions.set("PodReady", "False", "Misconfigured", resolved.message)
            return
        self.fields["model"] = resolved.agent.model
        workspace = self._workspace_of(resolved)
        # The claim of a session that has started is not made again: an empty one would have it begin anew.
        claim = (CreateClaim(workspace),) if workspace and not self._has_started() else ()
        self.actions = (*claim, CreatePod(resolved, workspace))
        before = self.conditions.get("PodReady")
        if self.facts.create_error:
            self.conditions.set("PodReady", "False", "CreateFailed", self.facts.create_error)
        elif before is None:
            self.conditions.set("PodReady", "False", "Creating", podstate.STARTING)
        elif before.reason in _SUSPENDED:
            self.conditions.set("PodReady", "False", "Resuming", podstate.STARTING)

    def _workspace_of(self, resolved: Resolved) -> WorkspaceStatus | None:
        """Which workspace the session has is written with its reservation, and stays."""
        meta, offered = self.facts.session.meta, resolved.session_class.workspace
        reserves = not self.facts.session.admitted and self.fields["workspace"] is None
        if reserves and offered.type == "Persistent" and offered.size is not None:
            self.fields["workspace"] = WorkspaceStatus(
                claim_name=claim_name(meta.name, meta.uid),
                size=offered.size,
                storage_class_name=offered.storage_class_name,
            )
        return cast(WorkspaceStatus | None, self.fields["workspace"])

    # A persistent session goes on without its pod, or rests.

    def _keep_going(self, pod: Pod | None) -> None:
        if self.facts.session.spec.suspend:
            self._suspend(pod)
        elif pod is None or pod.ended or pod.meta.deleting:
            self._replace(pod)
        else:
            self._with_pod(pod)

    def _replace(self, pod: Pod | None) -> None:
        """Make the first pod, or another one for a pod that is lost, when that one's name is free and it is time.

        A loss is counted, and the count written, before anything is done about it: an operator that dies in between counts on.
        """
        news = self._is_lost(pod)
        if news:
            self._count_loss(pod)
        lost = cast(LostPods | None, self.fields["lost_pods"])
        wait = replacement.wait_for_next(lost, self.now) if lost else timedelta(0)
        if lost is not None and lost.count > replacement.TOLERATED:
            self._give_up(lost)
        elif news:
            self.look_again = timedelta(0)
        elif pod is not None:
            self.actions = () if pod.meta.deleting else (DeletePod(pod),)
        elif wait > timedelta(0):
            self.look_again = wait
        else:
            self._make_pod()

    def _is_lost(self, pod: Pod | None) -> bool:
        """Whether a pod is lost that is not counted yet: the condition tells what was there before."""
        before = self.conditions.get("PodReady")
        reason = before.reason if before else "Creating"
        if pod is not None:
            return reason not in _LOST | _SUSPENDED
        if reason == "Creating":  # that is told before the first pod is made, and of later ones only when they are there
            return self.fields["lost_pods"] is not None
        return reason not in _NO_POD

    def _count_loss(self, pod: Pod | None) -> None:
        loss = podstate.loss(pod)
        self.fields["lost_pods"] = lost = replacement.one_more(cast(LostPods | None, self.fields["lost_pods"]), self.now)
        outlook = " Another one continues the session." if lost.count <= replacement.TOLERATED else ""
        self.conditions.set("PodReady", "False", loss.reason, loss.message + outlook)
        self.conditions.set("Active", "False", "Stopped")
        if pod is not None:
            self.fields["start_time"] = self.fields["start_time"] or podstate.started_at(pod)
        self._take_report()

    def _give_up(self, lost: LostPods) -> None:
        last, workspace = self.conditions.get("PodReady"), cast(WorkspaceStatus, self.fields["workspace"])
        self._finish(
            "Failed",
            f"The session lost {lost.count} pods in a row. The last time: {last.message if last else ''} "
            f"Its files and conversation stay on the PersistentVolumeClaim {workspace.claim_name} until it is deleted.",
        )

    def _suspend(self, pod: Pod | None) -> None:
        """Give the slot back once the pod is gone or has ended. The runtime saves the session when it is told to stop."""
        self.conditions.set("Active", "False", "Stopped")
        self._take_report()
        if pod is None or pod.ended:
            self.conditions.set("PodReady", "False", "Suspended", "The session is suspended and has no pod.")
            self._release_while_suspended()
            return
        if not pod.meta.deleting:
            self.actions = (DeletePod(pod),)
        self.conditions.set("PodReady", "False", "Suspending", "The session is being suspended: its pod saves it and ends.")
        self.conditions.set("Suspended", "False", "Suspending", "The pod saves the session and ends.")

    def _release_while_suspended(self) -> None:
        self.conditions.set("Suspended", "True", "UserRequested", "spec.suspend is true. Set it to false to go on.")
        self.conditions.set(
            "Admitted", "False", "Released", "The session is suspended: it neither holds a slot nor waits for one."
        )
        self.fields["queue"] = None
        self.fields["lost_pods"] = None

    def _tell_suspension(self) -> None:
        """What became of a request to suspend that cannot be met, or was taken back."""
        before = self.conditions.get("Suspended")
        if self.facts.session.spec.suspend:
            if self.conditions.holds("Admitted") and self.fields["workspace"] is None:
                self.conditions.set("Suspended", "False", "NotPersistent", _NOT_PERSISTENT)
        elif before is not None and not self._rests():
            back = before.reason in ("NotPersistent", "NotSuspended") or self.conditions.holds("PodReady")
            self.conditions.set("Suspended", "False", "NotSuspended" if back else "Resuming")

    def _rests(self) -> bool:
        """Suspended, and nobody has looked yet whether it may go on: a status that says so would cost a write."""
        admitted = self.conditions.get("Admitted")
        return self.conditions.holds("Suspended") and admitted is not None and admitted.reason == "Released"

    # A pod that is there.

    def _with_pod(self, pod: Pod) -> None:
        ready = podstate.readiness(pod)
        received = self.facts.report
        over = received is not None and received.report.outcome is not None
        if ready.reason == "PodEnded" or (over and ready.reason == "Creating"):
            # One of the containers has ended and the other is about to, within a second: told with the end, in one write.
            self._end_what_lingers(pod)
            return
        if ready.reason == "Creating" and self.fields["start_time"] is not None and self._pod_is_known():
            ready = podstate.Readiness("False", "NotReady", podstate.unready_message(pod))
        elif ready.reason == "Unschedulable" and self._awaits_volume(pod):
            ready = podstate.Readiness("False", "Creating", podstate.STARTING)
        self.conditions.set("PodReady", ready.status, ready.reason, ready.message)
        if ready.status == "True":
            self.fields["start_time"] = self.fields["start_time"] or podstate.started_at(pod) or self.stamp
            if received and not received.report.outcome:
                self.conditions.set("Active", "True", received.report.activity, _limit_reached(received.report))
        elif ready.reason in ("Crashed", "PodGone"):
            self.fields["start_time"] = self.fields["start_time"] or podstate.started_at(pod)
        if ready.reason == "Crashed":
            self.conditions.set("Active", "False", "Stopped", "The container has crashed; the kubelet starts it again.")
        if self.fields["start_time"] is not None:
            self._take_report()  # an earlier one is told together with Ready: it is not worth a write of its own
        self._end_what_lingers(pod)

    def _pod_is_known(self) -> bool:
        """Whether the condition that was written last is about the pod that is there."""
        before = self.conditions.get("PodReady")
        return before is not None and before.reason not in _NO_POD

    def _awaits_volume(self, pod: Pod) -> bool:
        """The scheduler refuses a pod until its claim is bound: that is the usual way, and worth no writes for some seconds."""
        since = podstate.unschedulable_since(pod)
        if self.fields["workspace"] is None or since is None or self._pod_is_known():
            return False
        left = since + VOLUME_GRACE - self.now
        if left <= timedelta(0):
            return False
        self.look_again = left
        return True

    def _end_what_lingers(self, pod: Pod) -> None:
        """A pod whose session is over gets some time to end by itself.

        The end is written first, and then the pod is deleted (`after_the_end`): an operator that restarts in between knows
        no report any more, and would take a pod that is gone for one that was lost.
        """
        received = self.facts.report
        over = received.received if received and received.report.outcome else podstate.agent_ended_at(pod)
        if over is None or pod.meta.deleting:
            return
        waited = self.now - over
        if waited < OUTCOME_GRACE:
            self.look_again = OUTCOME_GRACE - waited
        else:
            self.conditions.set("PodReady", "False", "PodEnded", "The session is over; its pod lingers and is deleted.")
            self._finish_as_told(pod)

    def _finish_with(self, pod: Pod) -> None:
        ready = podstate.readiness(pod)
        self.conditions.set("PodReady", ready.status, ready.reason, ready.message)
        self._finish_as_told(pod)

    def _finish_as_told(self, pod: Pod) -> None:
        """Finish with the outcome of a report: of the one that was received, or else of the pod's last words."""
        self.fields["start_time"] = self.fields["start_time"] or podstate.started_at(pod)
        self._take_report()
        received = self.facts.report.report if self.facts.report else None
        last = podstate.final_report(pod)
        if received is not None and received.outcome:
            self._finish(received.outcome, received.outcome_message or "")
        elif last is not None and last.outcome:
            self.fields |= reported(last)
            self._finish(last.outcome, last.outcome_message or "")
        elif pod.phase == "Failed":
            self._finish("Failed", f"The pod failed: {pod.reason or 'Error'}: {pod.message or 'no message'}")
        else:
            self._finish("Failed", "The agent ended without saying how the session went; its log may tell.")

    # Reports, and the end.

    def _take_report(self) -> None:
        if self.facts.report is not None:
            self.fields |= reported(self.facts.report.report)

    def _finish(self, outcome: Outcome, message: str) -> None:
        self.conditions.set("Finished", "True", outcome, message)
        self.conditions.set("Active", "False", "Stopped")
        self.fields["finish_time"] = self.stamp
        self.fields["pending_approvals"] = []
        self.conditions.remove("Suspended")
        self._release_unless_running(self.facts.pod)

    def _release_unless_running(self, pod: Pod | None) -> None:
        if pod is None or pod.ended:
            self.conditions.set("Admitted", "False", "Released", "The session has finished and its slot is free.")

    # What follows from the conditions.

    def decision(self) -> Decision:
        if not self.conditions.holds("Finished"):
            self._tell_suspension()
        summarise(self.conditions, self.facts.session.spec.mode)
        self.fields["phase"] = phase(
            self.conditions, started=self.fields["start_time"] is not None, lasting=self.fields["workspace"] is not None
        )
        self.fields["conditions"] = self.conditions.as_list()
        self.fields["observed_generation"] = self.facts.session.meta.generation
        return Decision(AgentSessionStatus.model_validate(self.fields), self.actions, self.look_again)


def _limit_reached(report: SessionReport) -> str:
    return "" if report.budget_used_up is None else f"It asks the model nothing more: {report.budget_used_up}."
