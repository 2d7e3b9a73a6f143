"""Before the operator is uninstalled: remove its finalizer from all session pods.

A session's pod cannot vanish until the operator has recorded its end and removed the finalizer. Once the operator is
uninstalled nobody does that, and no session pod could be deleted, nor its namespace. So `agentsession-operator release-pods`
runs first (the chart's pre-delete hook, or manifests/uninstall.yaml):

1. Scale the operator's Deployment to 0 and wait until its pods are gone: a running operator would put the finalizers back.
2. List the session pods, page by page, and remove the finalizer from each; again, until a list finds none. Only a list that
   begins LANDING_SECONDS after the operator ended counts: an operator that was killed may have sent a last write.

The pods keep running. An operator that is installed later puts the finalizer back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from agentsession_operator.api.meta import SESSION_FINALIZER, SESSION_UID_LABEL
from agentsession_operator.cluster.kube import ApiError, KubeApi, core_path, deployment_path
from agentsession_operator.cluster.landing import LANDING_SECONDS

JSON = dict[str, Any]
T = TypeVar("T")

DEPLOYMENT: Final = "agentsession-operator"
PAGE: Final = 250
"""Pods in one list. A session's pod is up to 0.5 MB with its prompt, mostly 15 KB."""
CONCURRENT: Final = 16
"""Patches at a time: about what one API server answers without queueing them."""
POLL_SECONDS: Final = 1.0
"""Interval between two lists, and between two tries of a request."""
LONGEST_SECONDS: Final = 10.0
"""The interval between two lists doubles up to this while no pod is released."""
NAMED: Final = 20
"""Pods that an error message names."""


class NotReleased(Exception):
    """Not everything was done before the deadline. The message names what is left, and says what to do."""


async def release_pods(api: KubeApi, namespace: str, *, timeout: float, report: Callable[[str], None]) -> None:
    """Stop the operator in `namespace` and remove its finalizer from the session pods of all namespaces.

    `timeout` is in seconds and bounds all of it; `report` is given a line about each step. Errors of the API server are
    retried until then, refusals too: the rights that this needs may have been granted a moment ago.

    Raises NotReleased.
    """
    release = _Release(api, namespace, report)
    try:
        async with asyncio.timeout(timeout):
            await release.run()
    except TimeoutError as error:
        raise NotReleased(f"not done after {timeout:.0f} s: {release.problem()}") from error


class _Release:
    """One run, and how far it came."""

    def __init__(self, api: KubeApi, namespace: str, report: Callable[[str], None]) -> None:
        self._api, self._namespace, self._report = api, namespace, report
        self._released = 0
        self._operators: list[str] = []
        """The operator's pods that are still there."""
        self._left: dict[str, str] = {}
        """Session pods that carry the finalizer, as namespace/name, and what kept it there the last time."""
        self._error = ""
        """The last error of a request that concerns no single pod."""

    async def run(self) -> None:
        await self._stop_operator()
        loop = asyncio.get_running_loop()
        landed = loop.time() + LANDING_SECONDS
        pause = POLL_SECONDS
        while True:
            begun, before = loop.time(), self._released
            await self._pass()
            if not self._left and begun >= landed:
                break
            pause = POLL_SECONDS if self._released > before else min(2 * pause, LONGEST_SECONDS)
            await asyncio.sleep(pause if self._left else max(landed - loop.time(), 0))
        self._report(f"no session pod has the finalizer {SESSION_FINALIZER} any more ({self._released} released)")

    def problem(self) -> str:
        """What is left and what to do, for people."""
        last = f" The last error: {self._error}." if self._error else ""
        if self._operators:
            return (
                f"these pods of the operator have not ended: {_names(self._operators)}. If their node is gone for good, "
                f"delete them with `kubectl -n {self._namespace} delete pod NAME --force`, and run this again.{last}"
            )
        if not self._left:
            return f"the session pods could not be listed, or the operator could not be stopped. Run this again.{last}"
        pods = _names([f"{pod} ({why})" for pod, why in self._left.items()])
        return (
            f"{len(self._left)} session pods still have the finalizer {SESSION_FINALIZER}: {pods}. "
            f"Run this again; the operator stays stopped.{last}"
        )

    # The operator.

    async def _stop_operator(self) -> None:
        scale = await self._retried(self._scale_to_zero)
        if scale is None:
            self._report(f"there is no Deployment {DEPLOYMENT} in namespace {self._namespace}: no operator to stop")
            return
        self._report(f"scaled the Deployment {DEPLOYMENT} in namespace {self._namespace} to 0")
        selector = str(scale["status"]["selector"])
        path = core_path("pods", self._namespace)
        while True:
            pods = (await self._retried(lambda: self._api.list_all(path, {"labelSelector": selector})))["items"]
            # One that was evicted stays as a record (its ReplicaSet does not delete it), and runs no more.
            running = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
            self._operators = [pod["metadata"]["name"] for pod in running]
            if not self._operators:
                self._report("the operator's pods are gone")
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _scale_to_zero(self) -> JSON | None:
        try:
            return await self._api.scale(deployment_path(self._namespace, DEPLOYMENT), 0)
        except ApiError as error:
            if error.gone:
                return None
            raise

    # The session pods.

    async def _pass(self) -> None:
        """Look at each session pod once. What is left afterwards is in `_left`."""
        found: set[str] = set()
        position = ""
        while True:
            page = await self._page(position)
            if page is None:
                found, position = set(), ""
                continue
            pods = [pod for pod in page["items"] if SESSION_FINALIZER in (pod["metadata"].get("finalizers") or ())]
            for pod in pods:
                self._left.setdefault(_name(pod), "not tried yet")
            found |= {_name(pod) for pod in pods}
            await self._release_all(pods)
            position = page["metadata"].get("continue", "")
            if not position:
                break
        self._left = {pod: why for pod, why in self._left.items() if pod in found}
        if found:
            self._report(f"released {self._released} session pods, {len(self._left)} left")

    async def _page(self, position: str) -> JSON | None:
        """One page of session pods; None if the list must begin again."""
        query = {"labelSelector": SESSION_UID_LABEL, "limit": str(PAGE), **({"continue": position} if position else {})}

        async def listed() -> JSON | None:
            try:
                return await self._api.list_all(core_path("pods"), query)
            except ApiError as error:
                if error.code == 410 and position:
                    return None
                raise

        return await self._retried(listed)

    async def _release_all(self, pods: list[JSON]) -> None:
        """Remove the finalizer from each, CONCURRENT at a time."""
        waiting = iter(pods)

        async def work() -> None:
            for pod in waiting:
                await self._release(pod)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(CONCURRENT, len(pods))):
                group.create_task(work())

    async def _release(self, pod: JSON) -> None:
        meta = pod["metadata"]
        path = core_path("pods", meta["namespace"], meta["name"])
        try:
            await self._api.remove_finalizer(path, SESSION_FINALIZER, uid=meta["uid"])
        except ApiError as error:
            # In any case the next list says whether the pod still has the finalizer: an answer may be lost, and another
            # pod may have the name by now.
            self._left[_name(pod)] = str(error)
            return
        del self._left[_name(pod)]
        self._released += 1

    async def _retried(self, request: Callable[[], Awaitable[T]]) -> T:
        """The answer of a request that is repeated until it succeeds; the caller has a deadline."""
        while True:
            try:
                answer = await request()
            except ApiError as error:
                if str(error) != self._error:
                    self._report(f"trying again: {error}")
                self._error = str(error)
                await asyncio.sleep(POLL_SECONDS)
            else:
                self._error = ""
                return answer


def _name(pod: JSON) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _names(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
