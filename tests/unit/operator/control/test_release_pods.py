"""Before uninstalling: the operator is stopped, and no session pod keeps its finalizer."""

from __future__ import annotations

import asyncio

import pytest

from agentsession_operator.api.meta import SESSION_FINALIZER, SESSION_UID_LABEL
from agentsession_operator.cluster.kube import ApiError, core_path, deployment_path
from agentsession_operator.cluster.landing import LANDING_SECONDS
from agentsession_operator.control import release_pods as module
from agentsession_operator.control.release_pods import DEPLOYMENT, NotReleased, release_pods
from support.control_plane.apiserver import ApiServer
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio

SYSTEM = "system"
OPERATOR = core_path("pods", SYSTEM, "operator-1")
SELECTOR = {"app": "operator"}


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


@pytest.fixture
def server() -> ApiServer:
    """An operator's Deployment and its pod, which ends when it is scaled to 0."""
    server = ApiServer()
    spec = {"replicas": 1, "selector": {"matchLabels": SELECTOR}}
    server.put(deployment_path(SYSTEM, DEPLOYMENT), {"metadata": {"name": DEPLOYMENT}, "spec": spec})
    server.put(OPERATOR, {"metadata": {"name": "operator-1", "labels": SELECTOR}, "status": {"phase": "Running"}})
    return server


def put_pod(server: ApiServer, number: int, *, finalizers: list[str], namespace: str = "team", **meta: object) -> str:
    path = core_path("pods", namespace, f"pod-{number}")
    labels = {SESSION_UID_LABEL: f"session-{number}"}
    name = {"name": f"pod-{number}", "namespace": namespace, "uid": f"pod-uid-{number}"}
    server.put(path, {"metadata": {**name, "labels": labels, "finalizers": finalizers, **meta}})
    return path


async def release(server: ApiServer, *, timeout: float = 60) -> list[str]:
    lines: list[str] = []
    await release_pods(server.kube, SYSTEM, timeout=timeout, report=lines.append)
    return lines


def when_scaled(server: ApiServer) -> None:
    """Its pod ends with the first list after the Deployment was scaled."""

    def answer(verb: str, path: str) -> None:
        scaled = server.objects[deployment_path(SYSTEM, DEPLOYMENT)]["spec"]["replicas"] == 0
        if verb == "GET" and path == core_path("pods", SYSTEM) and scaled:
            server.objects.pop(OPERATOR, None)

    server.answer = answer


async def test_only_our_finalizer_is_removed_and_from_every_page(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 7)
    when_scaled(server)
    paths = [
        put_pod(server, number, finalizers=["example.org/theirs", SESSION_FINALIZER], namespace=f"team-{number % 3}")
        for number in range(30)
    ]
    bystander = core_path("pods", "team", "bystander")
    server.put(bystander, {"metadata": {"name": "bystander", "namespace": "team", "finalizers": ["example.org/theirs"]}})
    lines = await release(server)
    assert [server.objects[path]["metadata"]["finalizers"] for path in paths] == [["example.org/theirs"]] * 30
    assert {path for verb, path in server.calls if verb == "PATCH"} == {*paths, deployment_path(SYSTEM, DEPLOYMENT)}
    assert len(server.calls) == 31, "one write for each pod, and the one that stops the operator"
    assert "30 released" in lines[-1]


async def test_a_pod_that_was_being_deleted_is_gone(server: ApiServer) -> None:
    when_scaled(server)
    path = put_pod(server, 1, finalizers=[SESSION_FINALIZER], deletionTimestamp="2026-01-01T00:00:00Z")
    await release(server)
    assert path not in server.objects


async def test_no_pod_is_touched_before_the_operator_is_gone(server: ApiServer) -> None:
    put_pod(server, 1, finalizers=[SESSION_FINALIZER])
    with pytest.raises(NotReleased, match="operator-1") as left:
        await release(server, timeout=30)
    assert "--force" in str(left.value)
    assert server.calls == [("PATCH", deployment_path(SYSTEM, DEPLOYMENT))]


async def test_an_evicted_pod_of_the_operator_is_not_waited_for(server: ApiServer) -> None:
    put_pod(server, 1, finalizers=[SESSION_FINALIZER])
    server.put(OPERATOR, {**server.objects[OPERATOR], "status": {"phase": "Failed"}})
    await release(server)


