"""What a reconciliation does to the cluster, on an API server in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentsession_operator.api.meta import SESSIONS
from agentsession_operator.api.names import claim_name, pod_name
from agentsession_operator.api.objects import Pod, Session, SessionClass, SessionUID
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, core_path, path_of
from agentsession_operator.control.admitter import Admitter
from agentsession_operator.control.reconciler import Reconciler
from agentsession_operator.control.session_objects import SessionObjects
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.reports.desk import ReportStore
from support.control_plane.apiserver import UNREACHABLE, ApiServer
from support.control_plane.builders import (
    ADMITTED,
    INSTALLATION,
    JSON,
    READY,
    RUNNING,
    class_body,
    pod_body,
    pod_status,
    quota,
    report,
    session_body,
)
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


SESSION = path_of(SESSIONS, "team", "demo")
POD = core_path("pods", "team", pod_name("demo", "uid-of-demo"))
PODS = core_path("pods", "team")
CLAIMS = core_path("persistentvolumeclaims", "team")
CLAIM = core_path("persistentvolumeclaims", "team", claim_name("demo", "uid-of-demo"))
UID = SessionUID("uid-of-demo")


class Stage:
    """An operator's parts around an API server; `watch` brings the cache up to date as kopf would."""

    def __init__(self, *, complete: bool = True) -> None:
        self.server = ApiServer()
        self.queue: WorkQueue[SessionUID] = WorkQueue()
        self.wakeups = Wakeups(self.queue)
        self.cache = Cache(self.wakeups)
        self.reports = ReportStore(self.wakeups)
        self.objects = SessionObjects(self.server.kube, self.cache, INSTALLATION)
        self.admitter = Admitter(self.server.kube, self.cache, self.objects, self.queue, self.wakeups)
        self.reconciler = Reconciler(self.server.kube, self.cache, self.queue, self.admitter, self.objects, self.reports)
        self.cache.classes.put(SessionClass.of(class_body()))
        if complete:
            self.cache.mark_complete()

    def wake(self) -> None:
        self.wakeups.admission.set()

    def put_session(
        self, name: str = "demo", *, conditions: list[JSON] | None = None, status: JSON | None = None, **fields: Any
    ) -> None:
        body = session_body(name, status={"conditions": conditions or [], **(status or {})}, **fields)
        stored = self.server.put(path_of(SESSIONS, "team", name), body)
        self.cache.sessions.put(Session.of(stored))

    def put_pod(self, **fields: Any) -> None:
        self.cache.pods.put(Pod.of(self.server.put(POD, pod_body(**fields))))

    def remove_session(self, name: str = "demo") -> None:
        self.server.remove(path_of(SESSIONS, "team", name))
        self.cache.sessions.remove(SessionUID(f"uid-of-{name}"))

    def reasons(self, name: str = "demo") -> dict[str, str]:
        status = self.server.objects[path_of(SESSIONS, "team", name)]["status"]
        return {item["type"]: item["reason"] for item in status.get("conditions", ())}

    def writes(self) -> list[tuple[str, str]]:
        found, self.server.calls[:] = list(self.server.calls), []
        return found


def persistent_stage(*, admitted: bool = False) -> Stage:
    """A class with a persistent workspace, and a session of it."""
    stage = Stage()
    offered = {"type": "Persistent", "size": "5Gi"}
    stage.cache.classes.put(SessionClass.of(class_body(version=2, workspace=offered)))
    if admitted:
        got = {"claimName": CLAIM.rsplit("/", 1)[1], "size": "5Gi"}
        stage.put_session(conditions=[ADMITTED, RUNNING], status={"workspace": got})
    else:
        stage.put_session()
    return stage


def admitted_stage() -> Stage:
    stage = Stage()
    stage.put_session(conditions=[ADMITTED, RUNNING])
    return stage


