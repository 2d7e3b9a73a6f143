"""Which pod may report on which session, and which report is kept."""

from __future__ import annotations

import pytest

from agentsession_operator.api.objects import PodUID, SessionUID
from agentsession_operator.cluster.kinds import followed
from agentsession_operator.reports.desk import ReportDesk, ReportListener, ReportStore
from agentsession_operator.reports.verifier import Refused
from session_runtime.wire import SessionReport
from support.control_plane.builders import INSTALLATION, READY, pod_body, report
from support.control_plane.desk import desk
from support.control_plane.tokens import bound_to, token

pytestmark = pytest.mark.anyio

UID = SessionUID("uid-of-demo")


class Heard(ReportListener):
    def __init__(self) -> None:
        self.sessions: list[SessionUID] = []
        self.idle: list[bool] = []

    def report_arrived(self, session: SessionUID, *, turned_idle: bool) -> None:
        self.sessions.append(session)
        self.idle.append(turned_idle)


# The newest report of each session.


def test_only_a_later_report_is_news() -> None:
    heard = Heard()
    store = ReportStore(heard)
    assert [store.put(report(sequence=number)) for number in (2, 2, 1, 3)] == [True, False, False, True]
    received = store.get(UID)
    assert received is not None
    assert received.report.sequence == 3
    assert heard.sessions == ["uid-of-demo", "uid-of-demo"]


def test_only_the_first_of_reports_that_say_idle_turns_idle() -> None:
    heard = Heard()
    store = ReportStore(heard)
    for number, activity in enumerate(["Idle", "Idle", "Processing", "Idle"]):
        store.put(report(sequence=number, activity=activity))
    assert heard.idle == [True, False, False, True]


def test_sessions_do_not_get_in_each_others_way() -> None:
    store = ReportStore(Heard())
    assert store.put(report("a", sequence=9))
    assert store.put(report("b", sequence=1))
    store.forget(SessionUID("uid-of-a"))
    assert store.get(SessionUID("uid-of-a")) is None
    assert store.get(SessionUID("uid-of-b")) is not None
    store.forget(SessionUID("uid-of-a"))


# The desk.


async def send(at: ReportDesk, namespace: str, name: str, with_token: str, what: SessionReport) -> bool:
    """As the HTTP server does it: first who sends, then what."""
    return at.take(namespace, name, await at.sender(f"Bearer {with_token}"), what)


async def refused(
    at: ReportDesk, *, namespace: str = "team", name: str = "demo", with_token: str = "", of: str = "demo"
) -> int:
    with pytest.raises(Refused) as refusal:
        await send(at, namespace, name, with_token or token(), report(of))
    return refusal.value.status


async def test_a_pod_reports_on_its_own_session_and_older_reports_are_dropped() -> None:
    at, _, store = desk()
    assert await send(at, "team", "demo", token(), report(sequence=2))
    assert not await send(at, "team", "demo", token(), report(sequence=1))
    received = store.get(UID)
    assert received is not None
    assert received.report.sequence == 2


async def test_a_pod_cannot_report_on_another_pods_session() -> None:
    at, _, _ = desk()
    other = bound_to({"pod": {"name": "other", "uid": "pod-of-other"}})
    assert await refused(at, with_token=other) == 403


async def test_a_report_on_a_session_that_is_not_there_is_refused() -> None:
    at, _, _ = desk()
    assert await refused(at, of="nobody") == 404
    assert await refused(at, name="another") == 404
    assert await refused(at, namespace="elsewhere") == 404


async def test_a_report_on_a_session_without_a_pod_is_refused() -> None:
    at, cache, _ = desk()
    cache.pods.remove(PodUID("pod-of-demo"))
    assert await refused(at) == 403


async def test_a_starting_operator_asks_for_the_report_again() -> None:
    at, _, _ = desk(complete=False)
    assert await refused(at) == 503


async def test_a_bad_token_is_refused_before_anything_is_said_about_sessions() -> None:
    at, _, _ = desk()
    assert await refused(at, with_token="a.b.c", of="nobody") == 401


async def test_a_sender_without_a_bearer_token_is_refused() -> None:
    at, _, _ = desk()
    for header in ("", "Bearer", "Bearer ", f"Basic {token()}"):
        with pytest.raises(Refused) as refusal:
            await at.sender(header)
        assert refusal.value.status == 401


async def test_a_forged_pod_of_another_namespace_cannot_report() -> None:
    at, cache, _ = desk()
    (pods,) = (kind for kind in followed(cache, INSTALLATION.token_key) if kind.plural == "pods")
    body = pod_body(uid="forged", version=999, status=READY)
    body["metadata"]["namespace"] = "elsewhere"
    pods.take("ADDED", body)
    forged = bound_to({"pod": {"name": "x", "uid": "forged"}})
    assert await refused(at, with_token=forged) == 403
    assert await send(at, "team", "demo", token(), report())
