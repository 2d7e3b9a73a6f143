"""How often lost pods are replaced, and how soon."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.api.workspace import LostPods, WorkspaceStatus
from agentsession_operator.decisions.persistent import IN_A_ROW, TOLERATED, one_more, wait_for_next, workspace_of
from support.control_plane.builders import NOW, STAMP, later, resolved, session


def test_the_waits_grow_from_nothing_to_minutes() -> None:
    lost, waits = None, []
    for _ in range(TOLERATED):
        lost = one_more(lost, "a pod", NOW)
        waits.append(wait_for_next(lost, NOW).total_seconds())
    assert waits == [0, 5, 10, 20, 40, 80, 160]


def test_the_longest_wait_does_not_make_the_next_loss_a_first_one() -> None:
    assert wait_for_next(LostPods(count=TOLERATED, last_time=STAMP), NOW) < IN_A_ROW


@given(st.integers(1, TOLERATED), st.integers(0, 3600))
def test_losses_far_apart_have_nothing_to_do_with_each_other(count: int, seconds: int) -> None:
    after = one_more(LostPods(count=count, last_time=STAMP), "a pod", later(seconds))
    assert after.count == (count + 1 if timedelta(seconds=seconds) < IN_A_ROW else 1)


@given(st.integers(1, TOLERATED), st.integers(0, 3600))
def test_a_wait_ends_when_it_was_said_to_end(count: int, seconds: int) -> None:
    lost = LostPods(count=count, last_time=STAMP)
    assert wait_for_next(lost, later(seconds)) == wait_for_next(lost, NOW) - timedelta(seconds=seconds)


def test_a_count_whose_time_cannot_be_read_waits_for_nothing() -> None:
    """Somebody edited the status."""
    lost = LostPods(count=3, last_time="yesterday")
    assert wait_for_next(lost, NOW) == timedelta(0)
    assert one_more(lost, "a pod", NOW).count == 1


def test_which_workspace_a_session_has_is_settled_with_its_first_pod() -> None:
    offered = resolved(workspace={"type": "Persistent", "size": "5Gi"})
    new = workspace_of(session(), offered)
    assert new is not None
    assert new.size == "5Gi"
    assert workspace_of(session(), resolved()) is None
    assert workspace_of(session(status={"podUID": "p"}), offered) is None
    kept = {"workspace": {"claimName": "kept", "size": "1Gi"}}
    assert workspace_of(session(status=kept), offered) == WorkspaceStatus(claim_name="kept", size="1Gi")