async def test_an_admitted_session_gets_one_pod() -> None:
    stage = admitted_stage()
    await stage.reconciler.reconcile(UID)
    await stage.reconciler.reconcile(UID)
    assert [call for call in stage.writes() if call[0] == "POST"] == [("POST", PODS)]
    assert stage.server.objects[POD]["metadata"]["ownerReferences"][0]["uid"] == UID
    assert stage.objects.creating() == {}


async def test_a_session_that_is_not_admitted_gets_none() -> None:
    stage = Stage()
    stage.put_session()
    await stage.reconciler.reconcile(UID)
    assert stage.writes() == []


async def test_an_operator_that_died_after_it_made_the_pod_finds_it() -> None:
    stage = admitted_stage()
    stage.server.put(POD, pod_body())
    await stage.reconciler.reconcile(UID)
    assert stage.cache.pod_of(UID) is not None
    assert len([path for path in stage.server.objects if path.startswith(PODS)]) == 1


async def test_a_pod_whose_creation_was_not_answered_is_found() -> None:
    stage = admitted_stage()
    stage.server.lost_answers.add(("POST", PODS))
    await stage.reconciler.reconcile(UID)
    assert stage.cache.pod_of(UID) is not None


async def test_while_nobody_knows_whether_the_pod_was_made_it_is_counted() -> None:
    stage = admitted_stage()

    def away(verb: str, path: str) -> None:
        if path.startswith(PODS):
            raise UNREACHABLE

    stage.server.answer = away
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert stage.objects.creating() == {UID: "ada"}


@pytest.mark.parametrize("body", [pod_body(session_uid="of-another"), {"metadata": {"name": "x", "uid": "y"}}])
async def test_a_strangers_pod_under_the_name_is_told_and_does_not_end_the_operator(body: JSON) -> None:
    """Whoever may create pods in the namespace can take the name: that must harm their own session only."""
    stage = admitted_stage()
    stage.server.put(POD, {**body, "metadata": {**body["metadata"], "name": POD.rsplit("/", 1)[1]}})
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert stage.reasons()["PodReady"] == "CreateFailed"
    assert stage.cache.pod_of(UID) is None


async def test_a_refused_pod_is_told_with_the_api_servers_words_and_tried_again_until_it_is_there() -> None:
    stage = admitted_stage()

    def full(verb: str, path: str) -> None:
        if (verb, path) == ("POST", PODS):
            raise ApiError(403, "Forbidden", "pods is forbidden: exceeded quota: team")

    stage.server.answer = full
    working = asyncio.create_task(stage.reconciler.work())
    stage.queue.add(UID)
    await asyncio.sleep(30)
    assert stage.reasons()["PodReady"] == "CreateFailed"
    assert len([path for verb, path in stage.writes() if (verb, path) == ("PATCH", SESSION)]) == 1
    stage.server.answer = lambda _verb, _path: None
    await asyncio.sleep(120)
    assert POD in stage.server.objects
    assert stage.reasons()["PodReady"] == "Creating"
    working.cancel()


async def test_the_pod_of_a_session_that_is_gone_is_deleted_at_once() -> None:
    stage = admitted_stage()
    stage.put_pod(status=READY)
    stage.remove_session()
    await stage.reconciler.reconcile(UID)
    assert POD not in stage.server.objects


async def test_a_pod_is_not_deleted_because_the_watch_of_sessions_lags_behind() -> None:
    stage = admitted_stage()
    stage.put_pod(status=READY)
    stage.cache.sessions.remove(UID)
    await stage.reconciler.reconcile(UID)
    assert POD in stage.server.objects


async def test_a_status_that_is_as_it_should_be_is_not_written() -> None:
    stage = admitted_stage()
    stage.put_pod(status=READY)
    await stage.reconciler.reconcile(UID)
    assert stage.writes() == [("PATCH", SESSION)]
    for _ in range(5):
        await stage.reconciler.reconcile(UID)
    assert stage.writes() == []


