"""Who is counted as a holder, and who as asking."""

from __future__ import annotations

from collections import Counter

import pytest

from agentsession_operator.api.objects import Pod, Session, SessionUID
from agentsession_operator.cluster.thrift import Thrift
from agentsession_operator.decisions.admission import Waiting
from agentsession_operator.decisions.ledger import Startable, build_ledger
from support.control_plane.builders import (
    CREATED,
    READY,
    admitted,
    classes,
    condition,
    ended,
    finished,
    pod,
    pod_body,
    session,
    session_class,
)

DEMO = SessionUID("uid-of-demo")
MODELS = ["openai/a", "openai/b", "other/a", "openai/a", "other/b", "openai/c"]


def count(
    *objects: Session | Pod,
    in_flight: dict[SessionUID, str] | None = None,
    backing_off: set[SessionUID] | None = None,
    of_classes: dict[str, object] | None = None,
) -> tuple[Counter[str], list[str]]:
    """Holders by user, and who asks."""
    ledger = build_ledger(
        [item for item in objects if isinstance(item, Session)],
        [item for item in objects if isinstance(item, Pod)],
        Startable(classes() if of_classes is None else of_classes),  # type: ignore[arg-type]
        in_flight or {},
        (backing_off or set()).__contains__,
    )
    return Counter(ledger.holders), [waiting.uid for waiting in ledger.waiting]


def test_a_new_session_asks_and_holds_nothing() -> None:
    assert count(session()) == (Counter(), ["uid-of-demo"])


def test_who_asks_is_known_by_creation_time_namespace_and_name() -> None:
    ledger = build_ledger([session()], [], Startable(classes()), {}, set().__contains__)
    assert ledger.waiting == [Waiting("uid-of-demo", "ada", (CREATED, "team", "demo"))]


def test_an_admitted_session_holds_a_slot_before_it_has_a_pod() -> None:
    assert count(admitted()) == (Counter(ada=1), [])


def test_a_session_and_its_pod_hold_one_slot_together() -> None:
    assert count(admitted(), pod(status=READY)) == (Counter(ada=1), [])


def test_a_session_with_a_pod_holds_before_its_status_says_so() -> None:
    assert count(session(), pod(status=READY)) == (Counter(ada=1), [])


@pytest.mark.parametrize("phase", ["Pending", "Running", "Unknown"])
def test_a_pod_without_its_session_holds_until_it_has_ended(phase: str) -> None:
    assert count(pod(user="bob", status={"phase": phase})) == (Counter(bob=1), [])


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_holds_nothing(phase: str) -> None:
    assert count(pod(status=ended(phase))) == (Counter(), [])


def test_a_pod_that_is_being_deleted_still_holds() -> None:
    assert count(pod(status=READY, deleting=True)) == (Counter(ada=1), [])


def test_a_session_being_deleted_asks_for_nothing() -> None:
    assert count(session(deleting=True)) == (Counter(), [])


def test_an_admitted_session_being_deleted_still_holds() -> None:
    assert count(admitted(deleting=True), pod(status=READY)) == (Counter(ada=1), [])


def test_a_finished_session_neither_holds_nor_asks() -> None:
    assert count(finished(), pod(status=ended())) == (Counter(), [])


def test_a_finished_session_holds_while_its_pod_lingers() -> None:
    assert count(finished(), pod(status=READY)) == (Counter(ada=1), [])


def test_an_admitted_session_holds_until_it_is_released() -> None:
    assert count(admitted(), pod(status=ended())) == (Counter(ada=1), [])


def test_a_finished_session_that_was_not_released_holds() -> None:
    assert count(finished(released=False)) == (Counter(ada=1), [])


def test_a_session_without_a_class_never_asks() -> None:
    assert count(session(className="gone")) == (Counter(), [])
    assert count(session(), of_classes={}) == (Counter(), [])


def test_a_session_with_a_model_that_its_class_forbids_never_asks() -> None:
    strict = classes(session_class(models=[{"match": "openai/*"}]))
    assert count(session(agent={"model": "acme/huge"}), of_classes=strict) == (Counter(), [])  # type: ignore[arg-type]


def test_an_admitted_session_holds_though_its_class_is_gone() -> None:
    assert count(admitted(), of_classes={}) == (Counter(ada=1), [])


def test_a_write_in_flight_counts_as_done() -> None:
    assert count(session(), in_flight={DEMO: "ada"}) == (Counter(ada=1), [])


def test_a_write_in_flight_counts_when_the_session_is_already_gone() -> None:
    assert count(in_flight={DEMO: "ada"}) == (Counter(ada=1), [])


