"""A kubelet that follows orders: it starts a test's pods and confirms deletions, on an API server without nodes."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator

from support.api import JSON, Api, Refused
from support.faults.judge import PODS, UID_LABEL, Event
from support.kubelet import Kubelet


class Node:
    """Acts on what the recorder hears. Each pod is started once and its end confirmed once."""

    def __init__(self, api: Api, *namespaces: str) -> None:
        self._kubelets = {namespace: Kubelet(api, namespace) for namespace in namespaces}
        self._inbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._done: set[tuple[str, str]] = set()
        self.starts = True
        """Whether pods become Running and Ready once they have a node."""
        self.confirms = True
        """Whether a pod that is being deleted ends and goes."""
        self.rejects: set[str] = set()
        """Names of sessions whose next pod the kubelet refuses, before anything runs."""
        self.failure: BaseException | None = None

    def hear(self, event: Event) -> None:
        """For the recorder."""
        if event.resource == PODS and event.body["metadata"].get("namespace") in self._kubelets:
            self._inbox.put(event)

    @contextlib.contextmanager
    def running(self) -> Iterator[Node]:
        """Follow orders until the block ends. Raises what went wrong meanwhile."""
        thread = threading.Thread(target=self._work, name="node")
        thread.start()
        try:
            yield self
        finally:
            self._inbox.put(None)
            thread.join(20)
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        try:
            while (event := self._inbox.get()) is not None:
                try:
                    self._act(event)
                except Refused as refused:
                    if refused.code not in (404, 409):  # gone, or replaced, in the meantime
                        raise
        except BaseException as error:
            self.failure = error

    def _act(self, event: Event) -> None:
        pod = dict(event.body)
        meta, phase = pod["metadata"], (pod.get("status") or {}).get("phase")
        if event.kind == "DELETED" or not pod["spec"].get("nodeName") or UID_LABEL not in (meta.get("labels") or {}):
            return
        kubelet = self._kubelets[meta["namespace"]]
        if "deletionTimestamp" in meta:
            if self.confirms and self._first("end", event.uid):
                if phase not in ("Succeeded", "Failed"):
                    kubelet.ended(pod, phase="Failed")
                kubelet.gone(pod)
        elif phase == "Pending" and (name := _session(meta)) in self.rejects:
            self.rejects.discard(name)
            self._first("start", event.uid)
            kubelet.rejected(pod)
        elif self.starts and phase == "Pending" and self._first("start", event.uid):
            kubelet.ready(pod)

    def _first(self, what: str, uid: str) -> bool:
        if (what, uid) in self._done:
            return False
        self._done.add((what, uid))
        return True


def _session(meta: JSON) -> str:
    return str((meta.get("annotations") or {}).get("agentsession.dev/session", ""))
