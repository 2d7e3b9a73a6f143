"""The loops of an operator on an API server in memory, with one session of one class."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from agentsession_operator.api.meta import SESSIONS
from agentsession_operator.api.names import claim_name, pod_name
from agentsession_operator.api.objects import Session, SessionClass, SessionUID
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kinds import followed
from agentsession_operator.cluster.kube import core_path, path_of
from agentsession_operator.control.admitter import Admitter
from agentsession_operator.control.books import Books
from agentsession_operator.control.paces import Paces
from agentsession_operator.control.reconciler import Reconciler
from agentsession_operator.control.session_objects import SessionObjects
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.reports.desk import ReportStore
from support.control_plane.apiserver import ApiServer
from support.control_plane.builders import (
    ADMITTED,
    INSTALLATION,
    JSON,
    READY,
    RUNNING,
    class_body,
    later,
    pod_body,
    session_body,
)

SESSION = path_of(SESSIONS, "team", "demo")
POD = core_path("pods", "team", pod_name("demo", "uid-of-demo"))
PODS = core_path("pods", "team")
CLAIMS = core_path("persistentvolumeclaims", "team")
CLAIM = core_path("persistentvolumeclaims", "team", claim_name("demo", "uid-of-demo"))
UID = SessionUID("uid-of-demo")
KEPT: JSON = {"claimName": CLAIM.rsplit("/", 1)[1], "size": "5Gi"}


def loop_time() -> float:
    """The clock of the event loop, which tests can make virtual."""
    return asyncio.get_running_loop().time()


def time_of_day() -> datetime:
    """NOW, and what has passed since the event loop began."""
    return later(loop_time())


class Stage:
    """The parts of an operator around an API server in memory. `put_*` also update the cache, as a watch would."""

    def __init__(self, *, complete: bool = True) -> None:
        self.server = ApiServer()
        self.queue: WorkQueue[SessionUID] = WorkQueue()
        self.wakeups = Wakeups(self.queue)
        self.cache = Cache(self.wakeups)
        self.reports = ReportStore(self.wakeups)
        api, paces = self.server.kube, Paces(loop_time)
        self.objects = SessionObjects(api, self.cache, paces, INSTALLATION, loop_time, time_of_day)
        self.books = Books(self.cache, self.objects, self.reports, self.wakeups, loop_time, time_of_day)
        self.admitter = Admitter(self.cache, self.objects, self.queue, self.wakeups, self.books)
        self.admitter.trust_the_watches()
        self.reconciler = Reconciler(api, self.cache, self.queue, self.books, self.objects, self.reports, paces, time_of_day)
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
        """A pod as a kubelet or another client has left it, seen by the watch."""
        self.see_pod(self.server.put(POD, pod_body(**fields)))

    def see_pod(self, body: JSON) -> None:
        """The watch delivers a version of the pod."""
        (pods,) = (kind for kind in followed(self.cache, INSTALLATION.token_key) if kind.plural == "pods")
        pods.take("MODIFIED", body)

    def change_pod(self, *, status: JSON | None = None, **metadata: Any) -> None:
        """Another client changes the pod, and the watch delivers that. A label or annotation of None is removed."""
        current = self.server.objects[POD]
        meta = {**current["metadata"], **metadata}
        self.see_pod(self.server.put(POD, {**current, "metadata": meta, "status": status or current.get("status", {})}))

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
        stage.put_session(
            conditions=[ADMITTED, RUNNING], status={"workspace": KEPT, "podUID": "pod-of-demo", "model": "openai/small"}
        )
    else:
        stage.put_session()
    return stage


def admitted_stage() -> Stage:
    """An ephemeral session with a pod that answers."""
    stage = Stage()
    stage.put_session(conditions=[ADMITTED, RUNNING], status={"podUID": "pod-of-demo"})
    stage.put_pod(status=READY)
    return stage