async def test_a_conflict_is_settled_by_reading_what_somebody_else_wrote() -> None:
    stage = admitted_stage()
    stage.put_pod(status=READY)
    stage.server.put(SESSION, stage.server.objects[SESSION])
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Ready"] == "PodReady"


async def test_trouble_makes_one_event_and_a_refused_event_harms_nothing() -> None:
    stage = admitted_stage()
    stage.put_pod(status={"phase": "Failed", "reason": "Evicted", "message": "low on memory"})

    def no_events(verb: str, path: str) -> None:
        if path == core_path("events", "team"):
            raise ApiError(403, "Forbidden", "no")

    stage.server.answer = no_events
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Finished"] == "Failed"


# The one door.


async def passes(stage: Stage, seconds: float = 5.0) -> None:
    """Let the admitter run for a while."""
    admitting = asyncio.create_task(stage.admitter.run())
    stage.wake()
    await asyncio.sleep(seconds)
    admitting.cancel()
    await asyncio.wait([admitting])
    assert admitting.cancelled()


async def test_the_reservation_is_written_and_no_pod_is_made_by_the_admitter() -> None:
    stage = Stage()
    stage.put_session()
    await passes(stage)
    assert stage.reasons()["Admitted"] == "Admitted"
    assert stage.writes() == [("PATCH", SESSION)]


async def test_from_created_to_ready_there_are_three_writes() -> None:
    """At most four are allowed."""
    stage = Stage()
    stage.put_session()
    working = [asyncio.create_task(work()) for work in (stage.reconciler.work, stage.admitter.run)]
    stage.wake()
    await asyncio.sleep(5)
    stage.put_pod(uid=stage.server.objects[POD]["metadata"]["uid"], status=READY)
    await asyncio.sleep(5)
    assert stage.reasons()["Ready"] == "PodReady"
    assert stage.writes() == [("PATCH", SESSION), ("POST", PODS), ("PATCH", SESSION)]
    for task in working:
        task.cancel()


async def test_a_persistent_session_takes_one_write_more() -> None:
    stage = persistent_stage()
    working = [asyncio.create_task(work()) for work in (stage.reconciler.work, stage.admitter.run)]
    stage.wake()
    await asyncio.sleep(5)
    stage.put_pod(uid=stage.server.objects[POD]["metadata"]["uid"], status=READY)
    await asyncio.sleep(5)
    assert stage.reasons()["Ready"] == "PodReady"
    assert stage.writes() == [("PATCH", SESSION), ("POST", CLAIMS), ("POST", PODS), ("PATCH", SESSION)]
    for task in working:
        task.cancel()


async def test_a_claim_of_an_earlier_try_is_the_sessions_own() -> None:
    stage = persistent_stage(admitted=True)
    stage.server.lost_answers.add(("POST", CLAIMS))
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert POD not in stage.server.objects
    await stage.reconciler.reconcile(UID)
    assert POD in stage.server.objects
    assert "CreateFailed" not in stage.reasons().values()


async def test_a_strangers_claim_under_the_name_is_never_mounted() -> None:
    stage = persistent_stage(admitted=True)
    stage.server.put(CLAIM, {"metadata": {"name": CLAIM.rsplit("/", 1)[1]}})
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert stage.reasons()["PodReady"] == "CreateFailed"
    assert POD not in stage.server.objects


async def test_a_refused_claim_is_told_with_the_api_servers_words_and_no_pod_is_made() -> None:
    stage = persistent_stage(admitted=True)

    def full(verb: str, path: str) -> None:
        if (verb, path) == ("POST", CLAIMS):
            raise ApiError(403, "Forbidden", "exceeded quota: storage")

    stage.server.answer = full
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert stage.reasons()["PodReady"] == stage.reasons()["Ready"] == "CreateFailed"
    assert "PersistentVolumeClaim cannot be created: exceeded quota: storage" in str(stage.server.objects[SESSION])
    assert POD not in stage.server.objects
    stage.server.answer = lambda _verb, _path: None
    await stage.reconciler.reconcile(UID)
    assert POD in stage.server.objects


