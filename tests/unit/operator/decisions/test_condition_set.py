"""Conditions as the API conventions want them."""

from __future__ import annotations

from agentsession_operator.api.conditions import ConditionType
from agentsession_operator.api.meta import Condition
from agentsession_operator.decisions.condition_set import MAX_MESSAGE, ConditionSet
from support.control_plane.builders import EARLIER, STAMP, condition


def conditions(*current: dict[str, object]) -> ConditionSet:
    return ConditionSet([Condition.model_validate(item) for item in current], generation=3, now=STAMP)


def test_a_new_condition_has_changed_now() -> None:
    some = conditions()
    some.set(ConditionType.READY, "False", "Creating", "The pod is starting.")
    assert some.as_list() == [
        Condition(
            type="Ready",
            status="False",
            reason="Creating",
            message="The pod is starting.",
            last_transition_time=STAMP,
            observed_generation=3,
        )
    ]


def test_another_reason_is_no_transition() -> None:
    some = conditions(condition("Ready", "False", "Creating"))
    some.set(ConditionType.READY, "False", "Crashed")
    found = some.get(ConditionType.READY)
    assert found is not None
    assert (found.reason, found.last_transition_time, found.observed_generation) == ("Crashed", EARLIER, 3)


def test_another_status_is_a_transition() -> None:
    some = conditions(condition("Ready", "False", "Creating"))
    some.set(ConditionType.READY, "True", "PodReady")
    found = some.get(ConditionType.READY)
    assert found is not None
    assert found.last_transition_time == STAMP


def test_what_is_set_and_taken_back_while_deciding_is_no_transition() -> None:
    some = conditions(condition("Ready", "False", "Creating"))
    some.set(ConditionType.READY, "True", "PodReady")
    some.set(ConditionType.READY, "False", "Crashed")
    found = some.get(ConditionType.READY)
    assert found is not None
    assert found.last_transition_time == EARLIER


def test_conditions_that_are_not_set_stay_untouched() -> None:
    some = conditions(condition("Other", "True", "Theirs"), condition("Ready", "False", "Creating"))
    some.set(ConditionType.READY, "True", "PodReady")
    assert some.as_list()[0] == Condition.model_validate(condition("Other", "True", "Theirs"))


def test_a_removed_condition_is_gone_and_removing_it_twice_is_fine() -> None:
    some = conditions(condition("Stalled", "True", "Failed"))
    some.remove(ConditionType.STALLED)
    some.remove(ConditionType.STALLED)
    assert some.as_list() == []
    assert not some.holds(ConditionType.STALLED)


def test_a_condition_holds_when_its_status_is_true() -> None:
    some = conditions(condition("Ready", "True", "X"), condition("Active", "False", "X"), condition("Stalled", "Unknown", "X"))
    kinds = (ConditionType.READY, ConditionType.ACTIVE, ConditionType.STALLED, ConditionType.FINISHED)
    assert [some.holds(kind) for kind in kinds] == [True, False, False, False]


def test_long_messages_are_cut() -> None:
    some = conditions()
    for length, expected in ((MAX_MESSAGE, "x" * MAX_MESSAGE), (MAX_MESSAGE + 1, "x" * (MAX_MESSAGE - 1) + "…")):
        some.set(ConditionType.READY, "False", "Crashed", "x" * length)
        found = some.get(ConditionType.READY)
        assert found is not None
        assert found.message == expected
