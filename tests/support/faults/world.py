"""An operator in a world of faults: API server, proxy, operator process, node and judge, as one context manager.

with world(api, operator_kubeconfig, directory, "my-test", cap=2) as w:
    w.proxy.use(Rule(reserves("a2"), Reset(), Hold("late"), times=1))
    w.create("a1", user="alice")
    w.create("a2", user="alice")
    w.until(lambda: w.proxy.held("late") == 1, "the reservation under way")
    ...
    assert not w.history().breaches(at_most(2))
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from support.api import JSON, Api, Refused, condition, pods_path, session, sessions_path
from support.faults.background import Background
from support.faults.judge import Breach, History
from support.faults.node import Node
from support.faults.proxy import Proxy
from support.faults.quotas import caps_of
from support.faults.recorder import Recorder
from support.kubelet import Kubelet
from support.operator_process import NAMESPACE, OperatorProcess
from support.quota import Quota
from support.waiting import eventually

T = TypeVar("T")

SCARCE: Final = {"faults.test/room": "scarce"}
LEASE: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/agentsession-operator"


@dataclass(frozen=True, slots=True)
class World:
    """All that a fault test needs."""

    api: Api
    """The administrator's client. It does not go through the proxy."""
    namespace: str
    scarce: str
    """A second namespace, with the label `SCARCE`."""
    quotas: Mapping[str, JSON]
    """The specs of the quotas as the world began with them, by name."""
    proxy: Proxy
    operator: OperatorProcess
    recorder: Recorder
    node: Node
    kubelet: Kubelet
    quota: Quota
    """The one that counts all sessions."""
    operator_kubeconfig: Path
    """Of the proxy, for another operator."""

    def create(self, name: str, user: str = "alice", **spec: Any) -> JSON:
        """Create a session, past the proxy."""
        return self.api.create(sessions_path(self.home(name)), session(name, user=user, **spec))

    def home(self, name: str) -> str:
        """The namespace of a session: `scarce` for names that begin so."""
        return self.scarce if name.startswith("scarce-") else self.namespace

    def delete(self, name: str, **options: Any) -> None:
        """Delete a session, past the proxy."""
        self.api.call("DELETE", sessions_path(self.home(name), name), options)

    def read(self, name: str) -> JSON:
        """A session as it is now. Raises Refused."""
        return self.api.get(sessions_path(self.home(name), name))

    def sessions(self) -> list[JSON]:
        """All sessions."""
        return [item for name in self.namespaces for item in self.api.get(sessions_path(name))["items"]]

    @property
    def namespaces(self) -> tuple[str, str]:
        return self.namespace, self.scarce

    def all_pods(self) -> list[JSON]:
        """The pods of both namespaces."""
        return [item for name in self.namespaces for item in self.api.get(pods_path(name))["items"]]

    def condition(self, name: str, kind: str) -> tuple[str, str]:
        """Status and reason of a session's condition; empty where it is not there."""
        found = condition(self.read(name), kind)
        return found.get("status", ""), found.get("reason", "")

    def admitted(self, name: str) -> bool:
        """Whether a session's status says that it holds a slot."""
        return self.condition(name, "Admitted")[0] == "True"

    def waits(self, name: str) -> bool:
        """Whether the operator has said that the session waits."""
        return self.condition(name, "Admitted")[0] == "False"

    def pods(self) -> list[JSON]:
        """The pods of the namespace."""
        return list(self.api.get(pods_path(self.namespace))["items"])

    def until(self, look: Callable[[], T | None], what: str, *, within: float = 40.0) -> T:
        """The first true value of `look`. Fails after `within` seconds."""
        return eventually(look, what=what, within=within)

    def comes(self, look: Callable[[], object], *, within: float) -> bool:
        """Whether `look` becomes true within some seconds: for what must not happen, and for what is to be measured."""
        try:
            eventually(lambda: bool(look()), within=within)
        except AssertionError:
            return False
        return True

    def running(self) -> bool:
        """Whether the operator's process has not ended."""
        try:
            self.operator.is_ready()
        except AssertionError:
            return False
        return True

    def serves(self, name: str) -> tuple[bool, str]:
        """Whether a session that is created now is admitted, and its pod made, by a process that lives; and in words."""
        self.create(name, user="somebody")

        def served() -> bool:
            return self.admitted(name) and any(pod["metadata"]["name"].startswith(name) for pod in self.pods())

        self.comes(lambda: served() or not self.running(), within=40.0)
        if not self.running():
            return False, f"the process ended: {self.last_words()}"
        return served(), "the next session has its pod" if served() else "the next session is not served"

    def last_words(self) -> str:
        """Why the operator's process ended: the last thing that it said in its own name."""
        lines = self.operator.log.read_text().strip().splitlines()
        own = [line for line in lines if line.startswith("agentsession-operator: ")]
        return (own or lines or [""])[-1].removeprefix("agentsession-operator: ")[:160]

    def breaches(self) -> list[Breach]:
        """Every event so far that took a count above a cap of the quotas with which the world began."""
        return self.history().breaches(*caps_of(self.quotas))

    def history(self) -> History:
        """What happened in the cluster, complete up to now."""
        return self.recorder.settled()

    def names(self) -> dict[str, str]:
        """Names of all sessions that ever were, by UID."""
        return {uid: seen.name for uid, seen in self.recorder.history.end().sessions.items()}