async def test_a_pod_of_which_nobody_knows_whether_it_was_made_holds_no_slot_for_ever_when_it_is_not_wanted_any_more() -> None:
    stage = persistent_stage(admitted=True)

    def away(verb: str, path: str) -> None:
        if path.startswith(PODS):
            raise UNREACHABLE

    stage.server.answer = away
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert stage.objects.creating() == {UID: "ada"}
    body = stage.server.objects[SESSION]
    stage.cache.sessions.put(Session.of(stage.server.put(SESSION, {**body, "spec": {**body["spec"], "suspend": True}})))
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert stage.objects.creating() == {UID: "ada"}, "still unknown"
    stage.server.answer = lambda _verb, _path: None
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Suspended"] == "UserRequested"
    assert stage.objects.creating() == {}


async def test_a_lost_pod_is_replaced_though_no_watch_tells_that_its_name_is_free() -> None:
    """kopf's watch begins later than the first list, and what is deleted in between it never tells."""
    stage = persistent_stage(admitted=True)
    failed = pod_status("Failed", reason="Evicted", message="The node was low on resource: memory.")
    stage.put_pod(status=failed)
    for _ in range(3):
        await stage.reconciler.reconcile(UID)
    assert [call for call in stage.writes() if call[1].startswith(PODS) or call[1] == SESSION] == [
        ("PATCH", SESSION),
        ("DELETE", POD),
        ("POST", PODS),
        ("PATCH", SESSION),
    ]
    assert stage.server.objects[SESSION]["status"]["lostPods"]["count"] == 1
    assert stage.reasons()["PodReady"] == "Creating"


async def test_nobody_is_admitted_before_the_caches_are_complete() -> None:
    stage = Stage(complete=False)
    stage.put_session()
    await passes(stage)
    assert stage.writes() == []


async def test_nobody_is_admitted_under_a_quota_that_cannot_be_read_and_everybody_is_told_why() -> None:
    stage = Stage()
    stage.cache.quotas.put(quota(maxSessions="many"))
    stage.put_session()
    await passes(stage)
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Admitted"] == "Queued"


async def test_with_stale_caches_and_lost_answers_the_cap_holds_at_every_moment() -> None:
    stage = Stage()
    stage.cache.quotas.put(quota(maxSessions=2, maxSessionsPerUser=10))
    for number in range(6):
        stage.put_session(f"s{number}", user=f"user-{number % 3}")
    stale = path_of(SESSIONS, "team", "s0")
    stage.server.put(stale, stage.server.objects[stale])
    stage.server.lost_answers |= {("PATCH", path_of(SESSIONS, "team", f"s{number}")) for number in (1, 2)}
    admitting = asyncio.create_task(stage.admitter.run())
    for _ in range(100):
        stage.wake()
        await asyncio.sleep(0.1)
        admitted = [
            body for body in stage.server.objects.values() if "Admitted" in stage.reasons(body["metadata"]["name"]).values()
        ]
        assert len(admitted) <= 2
    assert len(admitted) == 2
    admitting.cancel()


async def test_a_report_of_progress_alone_waits_for_its_turn_to_be_written() -> None:
    stage = admitted_stage()
    stage.put_pod(status=READY)
    stage.reports.put(report(activity="Processing", sequence=1))
    await stage.reconciler.reconcile(UID)
    stage.writes()
    for number in range(2, 20):
        stage.reports.put(report(activity="Processing", sequence=number, message_count=number))
        await stage.reconciler.reconcile(UID)
    assert stage.writes() == []
    stage.reports.put(report(activity="Idle", sequence=20, message_count=20))
    await stage.reconciler.reconcile(UID)
    assert stage.writes() == [("PATCH", SESSION)]
    assert stage.server.objects[SESSION]["status"]["messageCount"] == 20