async def test_a_finalizer_that_a_killed_operator_still_put_back_is_removed(server: ApiServer) -> None:
    when_scaled(server)
    path = put_pod(server, 1, finalizers=[])

    async def late_write() -> None:
        await asyncio.sleep(LANDING_SECONDS - 0.5)
        put_pod(server, 1, finalizers=[SESSION_FINALIZER])

    late = asyncio.create_task(late_write())
    await release(server)
    await late
    assert server.objects[path]["metadata"]["finalizers"] == []


async def test_without_a_deployment_there_is_nobody_to_stop(server: ApiServer) -> None:
    server.remove(deployment_path(SYSTEM, DEPLOYMENT))
    path = put_pod(server, 1, finalizers=[SESSION_FINALIZER])
    lines = await release(server)
    assert "no operator to stop" in lines[0]
    assert server.objects[path]["metadata"]["finalizers"] == []


@pytest.mark.parametrize("code", [0, 403, 409, 429, 500])
async def test_whatever_the_answer_was_a_pod_is_tried_again(server: ApiServer, code: int) -> None:
    when_scaled(server)
    stop = server.answer
    paths = [put_pod(server, number, finalizers=[SESSION_FINALIZER]) for number in range(3)]
    refusals = 0

    def refuse_at_first(verb: str, path: str) -> None:
        nonlocal refusals
        stop(verb, path)
        if verb == "PATCH" and path == paths[1] and refusals < 3:
            refusals += 1
            raise ApiError(code, "Unavailable", "not now")

    server.answer = refuse_at_first
    await release(server)
    assert [server.objects[path]["metadata"]["finalizers"] for path in paths] == [[]] * 3


@pytest.mark.parametrize("verb", ["GET", "PATCH"])
async def test_rights_that_come_late_are_waited_for(server: ApiServer, verb: str) -> None:
    when_scaled(server)
    stop = server.answer
    path = put_pod(server, 1, finalizers=[SESSION_FINALIZER])
    refusals = 0

    def not_yet(asked: str, at: str) -> None:
        nonlocal refusals
        if asked == verb and refusals < 4:
            refusals += 1
            raise ApiError(403, "Forbidden", "no rights yet")
        stop(asked, at)

    server.answer = not_yet
    lines = await release(server)
    assert server.objects[path]["metadata"]["finalizers"] == []
    assert sum("no rights yet" in line for line in lines) == 1, "an error that repeats is reported once"


async def test_a_lost_answer_is_no_failure(server: ApiServer) -> None:
    when_scaled(server)
    path = put_pod(server, 1, finalizers=[SESSION_FINALIZER])
    server.lost_answers.add(("PATCH", path))
    await release(server)
    assert server.calls.count(("PATCH", path)) == 1


async def test_a_list_that_expired_begins_again(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    when_scaled(server)
    stop = server.answer
    paths = [put_pod(server, number, finalizers=[SESSION_FINALIZER]) for number in range(5)]
    lists = 0

    def expire_once(verb: str, path: str) -> None:
        nonlocal lists
        stop(verb, path)
        if (verb, path) == ("GET", core_path("pods")):
            lists += 1
            if lists == 2:
                raise ApiError(410, "Expired", "The provided continue parameter is too old")

    server.answer = expire_once
    await release(server)
    assert [server.objects[path]["metadata"]["finalizers"] for path in paths] == [[]] * 5


async def test_what_is_left_at_the_deadline_is_named_with_its_reason(server: ApiServer) -> None:
    when_scaled(server)
    stop = server.answer
    paths = [put_pod(server, number, finalizers=[SESSION_FINALIZER]) for number in range(30)]

    def refuse_most(verb: str, path: str) -> None:
        stop(verb, path)
        if verb == "PATCH" and path in paths[5:]:
            raise ApiError(403, "Forbidden", "a policy of yours")

    server.answer = refuse_most
    with pytest.raises(NotReleased) as left:
        await release(server)
    message = str(left.value)
    assert "25 session pods" in message
    assert "team/pod-5 (403 Forbidden: a policy of yours)" in message
    assert "and 5 more" in message
    assert "team/pod-4" not in message
    assert len(server.calls) < 5 + 1 + 25 * 12, "tries are paced"
