"""Pods and claims: what is created, adopted, settled and deleted, on an API server in memory."""

from __future__ import annotations

import asyncio

import pytest

from agentsession_operator.api.objects import Session
from agentsession_operator.cluster.kube import ApiError
from support.control_plane.apiserver import UNREACHABLE
from support.control_plane.builders import JSON, READY, pod_body, pod_status
from support.control_plane.stage import CLAIM, CLAIMS, POD, PODS, SESSION, UID, admitted_stage, persistent_stage
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


async def test_an_admitted_session_gets_one_pod() -> None:
    stage = admitted_stage()
    await stage.reconciler.reconcile(UID)
    await stage.reconciler.reconcile(UID)
    assert [call for call in stage.writes() if call[0] == "POST"] == [("POST", PODS)]
    assert stage.server.objects[POD]["metadata"]["ownerReferences"][0]["uid"] == UID
    assert stage.objects.creating() == {}


async def test_a_restarted_operator_adopts_the_pod_it_created_before() -> None:
    stage = admitted_stage()
    stage.server.put(POD, pod_body())
    await stage.reconciler.reconcile(UID)
    assert stage.cache.pod_of(UID) is not None
    assert len([path for path in stage.server.objects if path.startswith(PODS)]) == 1


async def test_a_pod_whose_creation_was_not_answered_is_adopted() -> None:
    stage = admitted_stage()
    stage.server.lost_answers.add(("POST", PODS))
    await stage.reconciler.reconcile(UID)
    assert stage.cache.pod_of(UID) is not None


async def test_a_pod_that_may_have_been_created_counts() -> None:
    stage = admitted_stage()

    def away(verb: str, path: str) -> None:
        if path.startswith(PODS):
            raise UNREACHABLE

    stage.server.answer = away
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert stage.objects.creating() == {UID: "ada"}


@pytest.mark.parametrize("body", [pod_body(session_uid="of-another"), {"metadata": {"name": "x", "uid": "y"}}])
async def test_a_pod_of_another_owner_fails_the_creation_and_nothing_else(body: JSON) -> None:
    """Whoever may create pods in the namespace can take the name: that must harm their own session only."""
    stage = admitted_stage()
    stage.server.put(POD, {**body, "metadata": {**body["metadata"], "name": POD.rsplit("/", 1)[1]}})
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert stage.reasons()["PodReady"] == "CreateFailed"
    assert stage.cache.pod_of(UID) is None


async def test_a_refused_pod_is_reported_and_tried_again_until_it_exists() -> None:
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


async def test_a_lagging_watch_of_sessions_deletes_no_pod() -> None:
    stage = admitted_stage()
    stage.put_pod(status=READY)
    stage.cache.sessions.remove(UID)
    await stage.reconciler.reconcile(UID)
    assert POD in stage.server.objects


async def test_a_claim_of_an_earlier_try_is_the_sessions_own() -> None:
    stage = persistent_stage(admitted=True)
    stage.server.lost_answers.add(("POST", CLAIMS))
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert POD not in stage.server.objects
    await stage.reconciler.reconcile(UID)
    assert POD in stage.server.objects
    assert "CreateFailed" not in stage.reasons().values()


async def test_a_claim_of_another_owner_is_never_mounted() -> None:
    stage = persistent_stage(admitted=True)
    stage.server.put(CLAIM, {"metadata": {"name": CLAIM.rsplit("/", 1)[1]}})
    with pytest.raises(ApiError):
        await stage.reconciler.reconcile(UID)
    assert stage.reasons()["PodReady"] == "CreateFailed"
    assert POD not in stage.server.objects


async def test_a_refused_claim_is_reported_and_no_pod_is_created() -> None:
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


async def test_an_unanswered_creation_is_settled_when_the_pod_is_not_wanted() -> None:
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


async def test_a_lost_pod_is_replaced_though_no_watch_reports_its_deletion() -> None:
    """kopf's watch starts later than the first list, and never reports what is deleted in between."""
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
