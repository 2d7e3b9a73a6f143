"""Decisions on sessions that are being deleted, and are held by somebody else's finalizer."""

from __future__ import annotations

from support.control_plane.builders import READY, STARTING, admitted, ended, pod, session
from support.control_plane.decided import decided, deletes, reasons, releases


def test_the_pod_of_a_session_being_deleted_is_deleted_once() -> None:
    leaving = admitted(deleting=True)
    assert deletes(decided(leaving, pod=pod(status=READY))) == ["pod-of-demo"]
    assert not decided(leaving, pod=pod(status=READY, deleting=True)).actions
    assert reasons(decided(leaving, pod=pod(status=READY)))["Admitted"] == ("True", "Admitted")


def test_a_session_being_deleted_gives_its_slot_back_with_its_pods_end() -> None:
    """A foreign finalizer may hold the session for days."""
    decision = decided(admitted(deleting=True), pod=pod(status=ended("Failed"), deleting=True))
    assert reasons(decision)["Admitted"] == ("False", "Released")
    assert releases(decision) == ["pod-of-demo"]
    without = decided(admitted(deleting=True))
    assert reasons(without)["Admitted"] == ("False", "Released")
    assert not without.actions


def test_a_session_being_deleted_before_it_was_admitted_needs_nothing() -> None:
    decision = decided(session(deleting=True))
    assert (decision.status.conditions, decision.actions) == ([], [])


def test_a_released_pod_is_not_released_again() -> None:
    assert not decided(admitted(deleting=True), pod=pod(status=ended(), protected=False)).actions


def test_a_pod_that_never_started_is_let_go_with_its_session() -> None:
    forced = pod(status=STARTING, deleting=True, grace=0)
    assert releases(decided(admitted(deleting=True), pod=forced)) == ["pod-of-demo"]
