"""What holds for every decision, over lives of sessions in which anything may happen next."""

from __future__ import annotations

import re
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.api.conditions import ConditionType
from agentsession_operator.api.meta import Condition
from agentsession_operator.api.objects import Session
from agentsession_operator.decisions import persistent
from agentsession_operator.decisions.decide import OUTCOME_GRACE, decide
from agentsession_operator.decisions.decision import CreatePod, DeletePod, ReleasePod
from agentsession_operator.decisions.patch import merge_patch
from agentsession_operator.decisions.resolve import Misconfigured
from support.control_plane.apiserver import merged
from support.control_plane.builders import (
    JSON,
    later,
)
from support.control_plane.moments import Moment, holds, live, lives, new_sessions, stored


@given(new_sessions, lives)
def test_what_was_written_is_what_was_decided(of: Session, life: list[Moment]) -> None:
    for before, _, decision in live(of, life):
        assert stored(before, decision).status == decision.status


@given(new_sessions, lives, st.integers(0, 10_000))
def test_a_decision_carried_out_is_not_decided_again(of: Session, life: list[Moment], passed: int) -> None:
    """Time alone changes nothing either, until the moment at which the decision said it would."""
    for before, moment, decision in live(of, life):
        after = stored(before, decision)
        seconds = moment.seconds + passed
        if decision.look_again is not None:
            seconds = min(seconds, moment.seconds + decision.look_again.total_seconds() - 1)
        again = decide(moment.facts(after), later(seconds))
        assert merge_patch(after.status.to_wire(), again.status.to_wire()) == {}


@given(new_sessions, lives)
def test_equal_facts_give_equal_decisions(of: Session, life: list[Moment]) -> None:
    for before, moment, decision in live(of, life):
        assert decide(moment.facts(before), later(moment.seconds)) == decision


@given(new_sessions, lives)
def test_only_a_pod_admits(of: Session, life: list[Moment]) -> None:
    """There is no other door than the pod that the admitter creates, and an old pod is no way past the queue."""
    for before, moment, decision in live(of, life):
        if holds(decision.status, "Admitted") and not before.admitted:
            assert moment.pod is not None
            assert not (moment.pod.ended and persistent.is_recorded(before, moment.pod))


@given(new_sessions, lives)
def test_only_a_session_with_a_slot_gets_a_replacement(of: Session, life: list[Moment]) -> None:
    for before, moment, decision in live(of, life):
        if any(isinstance(action, CreatePod) for action in decision.actions):
            assert before.admitted
            assert holds(decision.status, "Admitted")
            assert moment.pod is None
            assert not before.finished
            assert before.status.pod_uid is None
            assert not moment.suspend or decision.status.workspace is None
            assert decision.status.workspace is not None or before.status.lost_pods is not None


@given(new_sessions, lives)
def test_an_ephemeral_session_that_started_gets_no_second_pod(of: Session, life: list[Moment]) -> None:
    for before, moment, decision in live(of, life):
        started = before.status.start_time is not None or moment.received is not None
        if started and decision.status.workspace is None:
            assert not any(isinstance(action, CreatePod) for action in decision.actions)


@given(new_sessions, lives)
def test_the_workspace_comes_with_the_pod_and_is_the_same_ever_after(of: Session, life: list[Moment]) -> None:
    for before, moment, decision in live(of, life):
        if decision.status.workspace != before.status.workspace:
            assert before.status.workspace is None
            assert moment.pod is not None
            assert decision.status.workspace == moment.pod.workspace


@given(new_sessions, lives)
def test_losses_are_counted_one_by_one_and_written_before_anything_is_done(of: Session, life: list[Moment]) -> None:
    for before, moment, decision in live(of, life):
        counted = before.status.lost_pods.count if before.status.lost_pods else 0
        count = decision.status.lost_pods.count if decision.status.lost_pods else 0
        if count < counted and count == 0:
            assert holds(decision.status, "Suspended"), "only rest makes forget them"
        elif decision.status.lost_pods is None and before.status.lost_pods is not None:
            assert moment.pod is not None
            assert decision.status.pod_uid == moment.pod.meta.uid
        elif decision.status.lost_pods != before.status.lost_pods:
            assert count in (1, counted + 1, counted)
            assert moment.pod is None or moment.pod.ended
            assert not decision.actions


@given(new_sessions, lives)
def test_a_lost_pod_is_replaced_no_sooner_than_its_wait_is_over(of: Session, life: list[Moment]) -> None:
    for _, moment, decision in live(of, life):
        lost = decision.status.lost_pods
        if lost is not None and any(isinstance(action, CreatePod) for action in decision.actions):
            assert lost.count <= persistent.TOLERATED
            assert persistent.wait_for_next(lost, later(moment.seconds)) <= timedelta(0)


@given(new_sessions, lives)
def test_a_pod_is_released_only_when_its_end_is_written(of: Session, life: list[Moment]) -> None:
    for before, _, decision in live(of, life):
        for action in decision.actions:
            if isinstance(action, ReleasePod):
                assert action.pod.ended
                assert persistent.is_recorded(before, action.pod)


@given(new_sessions, lives)
def test_a_session_without_its_pod_is_on_its_way_to_another(of: Session, life: list[Moment]) -> None:
    """Or says what it waits for."""
    for _, moment, decision in live(of, life):
        status = decision.status
        if moment.pod is None and holds(status, "Admitted") and not holds(status, "Finished"):
            waits = isinstance(moment.resolved, Misconfigured) or decision.look_again is not None or moment.creating
            assert waits or any(isinstance(action, CreatePod) for action in decision.actions)


