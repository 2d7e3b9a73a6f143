"""Creations whose outcome is not known, and refusals that end."""

from __future__ import annotations

from agentsession_operator.api.objects import SessionUID
from agentsession_operator.control.creations import Creations
from agentsession_operator.control.refusals import Refusals

A, B = SessionUID("a"), SessionUID("b")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_creation_is_known_from_before_its_request_to_its_outcome() -> None:
    creations = Creations(Clock())
    creations.sent(A)
    assert (A in creations, B in creations, len(creations)) == (True, False, 1)
    creations.ended(A)
    assert (A in creations, len(creations)) == (False, 0)


def test_a_creation_without_an_answer_is_a_doubt() -> None:
    clock = Clock()
    creations = Creations(clock)
    clock.now = 7.0
    creations.sent(A)
    creations.sent(B)
    assert creations.doubts() == []
    creations.unanswered(A)
    ((uid, pending),) = creations.doubts()
    assert (uid, pending.sent) == (A, 7.0)
    creations.sent(A)
    assert creations.doubts() == [], "it is sent again"


def test_sessions_whose_creation_began_or_ended_are_told_once() -> None:
    creations = Creations(Clock())
    creations.sent(A)
    creations.ended(A)
    creations.sent(B)
    assert creations.take_changed() == [A, B]
    assert creations.take_changed() == []


def test_a_refused_session_is_due_when_its_wait_is_over() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    refusals.add(A, "no", 0)
    refusals.add(B, "no", 30)
    assert (refusals.next_due(), refusals.take_due()) == (1.0, [])
    clock.now = 1.0
    assert (refusals.next_due(), refusals.backs_off(A), refusals.backs_off(B)) == (0.0, False, True)
    assert refusals.take_due() == [A]
    assert refusals.next_due() == 29.0


def test_only_the_newest_refusal_of_a_session_counts() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    refusals.add(A, "no", 0)
    assert refusals.add(A, "no", 60) == 2
    assert refusals.next_due() == 60.0
    refusals.forget(A)
    assert refusals.next_due() == float("inf")
    assert refusals.message(A) is None


def test_a_session_that_was_refused_and_is_gone_leaves_nothing_behind() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    refusals.add(A, "no", 0)
    refusals.forget(A)
    clock.now = 5.0
    assert refusals.take_due() == [A], "to be counted again does no harm"
    assert refusals.take_due() == []
