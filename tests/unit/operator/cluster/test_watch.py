"""The watches against a real server that plays the API server for one kind, with the real kopf."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agentsession_operator.api.objects import PodUID
from agentsession_operator.cluster import watch
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kinds import followed
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from support.control_plane.builders import INSTALLATION, JSON, READY, pod_body

pytestmark = pytest.mark.anyio

DEADLINE = 10.0


def status(code: int) -> JSON:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "Odd", "message": "odd"}


class Pods:
    """Lists and watches pods. `opening` answers the next requests that open a watch, if it has answers left."""

    def __init__(self) -> None:
        self.items: list[JSON] = []
        self.opening: list[int] = []
        self.watches: list[asyncio.Queue[JSON | None]] = []
        self.opened = asyncio.Condition()

    async def api(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "APIVersions", "versions": ["v1"]})

    async def apis(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "APIGroupList", "groups": []})

    async def resources(self, _: web.Request) -> web.StreamResponse:
        verbs = ["get", "list", "watch", "patch", "create", "delete"]
        pods = {"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": True, "verbs": verbs}
        # kopf waits for this kind before it watches any other.
        namespaces = {
            "name": "namespaces",
            "singularName": "namespace",
            "kind": "Namespace",
            "namespaced": False,
            "verbs": verbs,
        }
        return web.json_response({"kind": "APIResourceList", "groupVersion": "v1", "resources": [pods, namespaces]})

    async def pods(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"kind": "PodList", "metadata": {"resourceVersion": "1000"}, "items": self.items})
        if self.opening:
            code = self.opening.pop(0)
            return web.json_response(status(code), status=code)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        events: asyncio.Queue[JSON | None] = asyncio.Queue()
        async with self.opened:
            self.watches.append(events)
            self.opened.notify_all()
        while (event := await events.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    async def watch(self, number: int) -> asyncio.Queue[JSON | None]:
        """The watch that was opened as the `number`th, from 1."""
        async with self.opened:
            await self.opened.wait_for(lambda: len(self.watches) >= number)
        return self.watches[number - 1]


@pytest.fixture(autouse=True)
def kubeconfig_in_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kopf looks for it there."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Pods, str]]:
    pods = Pods()
    app = web.Application()
    app.router.add_get("/api", pods.api)
    app.router.add_get("/apis", pods.apis)
    app.router.add_get("/api/v1", pods.resources)
    app.router.add_get("/api/v1/pods", pods.pods)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (address,) = runner.addresses
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{address[1]}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    try:
        yield pods, str(path)
    finally:
        for events in pods.watches:
            events.put_nowait(None)
        await runner.cleanup()


class Watches:
    """The watch of pods, and the cache that it feeds."""

    def __init__(self, kubeconfig: str) -> None:
        self._kubeconfig = kubeconfig
        self.cache = Cache(Wakeups(WorkQueue()))
        self._kinds = [kind for kind in followed(self.cache, INSTALLATION.token_key) if kind.plural == "pods"]
        self.starts = 0

    async def run(self) -> None:
        await watch.run(self._kinds, self._kubeconfig, self._started)

    def _started(self) -> None:
        self.starts += 1
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not holds():  # noqa: ASYNC110 - the cache calls back into the operator only
                await asyncio.sleep(0.01)


async def end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE)
    assert task.done()


def kopfs_tasks(before: set[asyncio.Task[Any]]) -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() - before if task.get_name().startswith("watcher for")]


@pytest.mark.parametrize("code", [500, 504, 429, 403])
async def test_an_error_event_ends_the_watches_and_they_can_start_again(tmp_path: Path, code: int) -> None:
    async with serving(tmp_path) as (pods, kubeconfig):
        watches, before = Watches(kubeconfig), asyncio.all_tasks()
        first = asyncio.create_task(watches.run())
        async with asyncio.timeout(DEADLINE):
            (await pods.watch(1)).put_nowait({"type": "ERROR", "object": status(code)})
            await asyncio.wait([first])
        assert str(code) in str(first.exception())
        assert kopfs_tasks(before) == []
        pods.items.append(pod_body(status=READY))
        second = asyncio.create_task(watches.run())
        await watches.until(lambda: watches.cache.pods.get(PodUID("pod-of-demo")))
        await end(second)
    assert watches.starts == 2


@pytest.mark.parametrize("code", [404, 410])
async def test_a_refused_opening_ends_the_watches_with_its_error(tmp_path: Path, code: int) -> None:
    async with serving(tmp_path) as (pods, kubeconfig):
        pods.opening = [code]
        watches = Watches(kubeconfig)
        first = asyncio.create_task(watches.run())
        await asyncio.wait([first], timeout=DEADLINE)
        assert first.exception() is not None
        second = asyncio.create_task(watches.run())
        async with asyncio.timeout(DEADLINE):
            (await pods.watch(1)).put_nowait({"type": "ADDED", "object": pod_body(status=READY)})
        await watches.until(lambda: watches.cache.pods.get(PodUID("pod-of-demo")))
        await end(second)


async def test_watches_that_end_leave_all_other_tasks_alone(tmp_path: Path) -> None:
    """`kopf.operator` cancels every task that is younger than itself."""
    async with serving(tmp_path) as (pods, kubeconfig):
        watches = Watches(kubeconfig)
        watching = asyncio.create_task(watches.run())
        async with asyncio.timeout(DEADLINE):
            events = await pods.watch(1)
            request = asyncio.create_task(asyncio.Event().wait())
            events.put_nowait({"type": "ERROR", "object": status(500)})
            await asyncio.wait([watching])
        assert not request.done()
        assert not request.cancelling()
        request.cancel()


def test_kopf_never_kills_the_process() -> None:
    assert watch.settings([]).process.ultimate_exiting_timeout is None
