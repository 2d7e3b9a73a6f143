"""The gate before writes, and what an error says about a write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from agentsession_operator.cluster.kube import ApiError, KubeApi
from agentsession_operator.cluster.lease import NotLeader
from support.control_plane.apiserver import JSON, ApiServer

pytestmark = pytest.mark.anyio

PATH = "/api/v1/namespaces/team/configmaps/x"


def shut() -> None:
    raise NotLeader("shut")


WRITES: dict[str, Callable[[KubeApi], Awaitable[object]]] = {
    "create": lambda api: api.create("/api/v1/namespaces/team/configmaps", {"metadata": {"name": "y"}}),
    "patch_status": lambda api: api.patch_status(PATH, "uid-1", 1, {"a": 1}),
    "patch_pod_metadata": lambda api: api.patch_pod_metadata(PATH, "uid-1", {"labels": {"a": "b"}}),
    "remove_finalizer": lambda api: api.remove_finalizer(PATH, "example.org/x", uid="uid-1"),
    "scale": lambda api: api.scale(PATH, 0),
    "delete": lambda api: api.delete(PATH, uid="uid-1"),
}


@pytest.fixture
def server() -> ApiServer:
    server = ApiServer()
    server.put(PATH, {"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {}}}})
    return server


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_no_write_is_sent_while_the_gate_is_shut(
    server: ApiServer, write: Callable[[KubeApi], Awaitable[object]]
) -> None:
    with pytest.raises(NotLeader):
        await write(KubeApi(server, may_write=shut))
    assert server.calls == []
    await write(KubeApi(server, may_write=lambda: None))
    assert len(server.calls) == 1


async def test_reads_need_no_open_gate(server: ApiServer) -> None:
    assert (await KubeApi(server, may_write=shut).get(PATH))["metadata"]["name"] == "x"


async def test_a_list_comes_in_pages(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentsession_operator.cluster.kube.PAGE", 2)
    for name in ("a", "b", "c"):
        server.put(f"/api/v1/namespaces/n/pods/{name}", {"metadata": {"name": name, "labels": {"ours": "yes"}}})
    pages = [page async for page in server.kube.pages("/api/v1/namespaces/n/pods", {"labelSelector": "ours"})]
    assert [[item["metadata"]["name"] for item in page["items"]] for page in pages] == [["a", "b"], ["c"]]


async def test_every_write_has_a_gate(server: ApiServer) -> None:
    public = {name for name in vars(KubeApi) if not name.startswith("_")}
    assert public == {"get", "list_all", "pages", *WRITES}


async def test_a_deletion_says_whether_it_deleted(server: ApiServer) -> None:
    api = server.kube
    assert await api.delete(PATH, uid="another") is None
    assert await api.delete(PATH, uid="uid-1") is not None
    assert await api.delete(PATH, uid="uid-1") is None


@pytest.mark.parametrize(("code", "unknown"), [(0, True), (500, True), (504, True), (409, False), (404, False), (429, False)])
def test_a_write_without_an_answer_may_have_been_carried_out(code: int, unknown: bool) -> None:
    assert ApiError(code, "", "").outcome_unknown is unknown


async def test_a_status_is_merged_into_the_version_that_was_read(server: ApiServer) -> None:
    answer: JSON = await server.kube.patch_status(PATH, "uid-1", 1, {"a": 1, "b": None})
    assert answer["status"] == {"a": 1}
    with pytest.raises(ApiError) as refused:
        await server.kube.patch_status(PATH, "uid-1", 1, {"a": 2})
    assert refused.value.conflict


async def test_a_status_is_not_written_to_another_object_of_the_name(server: ApiServer) -> None:
    with pytest.raises(ApiError) as refused:
        await server.kube.patch_status(PATH, "another", 1, {"a": 1})
    assert refused.value.conflict


@pytest.mark.parametrize("answer", [{}, {"metadata": {}}, {"metadata": {"uid": 7}}, {"kind": "Status"}])
async def test_an_answer_that_is_not_the_object_leaves_a_doubt(answer: JSON) -> None:
    class Odd(ApiServer):
        async def request(self, *_: object, **__: object) -> JSON:
            return answer

    for write in ("create", "patch_status", "patch_pod_metadata"):
        with pytest.raises(ApiError) as refused:
            await WRITES[write](KubeApi(Odd(), may_write=lambda: None))
        assert refused.value.outcome_unknown
