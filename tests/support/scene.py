"""Sessions of one test under its quotas, on an API server without a kubelet: who asks, who runs, what each was told."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

from support.api import GROUP, JSON, Api, Refused, condition, pod_ended, pods_path, session, sessions_path
from support.kubelet import Kubelet
from support.operator_process import OperatorProcess
from support.quota import Quota
from support.reports import report_of, send, token_for
from support.waiting import eventually, read, wait_for

MODEL = {"agent": {"model": "openai/none"}, "tolerations": [{"operator": "Exists"}]}
PERSISTENT = {**MODEL, "workspace": {"type": "Persistent", "size": "1Gi", "storageClassName": "by-hand"}}


class Scene:
    """What is made here is removed by `close`, but for the sessions of `namespace`, which belongs to the test."""

    def __init__(self, api: Api, operator: OperatorProcess, namespace: str, open_namespace: Callable[[str], str]) -> None:
        self.api, self.operator, self.namespace = api, operator, namespace
        self._open_namespace = open_namespace
        self._reports = itertools.count(1)
        self._made: list[str] = []
        self._quotas: list[Quota] = []

    # What the platform team sets.

    def quota(self, name: str = "tested", **spec: Any) -> Quota:
        """A quota that the operator counts by."""
        quota = self.put_quota(name, **spec)
        quota.enforced()
        return quota

    def put_quota(self, name: str, **spec: Any) -> Quota:
        """A quota that the operator may not have seen yet."""
        quota = Quota(self.api, name)
        self._quotas.append(quota)
        quota.write(**spec)
        return quota

    def all_enforced(self) -> None:
        """Wait until the operator counts by all quotas as they are now."""
        for quota in self._quotas:
            quota.enforced()

    def session_class(self, name: str, **spec: Any) -> str:
        """A class; its name. An ephemeral one whose pods every node takes, unless `spec` says otherwise."""
        kind = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "AgentSessionClass", "metadata": {"name": name}}
        return self.apply({**kind, "spec": {**MODEL, **spec}}, f"{GROUP}/agentsessionclasses/{name}")

    def apply(self, body: JSON, path: str) -> str:
        """Any object that is to go with the test; its name."""
        self._made.append(path)
        return str(self.api.apply(body, path)["metadata"]["name"])

    def quota_status(self) -> JSON:
        """The status of the first quota."""
        return dict(self._quotas[0].read().get("status", {}))

    def other_namespace(self, suffix: str = "other", **labels: str) -> str:
        """Another namespace with these labels."""
        name = self._open_namespace(suffix)
        self.label(name, **labels)
        return name

    def label(self, namespace: str, **labels: str | None) -> None:
        """Change the labels of a namespace; None removes one."""
        self.api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}})

    def close(self) -> None:
        for quota in self._quotas:
            quota.remove()
        for path in self._made:
            self.api.delete(path)

    # What people do.

    def ask(self, name: str, user: str = "alice", *, namespace: str | None = None, **spec: Any) -> JSON:
        """Create a session and wait until it is decided on, so that the order of arrival is plain."""
        body = self.api.create(sessions_path(namespace or self.namespace), session(name, user=user, **spec))
        eventually(lambda: self.told(body), what=f"a word on {name}")
        return body

    def asks(self, *names: str, user: str = "alice", **spec: Any) -> list[str]:
        """Several of one user, one after the other; what each is told."""
        return [self.told(self.ask(name, user, **spec)) for name in names]

    def told(self, body: JSON) -> str:
        """Admitted for a session that holds a slot, else why it does not; empty before that is decided."""
        found = condition(read(self.api, body), "Admitted")
        if found.get("status") == "False":
            return str(found["reason"])
        return "Admitted" if found or any(not pod_ended(pod) for pod in self.pods(body)) else ""

    def message(self, body: JSON) -> str:
        """The words of its condition Admitted."""
        return str(condition(read(self.api, body), "Admitted").get("message", ""))

    def becomes(self, body: JSON, reason: str, *, within: float = 30) -> JSON:
        """Wait until the session is told this; the session."""

        def look() -> bool:
            assert self.told(body) == reason, read(self.api, body).get("status")
            return True

        eventually(look, within=within, what=f"{body['metadata']['name']} to be {reason}")
        return read(self.api, body)

    def suspend(self, body: JSON, value: bool) -> None:
        meta = body["metadata"]
        self.api.patch(sessions_path(meta["namespace"], meta["name"]), {"spec": {"suspend": value}})

    # What the cluster does.

    def pods(self, body: JSON) -> list[JSON]:
        label = f"agentsession.dev/session-uid={body['metadata']['uid']}"
        return list(self.api.get(pods_path(body["metadata"]["namespace"]), labelSelector=label)["items"])

    def starts(self, body: JSON) -> JSON:
        """The session's pod gets a node, even one that does not fit, and is Ready; the pod."""
        kubelet = Kubelet(self.api, body["metadata"]["namespace"])
        pod = kubelet.pod_of(body)
        meta = {"name": pod["metadata"]["name"]}
        target = {"apiVersion": "v1", "kind": "Node", "name": "nowhere"}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        with contextlib.suppress(Refused):  # the scheduler was faster
            self.api.create(f"{pods_path(body['metadata']['namespace'], meta['name'])}/binding", binding)
        kubelet.scheduled(pod)
        kubelet.ready(pod)
        wait_for(self.api, body, "PodReady", "True", "PodReady")
        return pod

    def reports(self, body: JSON, pod: JSON, **fields: object) -> None:
        """The pod says what its agent does."""
        token = token_for(self.api, body["metadata"]["namespace"], pod)
        assert send(self.operator, body, token, report_of(body, next(self._reports), **fields)) == 204

    def idle(self, body: JSON, pod: JSON, since: str) -> None:
        """The agent waits for input since then."""
        self.reports(body, pod, activity="Idle", last_activity_time=since)
        wait_for(self.api, body, "Active", "True", "Idle")

    def stops(self, pod: JSON) -> None:
        """The operator tells the pod to stop, and it does."""
        path = pods_path(pod["metadata"]["namespace"], pod["metadata"]["name"])
        eventually(lambda: "deletionTimestamp" in self.api.get(path)["metadata"], within=30, what="the pod's deletion")
        Kubelet(self.api, pod["metadata"]["namespace"]).gone(pod)

    def finishes(self, body: JSON) -> None:
        """The session has done its work: its slot is free."""
        kubelet = Kubelet(self.api, body["metadata"]["namespace"])
        report = f'{{"session_uid": "{body["metadata"]["uid"]}", "sequence": 1, "activity": "Idle", "outcome": "Completed"}}'
        kubelet.ended(kubelet.pod_of(body), report=report)