@given(new_sessions, lives)
def test_a_slot_is_only_released_when_no_pod_can_run_any_more(of: Session, life: list[Moment]) -> None:
    for before, moment, decision in live(of, life):
        if before.admitted and not holds(decision.status, "Admitted"):
            assert holds(decision.status, "Finished") or holds(decision.status, "Suspended")
            assert moment.pod is None or moment.pod.ended


@given(new_sessions, lives)
def test_a_session_rests_only_when_that_is_wanted_and_loses_nothing(of: Session, life: list[Moment]) -> None:
    for before, moment, decision in live(of, life):
        if holds(decision.status, "Suspended") and not holds(before.status, "Suspended"):
            assert moment.suspend or moment.displaced is not None or before.status.rest is not None
            assert decision.status.workspace is not None or not before.admitted


@given(new_sessions, lives)
def test_only_a_pod_that_is_there_and_not_going_is_deleted(of: Session, life: list[Moment]) -> None:
    for _, moment, decision in live(of, life):
        for action in decision.actions:
            if isinstance(action, DeletePod):
                assert action.pod is moment.pod
                assert not action.pod.meta.deleting


def seen(condition: Condition) -> Condition:
    """A condition, whichever generation of the spec it was decided on."""
    return condition.model_copy(update={"observed_generation": 0})


@given(new_sessions, lives)
def test_the_end_is_final(of: Session, life: list[Moment]) -> None:
    for before, _, decision in live(of, life):
        if before.finished:
            kept = ("Finished", "Ready", "Active", "Stalled")
            assert [seen(item) for item in decision.status.conditions if item.type in kept] == [
                seen(item) for item in before.status.conditions if item.type in kept
            ]
            assert decision.status.phase == before.status.phase
            assert decision.status.finish_time == before.status.finish_time


@given(new_sessions, lives)
def test_the_transition_time_moves_only_with_the_status(of: Session, life: list[Moment]) -> None:
    for before, moment, decision in live(of, life):
        known = {item.type: item for item in before.status.conditions}
        for item in decision.status.conditions:
            previous = known.get(item.type)
            stayed = previous is not None and previous.status == item.status
            now = later(moment.seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
            assert item.last_transition_time == (previous.last_transition_time if stayed and previous else now)


@given(new_sessions, lives)
def test_conditions_are_unique_and_their_reasons_are_words_for_programs(of: Session, life: list[Moment]) -> None:
    for _, _, decision in live(of, life):
        kinds = [item.type for item in decision.status.conditions]
        assert len(kinds) == len(set(kinds))
        assert set(kinds) <= set(ConditionType)
        assert all(re.fullmatch("[A-Z][A-Za-z]*", item.reason) for item in decision.status.conditions)


@given(new_sessions, lives)
def test_ready_means_reachable_or_a_completed_task(of: Session, life: list[Moment]) -> None:
    for _, moment, decision in live(of, life):
        status = decision.status
        done = holds(status, "Finished") and status.phase == "Completed" and of.spec.mode == "Task"
        talks = not holds(status, "Finished") and holds(status, "Admitted") and holds(status, "PodReady")
        assert holds(status, "Ready") == (done or talks)
        if talks:
            assert moment.pod is not None


@given(new_sessions, lives)
def test_the_phase_agrees_with_the_conditions(of: Session, life: list[Moment]) -> None:
    for before, _, decision in live(of, life):
        status = decision.status
        if status is before.status:
            continue  # nothing is said for now
        assert (status.phase in ("Completed", "Failed")) == holds(status, "Finished")
        if not holds(status, "Finished"):
            assert (status.phase in ("Pending", "Queued", "Suspended")) != holds(status, "Admitted")
        assert (status.phase == "Suspended") == holds(status, "Suspended")
        drained = any((item.type, item.reason) == ("Suspended", "QuotaHeld") for item in status.conditions)
        assert (status.queue is not None) <= (status.phase == "Queued" or drained)


@given(new_sessions, lives)
def test_only_a_finished_session_has_a_finish_time(of: Session, life: list[Moment]) -> None:
    for _, _, decision in live(of, life):
        assert (decision.status.finish_time is not None) == holds(decision.status, "Finished")


@given(new_sessions, lives)
def test_a_session_that_is_over_never_lingers_unwatched(of: Session, life: list[Moment]) -> None:
    """A session that has said the outcome is looked at again within the grace, is finished, or is going."""
    for _, moment, decision in live(of, life):
        admitted = holds(decision.status, "Admitted") and not holds(decision.status, "Finished")
        over = moment.received is not None and moment.received.report.outcome is not None
        if admitted and over and moment.pod is not None and not moment.pod.meta.deleting:
            assert decision.look_again is not None
            assert decision.look_again <= OUTCOME_GRACE


# The patch that carries a status.

json_values: st.SearchStrategy[object] = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.sampled_from("abcd"), json_values, max_size=4)


@given(json_objects, json_objects)
def test_a_merge_patch_makes_the_desired_value_of_the_current_one(current: JSON, desired: JSON) -> None:
    assert merged(current, merge_patch(current, desired)) == desired


@given(json_objects)
def test_nothing_is_patched_where_nothing_differs(value: JSON) -> None:
    assert merge_patch(value, value) == {}


@given(json_objects, json_objects)
def test_a_patch_never_names_a_field_that_stays(current: JSON, desired: JSON) -> None:
    patch = merge_patch(current, desired)
    assert isinstance(patch, dict)
    assert all(key not in current or key not in desired or current[key] != desired[key] for key in patch)
