"""A SessionQuota, and whether it holds at every moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.api import GROUP, JSON, Api, condition, pod_ended, pods_path, sessions_path
from support.waiting import eventually


class Quota:
    """Sets and reads one. It is not there before it is set: then the built-in limits hold, 50 and 10."""

    def __init__(self, api: Api, name: str = "default") -> None:
        self._api, self.name = api, name
        self.path = f"{GROUP}/sessionquotas/{name}"

    def set(self, sessions: int, per_user: int, **rest: Any) -> JSON:
        """These limits, and the rest of the spec."""
        return self.write(maxSessions=sessions, maxSessionsPerUser=per_user, **rest)

    def write(self, **spec: Any) -> JSON:
        """Apply: what an earlier call set and this one does not is unset."""
        kind = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "SessionQuota", "metadata": {"name": self.name}}
        return self._api.apply({**kind, "spec": spec}, self.path)

    def read(self) -> JSON:
        return self._api.get(self.path)

    def enforced(self) -> JSON:
        """Wait until the operator counts by what the spec says now."""

        def look() -> JSON | None:
            body = self.read()
            return body if body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"] else None

        return eventually(look, within=30, what=f"the operator's word on SessionQuota {self.name}")

    def remove(self) -> None:
        self._api.delete(self.path)


def over_the_caps(sessions: list[JSON], pods: list[JSON], cap: int, per_user: int) -> list[str]:
    """How sessions and pods, listed in this order, break the caps."""
    broken = []
    holders = {
        item["metadata"]["uid"]: item["spec"]["user"]
        for item in sessions
        if condition(item, "Admitted").get("status") == "True"
    }
    users = Counter(holders.values())
    if len(holders) > cap or any(number > per_user for number in users.values()):
        broken.append(f"{len(holders)} sessions are admitted: {users}")
    running = [pod for pod in pods if not pod_ended(pod)]
    if len(running) > cap:
        broken.append(f"{len(running)} pods run")
    return broken


@contextmanager
def watching(api: Api, namespace: str, cap: int, per_user: int) -> Iterator[list[str]]:
    """A list of every moment at which a watcher of sessions and pods could count more holders than the caps."""
    broken: list[str] = []
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            # Sessions before pods: a pod that is counted and whose session is not in the list was deleted in between.
            sessions = api.get(sessions_path(namespace))["items"]
            pods = api.get(pods_path(namespace))["items"]
            broken.extend(over_the_caps(sessions, pods, cap, per_user))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield broken
    finally:
        stop.set()
        thread.join()