def test_a_write_in_flight_is_not_counted_beside_its_session_and_pod() -> None:
    assert count(admitted(), pod(status=READY), in_flight={DEMO: "ada"}) == (Counter(ada=1), [])


def test_two_pods_of_one_session_share_its_slot() -> None:
    assert count(admitted(), pod(uid="p1", deleting=True), pod(uid="p2")) == (Counter(ada=1), [])


def test_the_session_says_whose_slot_it_is_where_the_pods_annotation_differs() -> None:
    assert count(admitted(user="ada"), pod(user="eve", status=READY)) == (Counter(ada=1), [])


def test_a_pod_whose_end_is_not_written_holds_its_sessions_slot() -> None:
    """A write of Admitted=True that was sent while the pod ran may land after its end."""
    unwritten = pod(status=ended())
    assert count(session(), unwritten) == (Counter(ada=1), [])
    assert count(unwritten) == (Counter(), []), "without its session nothing can be written"
    lost = {"lostPods": {"count": 1, "lastTime": CREATED, "podUID": unwritten.meta.uid}}
    assert count(session(status=lost), unwritten) == (Counter(), []), "its name is not free yet"


def test_a_session_that_backs_off_neither_holds_nor_asks() -> None:
    assert count(session(), backing_off={DEMO}) == (Counter(), [])


def test_an_ephemeral_session_that_had_a_pod_never_asks_again() -> None:
    assert count(session(status={"podUID": "gone"})) == (Counter(), [])
    kept = {"podUID": "gone", "workspace": {"claimName": "kept", "size": "5Gi"}}
    assert count(session(status=kept)) == (Counter(), ["uid-of-demo"])


def test_a_pod_that_an_orphaning_deletion_left_without_an_owner_still_holds() -> None:
    """`kubectl delete --cascade=orphan` takes the owner reference away, and the pod keeps running."""
    body = pod_body(status=READY)
    del body["metadata"]["ownerReferences"]
    assert count(Pod.of(body)) == (Counter(ada=1), [])


RESTED = {"conditions": [condition("Suspended", "True", "UserRequested"), condition("Admitted", "False", "Released")]}


def test_a_session_to_be_suspended_never_asks() -> None:
    assert count(session(suspend=True)) == (Counter(), [])
    assert count(session(suspend=True, status=RESTED)) == (Counter(), [])
    assert count(admitted(suspend=True)) == (Counter({"ada": 1}), [])
    assert count(session(suspend=True, status=RESTED), pod(status=READY)) == (Counter({"ada": 1}), [])


def test_a_session_that_comes_back_asks_after_those_who_wait_already() -> None:
    """By its creation it would go before everybody who came while it was at rest."""
    old = session("old", created="2026-01-01T00:00:00Z", status=RESTED)
    new = session("new", created="2026-05-04T10:00:00Z")
    ledger = build_ledger([old, new], [], Startable(classes()), {}, set().__contains__)
    assert [item.uid for item in sorted(ledger.waiting, key=lambda item: item.arrived)] == ["uid-of-new", "uid-of-old"]


def test_and_from_then_on_it_keeps_its_place() -> None:
    asked = {**RESTED, "queue": {"position": 2, "since": "2026-05-04T11:00:00Z"}}
    old = session("old", created="2026-01-01T00:00:00Z", status=asked)
    later_ = session("later", created="2026-05-04T12:00:00Z")
    ledger = build_ledger([later_, old], [], Startable(classes()), {}, set().__contains__)
    assert [item.uid for item in sorted(ledger.waiting, key=lambda item: item.arrived)] == ["uid-of-old", "uid-of-later"]


def test_a_pod_whose_session_is_gone_is_named() -> None:
    left = pod("left", status=READY)
    ledger = build_ledger(
        [session()], [left, pod(status=READY), pod("ended", status=ended())], Startable(classes()), {}, set().__contains__
    )
    assert ledger.leftovers == [f"team/{left.meta.name}"]


def test_equal_settings_are_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand sessions that wait have few kinds of settings; and what is remembered has a bound."""
    monkeypatch.setattr("agentsession_operator.decisions.ledger.KNOWN", 3)
    startable, thrift = Startable(classes(session_class(models=[{"match": "openai/*"}]))), Thrift()
    sessions = [thrift.kept(session(f"s{number}", agent={"model": model})) for number, model in enumerate(MODELS)]
    assert [startable(one) for one in sessions] == [model.startswith("openai/") for model in MODELS]
    assert len(startable._known) <= 3
