"""Pods and claims: what is created, adopted, settled, protected, released and deleted, on an API server in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentsession_operator.api.meta import SESSION_FINALIZER, SESSION_UID_LABEL
from agentsession_operator.api.objects import Session
from agentsession_operator.cluster.kube import ApiError
from agentsession_operator.cluster.landing import LANDING_SECONDS
from agentsession_operator.control.refusals import LONGEST_REFUSAL_SECONDS
from agentsession_operator.control.session_objects import Outcome
from agentsession_operator.decisions.persistent import workspace_of
from agentsession_operator.decisions.resolve import Resolved, resolve
from agentsession_operator.manifests.pod import GRACE_SECONDS
from support.control_plane.apiserver import UNREACHABLE
from support.control_plane.builders import JSON, READY, ended, pod_body, pod_status
from support.control_plane.stage import CLAIM, CLAIMS, POD, PODS, SESSION, UID, Stage, admitted_stage, persistent_stage
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


def new_stage() -> Stage:
    stage = Stage()
    stage.put_session()
    return stage


async def create(stage: Stage) -> Outcome:
    session = stage.cache.sessions.get(UID)
    assert session is not None
    resolved = resolve(session.spec, stage.cache.classes_by_name())
    assert isinstance(resolved, Resolved)
    return await stage.objects.create(session, resolved, workspace_of(session, resolved))


def refusing(*writes: tuple[str, str], error: ApiError) -> Any:
    def answer(verb: str, path: str) -> None:
        if (verb, path) in writes:
            raise error

    return answer


EXCEEDED = ApiError(403, "Forbidden", "exceeded quota: team")


# Creating.


async def test_a_created_pod_is_in_the_cache_before_anything_else_runs() -> None:
    stage = new_stage()
    assert await create(stage) is Outcome.CREATED
    assert stage.cache.pod_of(UID) is not None
    assert stage.objects.in_doubt == 0
    meta = stage.server.objects[POD]["metadata"]
    assert meta["ownerReferences"][0]["uid"] == UID
    assert meta["finalizers"] == [SESSION_FINALIZER]


async def test_a_restarted_operator_adopts_the_pod_it_created_before() -> None:
    stage = new_stage()
    stage.server.put(POD, pod_body())
    assert await create(stage) is Outcome.CREATED
    assert stage.cache.pod_of(UID) is not None


@pytest.mark.parametrize(
    "body",
    [
        pod_body(session_uid="of-another"),
        {"metadata": {"name": "x", "uid": "y"}},
        pod_body(user="mallory"),
        {**pod_body(), "metadata": {**pod_body()["metadata"], "annotations": {}}},
    ],
)
async def test_a_pod_of_another_owner_fails_the_creation_and_nothing_else(body: JSON) -> None:
    """Anyone who may create pods in the namespace can take the name: that must harm their own session only."""
    stage = new_stage()
    if body["metadata"].get("annotations", {}).get("agentsession.dev/user") == "mallory":
        body["metadata"]["annotations"]["agentsession.dev/mac"] = "0" * 64
    stage.server.put(POD, {**body, "metadata": {**body["metadata"], "name": POD.rsplit("/", 1)[1]}})
    assert await create(stage) is Outcome.REFUSED
    assert "another owner" in str(stage.objects.refusal(UID))
    assert stage.cache.pod_of(UID) is None
    assert stage.objects.in_doubt == 0


async def test_refusals_back_off_with_growing_waits() -> None:
    stage = new_stage()
    stage.server.answer = refusing(("POST", PODS), error=EXCEEDED)
    waits = []
    for _ in range(12):
        assert await create(stage) is Outcome.REFUSED
        waits.append(stage.objects.next_due())
        await asyncio.sleep(waits[-1] + 0.001)
        assert not stage.objects.backs_off(UID)
    assert waits[:4] == pytest.approx([1, 2, 4, 8])
    assert waits[-1] == pytest.approx(LONGEST_REFUSAL_SECONDS)


async def test_a_refusal_waits_as_long_as_the_server_asks() -> None:
    stage = new_stage()
    stage.server.answer = refusing(("POST", PODS), error=ApiError(429, "TooManyRequests", "slow down", 30.0))
    await create(stage)
    assert stage.objects.next_due() == pytest.approx(30)


@pytest.mark.parametrize("error", [UNREACHABLE, ApiError(500, "InternalError", "x"), ApiError(504, "Timeout", "x")])
async def test_an_unanswered_creation_is_given_up_after_the_landing_time(error: ApiError) -> None:
    stage = new_stage()
    stage.server.answer = refusing(("POST", PODS), error=error)
    assert await create(stage) is Outcome.UNKNOWN
    stage.server.answer = lambda _verb, _path: None
    for _ in range(int(LANDING_SECONDS)):
        await stage.objects.settle()
        assert stage.objects.is_creating(UID)
        assert await create(stage) is Outcome.UNKNOWN, "nothing is sent a second time"
        await asyncio.sleep(1)
    await asyncio.sleep(0.001)
    await stage.objects.settle()
    assert stage.objects.in_doubt == 0
    assert stage.writes() == []
    assert stage.objects.backs_off(UID), "others come first"


async def test_a_creation_that_landed_unanswered_is_found() -> None:
    stage = new_stage()
    stage.server.lost_answers.add(("POST", PODS))
    assert await create(stage) is Outcome.UNKNOWN
    await stage.objects.settle()
    assert stage.objects.in_doubt == 0
    assert stage.cache.pod_of(UID) is not None


async def test_a_doubt_whose_session_is_gone_counts_until_it_must_have_landed() -> None:
    stage = new_stage()
    stage.server.answer = refusing(("POST", PODS), error=UNREACHABLE)
    await create(stage)
    stage.remove_session()
    await asyncio.sleep(LANDING_SECONDS - 1)
    await stage.objects.settle()
    assert stage.objects.is_creating(UID)
    await asyncio.sleep(2)
    await stage.objects.settle()
    assert stage.objects.in_doubt == 0


async def test_a_doubt_that_cannot_be_read_stays() -> None:
    stage = new_stage()
    stage.server.answer = lambda _verb, path: (_ for _ in ()).throw(UNREACHABLE) if path.startswith(PODS) else None
    await create(stage)
    await asyncio.sleep(10 * LANDING_SECONDS)
    await stage.objects.settle()
    assert stage.objects.is_creating(UID)


async def test_cancelling_the_caller_leaves_the_creation_counted() -> None:
    stage = new_stage()
    answered = asyncio.Event()
    inner = stage.server.request

    async def request(method: str, path: str, *args: Any, **options: Any) -> JSON:
        if method == "POST":
            await answered.wait()
        return await inner(method, path, *args, **options)

    stage.server.request = request  # type: ignore[method-assign]
    creating = asyncio.create_task(create(stage))
    await asyncio.sleep(1)
    creating.cancel()
    await asyncio.wait([creating])
    assert stage.objects.in_doubt
    answered.set()
    await stage.objects.drain()
    assert not stage.objects.in_doubt
    assert stage.cache.pod_of(UID) is not None


# Claims.


async def test_a_claim_of_an_earlier_try_is_the_sessions_own() -> None:
    stage = persistent_stage()
    stage.server.lost_answers.add(("POST", CLAIMS))
    assert await create(stage) is Outcome.REFUSED
    assert POD not in stage.server.objects
    assert await create(stage) is Outcome.CREATED


async def test_a_claim_of_another_owner_is_never_mounted() -> None:
    stage = persistent_stage()
    stage.server.put(CLAIM, {"metadata": {"name": CLAIM.rsplit("/", 1)[1]}})
    assert await create(stage) is Outcome.REFUSED
    assert "belongs to another owner" in str(stage.objects.refusal(UID))
    assert POD not in stage.server.objects


async def test_a_refused_claim_is_reported_and_no_pod_is_created() -> None:
    stage = persistent_stage()
    stage.server.answer = refusing(("POST", CLAIMS), error=ApiError(403, "Forbidden", "exceeded quota: storage"))
    assert await create(stage) is Outcome.REFUSED
    assert "refused the PersistentVolumeClaim: exceeded quota: storage" in str(stage.objects.refusal(UID))
    assert POD not in stage.server.objects
    assert stage.objects.in_doubt == 0


# Protecting, releasing, deleting.


async def test_a_pod_is_released_once_its_end_is_written() -> None:
    stage = admitted_stage()
    stage.change_pod(status=ended())
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Finished"] == "Failed"
    assert stage.server.objects[POD]["metadata"]["finalizers"] == [SESSION_FINALIZER], "first the end is written"
    await stage.reconciler.reconcile(UID)
    assert stage.server.objects[POD]["metadata"]["finalizers"] == []
    stage.writes()
    await stage.reconciler.reconcile(UID)
    assert stage.writes() == []


async def test_the_finalizers_of_others_stay() -> None:
    stage = admitted_stage()
    stage.change_pod(status=ended(), finalizers=["example.com/audit", SESSION_FINALIZER])
    for _ in range(2):
        await stage.reconciler.reconcile(UID)
    assert stage.server.objects[POD]["metadata"]["finalizers"] == ["example.com/audit"]


@pytest.mark.parametrize(
    "change",
    [
        {"finalizers": []},
        {"annotations": {}},
        {"labels": {SESSION_UID_LABEL: UID}, "annotations": {"agentsession.dev/user": "mallory"}},
    ],
)
async def test_a_running_pod_gets_its_marks_back_with_one_write(change: JSON) -> None:
    stage = admitted_stage()
    before = stage.server.objects[POD]["metadata"]
    await stage.reconciler.reconcile(UID)
    stage.writes()
    stage.change_pod(**change)
    for _ in range(3):
        await stage.reconciler.reconcile(UID)
    assert stage.writes() == [("PATCH", POD)]
    after = stage.server.objects[POD]["metadata"]
    assert after["finalizers"] == [SESSION_FINALIZER]
    assert before["annotations"].items() <= after["annotations"].items()
    assert stage.reasons()["Ready"] == "PodReady"


async def test_a_pod_without_its_label_is_followed_by_its_uid() -> None:
    """A watch with a selector reports it as deleted; its slot is held, and its label is put back."""
    stage = admitted_stage()
    meta = stage.server.objects[POD]["metadata"]
    stage.server.put(POD, {**stage.server.objects[POD], "metadata": {**meta, "labels": {}}})
    stage.cache.pod_vanished(meta["uid"])
    assert stage.cache.pod_of(UID) is not None
    await stage.reconciler.reconcile(UID)
    assert stage.server.objects[POD]["metadata"]["labels"][SESSION_UID_LABEL] == UID
    assert stage.reasons()["Finished"] == "Running"


async def test_a_pod_that_is_really_gone_is_found_out_by_one_read() -> None:
    stage = admitted_stage()
    uid = stage.server.objects[POD]["metadata"]["uid"]
    stage.server.remove(POD)
    stage.cache.pod_vanished(uid)
    await stage.reconciler.reconcile(UID)
    assert stage.cache.pod_of(UID) is None
    assert stage.reasons()["Finished"] == "Failed"


async def test_an_orphaned_pod_is_deleted_with_our_grace_period() -> None:
    stage = admitted_stage()
    stage.remove_session()
    await stage.reconciler.reconcile(UID)
    assert stage.server.objects[POD]["metadata"]["deletionGracePeriodSeconds"] == GRACE_SECONDS
    stage.change_pod(status=ended("Failed"), deletionGracePeriodSeconds=0)
    await stage.reconciler.reconcile(UID)
    assert POD not in stage.server.objects
    assert stage.cache.pods_of(UID) == []


async def test_a_lagging_watch_of_sessions_deletes_no_pod() -> None:
    stage = admitted_stage()
    stage.cache.sessions.remove(UID)
    await stage.reconciler.reconcile(UID)
    assert "deletionTimestamp" not in stage.server.objects[POD]["metadata"]


async def test_a_lost_pod_is_replaced_after_its_loss_is_written() -> None:
    stage = persistent_stage(admitted=True)
    stage.put_pod(status=pod_status("Failed", reason="Evicted", message="The node was low on resource: memory."))
    for _ in range(3):
        await stage.reconciler.reconcile(UID)
    assert [call for call in stage.writes() if call[1].startswith(PODS) or call[1] == SESSION] == [
        ("PATCH", SESSION),
        ("DELETE", POD),
        ("PATCH", POD),
        ("POST", PODS),
    ]
    assert stage.server.objects[SESSION]["status"]["lostPods"]["count"] == 1


async def test_no_replacement_is_created_for_a_session_that_is_gone() -> None:
    stage = persistent_stage(admitted=True)
    stage.put_session(
        conditions=stage.server.objects[SESSION]["status"]["conditions"],
        status={**stage.server.objects[SESSION]["status"], "podUID": None, "lostPods": {"count": 1, "lastTime": "x"}},
    )
    del stage.server.objects[SESSION]
    await stage.reconciler.reconcile(UID)
    assert stage.writes() == []
    assert stage.cache.sessions.get(UID) is None


async def test_a_suspension_waits_for_the_pods_end_and_then_lets_it_go() -> None:
    stage = persistent_stage(admitted=True)
    stage.put_pod(status=READY)
    body = stage.server.objects[SESSION]
    stage.cache.sessions.put(Session.of(stage.server.put(SESSION, {**body, "spec": {**body["spec"], "suspend": True}})))
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Suspended"] == "Suspending"
    stage.change_pod(status=ended("Failed", code=143), deletionGracePeriodSeconds=0)
    for _ in range(2):
        await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Suspended"] == "UserRequested"
    assert POD not in stage.server.objects
