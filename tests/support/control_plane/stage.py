"""The loops of an operator on an API server in memory, with one session of one class."""

from __future__ import annotations

from typing import Any

from agentsession_operator.api.meta import SESSIONS
from agentsession_operator.api.names import claim_name, pod_name
from agentsession_operator.api.objects import Pod, Session, SessionClass, SessionUID
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import core_path, path_of
from agentsession_operator.control.admitter import Admitter
from agentsession_operator.control.reconciler import Reconciler
from agentsession_operator.control.session_objects import SessionObjects
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.control.workqueue import WorkQueue
from agentsession_operator.reports.desk import ReportStore
from support.control_plane.apiserver import ApiServer
from support.control_plane.builders import ADMITTED, INSTALLATION, JSON, RUNNING, class_body, pod_body, session_body

SESSION = path_of(SESSIONS, "team", "demo")
POD = core_path("pods", "team", pod_name("demo", "uid-of-demo"))
PODS = core_path("pods", "team")
CLAIMS = core_path("persistentvolumeclaims", "team")
CLAIM = core_path("persistentvolumeclaims", "team", claim_name("demo", "uid-of-demo"))
UID = SessionUID("uid-of-demo")


class Stage:
    """The parts of an operator around an API server in memory. `put_*` also update the cache, as a watch would."""

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
