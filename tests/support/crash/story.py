"""The story: 37 sessions of five users under two quotas; each lives through what its kind says.

What happens to a session depends on that session alone, so the end of the story is the same in any order of events, and
with any crash of the operator in between. People, kubelet and node are played here; they act once, on what they see.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from support.api import GROUP, JSON, Refused, condition, sessions_path
from support.faults.world import World
from support.waiting import eventually

USERS: Final = ("alice", "bob", "carol", "dave", "erin")
CAP, PER_USER = 7, 2
"""Of the quota "default"; `SECOND_CAP` is that of the quota "second", which is tighter for all sessions together."""
SECOND_CAP: Final = 6
CLASS: Final = "crash-persistent"
VOLUMES: Final = 2 * len(USERS)


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody does once a session is in a state."""

    when: Callable[[JSON, JSON | None], bool]
    """Whether the time has come, by the session and its pod."""
    act: Callable[[World, JSON, JSON | None], None]


def _ready(session: JSON, pod: JSON | None) -> bool:
    return condition(session, "Ready").get("status") == "True" and pod is not None


def _runs(_: JSON, pod: JSON | None) -> bool:
    return (
        pod is not None and (pod.get("status") or {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    )


def _runs_again(session: JSON, pod: JSON | None) -> bool:
    return _runs(session, pod) and bool((session.get("status") or {}).get("lostPods"))


def _suspended(session: JSON, _: JSON | None) -> bool:
    return condition(session, "Suspended").get("status") == "True"


def _waits(session: JSON, _: JSON | None) -> bool:
    return bool(condition(session, "Admitted"))


def _complete(w: World, session: JSON, pod: JSON | None) -> None:
    assert pod is not None
    message = {"session_uid": session["metadata"]["uid"], "sequence": 9, "activity": "Idle", "outcome": "Completed"}
    w.kubelet.ended(pod, report=json.dumps(message | {"last_message": "Done."}))


def _evict(w: World, _: JSON, pod: JSON | None) -> None:
    assert pod is not None
    w.kubelet.evicted(pod, "The node was low on resource: memory.")


def _delete(w: World, session: JSON, _: JSON | None) -> None:
    w.delete(session["metadata"]["name"])


def _suspend(value: bool) -> Callable[[World, JSON, JSON | None], None]:
    def act(w: World, session: JSON, _: JSON | None) -> None:
        w.api.patch(sessions_path(w.namespace, session["metadata"]["name"]), {"spec": {"suspend": value}})

    return act


@dataclass(frozen=True, slots=True)
class Kind:
    """A way for a session to live: the spec, the steps in their order, and how it ends."""

    spec: Mapping[str, Any]
    steps: Sequence[Step]
    ends: Callable[[JSON | None], bool]
    """Whether the session (None once it is gone) is as it will stay."""


def _finished(reason: str) -> Callable[[JSON | None], bool]:
    return lambda session: session is not None and condition(session, "Finished").get("reason") == reason


def _gone(session: JSON | None) -> bool:
    return session is None


def _stays(session: JSON | None) -> bool:
    return session is not None and condition(session, "Ready").get("status") == "True"


KINDS: Final[Mapping[str, Kind]] = {
    "task": Kind({}, [Step(_runs, _complete)], _finished("Completed")),
    "rejected": Kind({}, [Step(_runs, _complete)], _finished("Completed")),
    "evicted": Kind({}, [Step(_ready, _evict)], _finished("Failed")),
    "deleted": Kind({}, [Step(_ready, _delete)], _gone),
    "withdrawn": Kind({}, [Step(_waits, _delete)], _gone),
    "kept": Kind(
        {"className": CLASS},
        [Step(_ready, _suspend(True)), Step(_suspended, _suspend(False)), Step(_ready, _complete)],
        _finished("Completed"),
    ),
    "moved": Kind({"className": CLASS}, [Step(_ready, _evict), Step(_runs_again, _complete)], _finished("Completed")),
}
STAYING: Final = Kind({"mode": "Interactive"}, [], _stays)
"""The last session of some users: it holds its slot when the story ends."""


class Story:
    """The sessions of one run, and how far each has come."""

    def __init__(self, w: World) -> None:
        self._w = w
        self._kinds = {f"{kind}-{user}": KINDS[kind] for user in USERS for kind in KINDS}
        self._kinds |= {f"staying-{user}": STAYING for user in USERS[:2]}
        self._done = dict.fromkeys(self._kinds, 0)

    @property
    def size(self) -> int:
        """How many sessions there are."""
        return len(self._kinds)

    def begin(self) -> None:
        """Create all sessions, those that stay last."""
        self._w.node.rejects |= {name for name in self._kinds if name.startswith("rejected-")}
        for name, kind in self._kinds.items():
            self._w.create(name, user=name.split("-")[1], **kind.spec)

    def advance(self) -> list[str]:
        """Do what is due. What is missing to the end: sessions that still change, pods that are not released."""
        w = self._w
        pods = {_session_uid(item): item for item in w.pods() if _is_ours(item)}
        sessions = {item["metadata"]["name"]: item for item in w.api.get(sessions_path(w.namespace))["items"]}
        for name, session in sessions.items():
            self._act(name, session, pods.get(session["metadata"]["uid"]))
        missing = [f"session {name}" for name, kind in self._kinds.items() if not kind.ends(sessions.get(name))]
        kinds = {item["metadata"]["uid"]: self._kinds[name] for name, item in sessions.items()}
        return missing + [f"pod {pod['metadata']['name']}" for uid, pod in pods.items() if not _rests(pod, kinds.get(uid))]

    def _act(self, name: str, session: JSON, pod: JSON | None) -> None:
        steps = self._kinds[name].steps
        if self._done[name] < len(steps) and "deletionTimestamp" not in session["metadata"]:
            step = steps[self._done[name]]
            if step.when(session, pod):
                try:
                    step.act(self._w, session, pod)
                except Refused as refused:
                    if refused.code not in (404, 409):  # the pod went, or was replaced, since it was read
                        raise
                    return
                self._done[name] += 1

    def end(self) -> Mapping[str, JSON]:
        """How each session ended: its conditions, what it left in its status, and how many of its pods started an agent."""
        w = self._w
        state = w.history().end()
        started = [pod.session for pod in state.pods.values() if pod.started]
        result: dict[str, JSON] = {}
        for item in w.api.get(sessions_path(w.namespace))["items"]:
            status = item.get("status") or {}
            result[item["metadata"]["name"]] = {
                "conditions": {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions", [])},
                "outcome": (status.get("lastMessage"), condition(item, "Finished").get("message")),
                "lostPods": (status.get("lostPods") or {}).get("count"),
                "started": started.count(item["metadata"]["uid"]),
            }
        return result


def _session_uid(pod: JSON) -> str:
    return str(pod["metadata"]["labels"]["agentsession.dev/session-uid"])


def _rests(pod: JSON, kind: Kind | None) -> bool:
    """Whether a pod is as it will stay. One that has ended stays for its log; one without a session goes."""
    return kind is STAYING or (kind is not None and not pod["metadata"].get("finalizers"))


def _is_ours(pod: JSON) -> bool:
    return "agentsession.dev/session-uid" in (pod["metadata"].get("labels") or {})


def set_up(w: World) -> None:
    """The second quota, the class of the persistent sessions, and volumes for them: nobody provisions any here."""
    storage = {"type": "Persistent", "size": "1Gi", "storageClassName": w.namespace}
    spec = {"agent": {"model": "openai/none"}, "tolerations": [{"operator": "Exists"}], "workspace": storage}
    meta = {"apiVersion": "agentsession.dev/v1alpha1", "metadata": {"name": CLASS}}
    w.api.create(f"{GROUP}/agentsessionclasses", {**meta, "kind": "AgentSessionClass", "spec": spec})
    quota = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "SessionQuota", "metadata": {"name": "second"}}
    w.api.create(f"{GROUP}/sessionquotas", {**quota, "spec": {"maxSessions": SECOND_CAP, "maxSessionsPerUser": CAP}})
    for number in range(VOLUMES):
        volume = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": w.namespace,
            "hostPath": {"path": "/nowhere"},
        }
        w.api.create("/api/v1/persistentvolumes", {"metadata": {"name": f"{w.namespace}-{number}"}, "spec": volume})


def tear_down(w: World) -> None:
    """Remove what `set_up` made. The namespace goes with its world."""
    w.api.delete(f"{GROUP}/agentsessionclasses/{CLASS}")
    w.api.delete(f"{GROUP}/sessionquotas/second")
    for number in range(VOLUMES):
        w.api.delete(f"/api/v1/persistentvolumes/{w.namespace}-{number}")


def live(w: World, *, within: float) -> Story:
    """Live through the story, and restart the operator where it was killed. Fails after `within` seconds without an end."""
    story = Story(w)
    story.begin()

    def ended() -> bool:
        if not w.operator.is_alive:
            w.operator.start(ready=False)
        missing = story.advance()
        assert not missing, f"not yet as they will stay: {', '.join(missing)}"
        return True

    eventually(ended, within=within, what="the end of the story")
    return story