def overlapping(cap: int, per_user: int) -> dict[str, JSON]:
    """Three quotas that overlap: one counts all sessions and queues them; one counts the default class too, and lets a session
    take the place of an idle one; one counts those of the namespace `scarce` too, and rejects what finds no room."""
    caps = {"maxSessions": cap, "maxSessionsPerUser": per_user}
    return {
        "default": caps,
        "replacing": {**caps, "classNames": ["default"], "whenFull": "ReplaceOldestIdle"},
        "rejecting": {**caps, "namespaceSelector": {"matchLabels": SCARCE}, "whenFull": "Reject"},
    }


class OpenWorld(Protocol):
    """Opens a world; it is closed after the test. Unless a test sets quotas of its own or changes them, the judge then looks
    at all of its events."""

    def __call__(
        self,
        *,
        cap: int = 50,
        per_user: int = 10,
        start: bool = True,
        quotas: Mapping[str, JSON] | None = None,
        judged: bool = True,
    ) -> World: ...


@contextlib.contextmanager
def world(
    api: Api,
    operator_kubeconfig: Path,
    directory: Path,
    namespace: str,
    *,
    quotas: Mapping[str, JSON],
    start: bool = True,
) -> Iterator[World]:
    """A running operator behind a proxy, in a cluster that has no sessions when it begins and when it ends.

    `operator_kubeconfig` is of the operator's account at the API server itself. `quotas` are specs by name; one is "default".
    """
    scarce = f"{namespace}-scarce"
    _release_lease(api)
    with contextlib.ExitStack() as cleanup:
        for name, spec in quotas.items():
            quota = Quota(api, name)
            cleanup.callback(quota.remove)
            quota.write(**spec)
        for name, labels in ((namespace, {}), (scarce, SCARCE)):
            _make_namespace(api, name, labels)
            cleanup.callback(_sweep, api, name)
        background = Background()
        cleanup.callback(background.stop)
        node = Node(api, namespace, scarce)
        recorder = cleanup.enter_context(Recorder(api, background, node.hear).recording())
        cleanup.enter_context(node.running())
        operators: list[OperatorProcess] = []
        proxy = Proxy(operator_kubeconfig, background, lambda: operators[0].kill())
        cleanup.enter_context(proxy.serving())
        path = proxy.write_kubeconfig(directory / "kubeconfig")
        operators.append(OperatorProcess(path, directory / "operator.log"))
        cleanup.callback(_stop, operators[0])
        if start:
            operators[0].start()
        kubelet = Kubelet(api, namespace)
        yield World(api, namespace, scarce, quotas, proxy, operators[0], recorder, node, kubelet, Quota(api), path)


def _release_lease(api: Api) -> None:
    """As a predecessor left it that had no write in doubt. Without any lease, the operator would wait for an unknown one's."""
    api.delete(LEASE)
    collection, name = LEASE.rsplit("/", 1)
    api.create(collection, {"metadata": {"name": name}, "spec": {"holderIdentity": ""}})


def _make_namespace(api: Api, name: str, labels: Mapping[str, str]) -> None:
    with contextlib.suppress(Refused):
        api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    eventually(lambda: api.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), what="the default service account")


def _stop(operator: OperatorProcess) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        operator.stop()
    print(operator.log.read_text()[-20_000:] if operator.log.exists() else "the operator was never started")


def _sweep(api: Api, namespace: str) -> None:
    """Remove sessions and pods though nobody is left who would remove their finalizers.

    A policy reserves the finalizer of session pods to the operator's account.
    """
    allowed = api.impersonating(f"system:serviceaccount:{NAMESPACE}:agentsession-operator")

    def swept() -> bool:
        left = 0
        for path, remover in ((sessions_path(namespace), api), (pods_path(namespace), allowed)):
            for item in api.get(path)["items"]:
                left += 1
                one = f"{path}/{item['metadata']['name']}"
                with contextlib.suppress(Refused):
                    if item["metadata"].get("finalizers"):
                        remover.patch(one, {"metadata": {"finalizers": None}})
                    api.delete(one, grace=0)
        return left == 0

    eventually(swept, within=20, what=f"the end of all pods and sessions of {namespace}")
    api.delete(f"/api/v1/namespaces/{namespace}")
