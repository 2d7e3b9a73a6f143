"""What a session claims: who is counted as a holder, and who as asking."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from agentsession_operator.api.objects import Pod, Session, SessionUID
from agentsession_operator.cluster.thrift import Thrift
from agentsession_operator.decisions.quotas.claims import Claim, Offers, claim_of, claim_of_leftovers
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


def claims(
    *objects: Session | Pod,
    creating: set[SessionUID] | None = None,
    backing_off: set[SessionUID] | None = None,
    of_classes: dict[str, object] | None = None,
    before: Claim | None = None,
    idle_since: str | None = None,
) -> dict[str, Claim]:
    """The claims of these sessions and pods, by UID."""
    sessions = {item.meta.uid: item for item in objects if isinstance(item, Session)}
    pods = [item for item in objects if isinstance(item, Pod)]
    offers = Offers(classes() if of_classes is None else of_classes)  # type: ignore[arg-type]
    found: dict[str, Claim | None] = {}
    for uid in {*sessions, *(each.session_uid for each in pods), *(creating or ())}:
        mine, under_way = [each for each in pods if each.session_uid == uid], uid in (creating or ())
        if (of := sessions.get(uid)) is None:
            found[uid] = claim_of_leftovers(mine, before, creating=under_way)
        else:
            found[uid] = claim_of(
                of,
                mine,
                offers(of),
                creating=under_way,
                backs_off=uid in (backing_off or ()),
                idle_since=idle_since,
            )
    return {uid: claim for uid, claim in found.items() if claim is not None}


def count(*objects: Session | Pod, **fields: Any) -> tuple[Counter[str], list[str]]:
    """Holders by user, and who asks."""
    found = claims(*objects, **fields).values()
    return Counter(claim.user for claim in found if claim.holds), [claim.uid for claim in found if not claim.holds]


def test_a_new_session_asks_and_holds_nothing() -> None:
    assert count(session()) == (Counter(), ["uid-of-demo"])


def test_who_asks_is_known_by_creation_time_namespace_and_name() -> None:
    (claim,) = claims(session()).values()
    assert (claim.uid, claim.user, claim.arrival) == ("uid-of-demo", "ada", (CREATED, "team", "demo"))
    assert (claim.first, claim.accepted, claim.class_name, claim.namespace) == (True, False, "standard", "team")


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
    assert count(session(agent={"model": "acme/huge"}), of_classes=strict) == (Counter(), [])


def test_an_admitted_session_holds_though_its_class_is_gone() -> None:
    assert count(admitted(), of_classes={}) == (Counter(ada=1), [])


def test_a_write_in_flight_counts_as_done() -> None:
    assert count(session(), creating={DEMO}) == (Counter(ada=1), [])


def test_a_write_in_flight_counts_when_the_session_is_already_gone() -> None:
    before = claims(session())[DEMO]
    assert count(creating={DEMO}, before=before) == (Counter(ada=1), [])
    assert count(creating={DEMO}) == (Counter(), []), "nothing was ever known of it"


def test_a_write_in_flight_is_not_counted_beside_its_session_and_pod() -> None:
    assert count(admitted(), pod(status=READY), creating={DEMO}) == (Counter(ada=1), [])


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


def arrivals(*sessions: Session) -> list[str]:
    found = claims(*sessions).values()
    return [claim.uid for claim in sorted(found, key=lambda claim: claim.arrival)]


def test_a_session_that_comes_back_asks_after_those_who_wait_already() -> None:
    """By its creation it would be before everybody who came while it was at rest."""
    old = session("old", created="2026-01-01T00:00:00Z", status=RESTED)
    new = session("new", created="2026-05-04T10:00:00Z")
    assert arrivals(old, new) == ["uid-of-new", "uid-of-old"]
    assert (claims(old)["uid-of-old"].first, claims(old)["uid-of-old"].accepted) == (False, True)


def test_and_from_then_on_it_keeps_its_place() -> None:
    asked = {**RESTED, "queue": {"position": 2, "since": "2026-05-04T11:00:00Z"}}
    old = session("old", created="2026-01-01T00:00:00Z", status=asked)
    later_ = session("later", created="2026-05-04T12:00:00Z")
    assert arrivals(later_, old) == ["uid-of-old", "uid-of-later"]


def test_a_session_that_was_told_to_wait_keeps_its_place() -> None:
    told = claims(session(status={"queue": {"since": CREATED}}))[DEMO]
    assert (told.first, told.accepted) == (True, True)


def test_a_pod_without_its_session_counts_as_that_did() -> None:
    left = pod("left", status=READY)
    before = Claim("uid-of-left", "ada", "team", "gpu", ("", "", ""), priority=3, successor="heir")
    found = claims(session(), left, pod(status=READY), pod("ended", status=ended()), before=before)
    assert {uid: claim.leftover for uid, claim in found.items()} == {DEMO: None, "uid-of-left": f"team/{left.meta.name}"}
    claim = found["uid-of-left"]
    assert (claim.class_name, claim.priority, claim.successor) == ("gpu", 3, "heir")


def test_after_a_restart_the_class_of_a_leftover_is_not_known() -> None:
    assert claims(pod("left", status=READY))["uid-of-left"].class_name is None


def test_a_class_says_name_and_priority() -> None:
    some = classes(session_class("gold", default=False, priority=7), session_class())
    assert claims(session(className="gold"), of_classes=some)[DEMO].priority == 7  # type: ignore[arg-type]
    held = claims(admitted(className="gone"), of_classes=some)[DEMO]  # type: ignore[arg-type]
    assert (held.class_name, held.priority) == ("gone", 0)
    assert claims(admitted(), of_classes={})[DEMO].class_name == ""


def test_only_a_holder_that_is_to_stay_is_idle() -> None:
    assert claims(admitted(), idle_since=CREATED)[DEMO].idle_since == CREATED
    assert claims(admitted(suspend=True), idle_since=CREATED)[DEMO].idle_since is None
    assert claims(session(), idle_since=CREATED)[DEMO].idle_since is None


REPLACED = {"rest": {"reason": "Replaced", "generation": 1, "successor": "uid-of-next"}}


def test_a_session_that_makes_room_names_its_successor_while_it_holds() -> None:
    assert claims(admitted(status=REPLACED))[DEMO].successor == "uid-of-next"
    assert claims(session(status=REPLACED)) == {}


def test_a_replaced_session_asks_again_when_its_spec_has_changed() -> None:
    status = {**REPLACED, "conditions": [condition("Suspended", "True", "Replaced")]}
    assert claims(session(status=status, generation=1)) == {}
    assert claims(session(status=status, generation=2))[DEMO].successor is None


def test_a_drained_session_asks_again_by_itself() -> None:
    status = {"rest": {"reason": "QuotaHeld"}, "conditions": [condition("Suspended", "True", "QuotaHeld")]}
    assert not claims(session(status=status))[DEMO].first


def test_equal_settings_are_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand sessions that wait have few kinds of settings; and what is remembered has a bound."""
    monkeypatch.setattr("agentsession_operator.decisions.quotas.claims.KNOWN", 3)
    offers, thrift = Offers(classes(session_class(models=[{"match": "openai/*"}]))), Thrift()
    sessions = [thrift.kept(session(f"s{number}", agent={"model": model})) for number, model in enumerate(MODELS)]
    assert [offers(one).starts for one in sessions] == [model.startswith("openai/") for model in MODELS]
    assert len(offers._known) <= 3
