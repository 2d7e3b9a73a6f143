"""The story: 43 sessions under three quotas that overlap; each lives through what its kind says.

What happens to a session of the first act depends on that session alone. In the second, sessions arrive where there is no room
and will be none: two take the places of the only two that are idle, and two are turned away by a quota that two others fill to
the end. So the end of the story is the same in any order of events, and with any crash of the operator in between. People,
kubelet and node are played here; they act once, on what they see. The idle ones report all the time, as their runtimes do.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from support.api import GROUP, JSON, Refused, condition, sessions_path
from support.faults.world import SCARCE, World
from support.reports import report_of, send, token_for
from support.waiting import eventually

USERS: Final = ("alice", "bob", "carol", "dave", "erin")
CLASS: Final = "crash-persistent"
IDLE, IDLE_KEPT = "crash-idle", "crash-idle-kept"
"""Classes whose sessions give way: the first is ephemeral."""
VOLUMES: Final = 2 * len(USERS) + 1
QUOTAS: Final[Mapping[str, JSON]] = {
    # Of these ten slots, four are held to the end, by those who are seated and by those who rest or come in their place.
    "default": {"maxSessions": 10, "maxSessionsPerUser": 2},
    "replacing": {
        "classNames": [IDLE, IDLE_KEPT],
        "maxSessions": 2,
        "maxSessionsPerUser": 2,
        "whenFull": "ReplaceOldestIdle",
    },
    "rejecting": {
        "namespaceSelector": {"matchLabels": SCARCE},
        "maxSessions": 2,
        "maxSessionsPerUser": 1,
        "whenFull": "Reject",
    },
}
LONG_AGO: Final = "2026-01-01T08:00:00Z"
REPORT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody does once a session is in a state."""

    when: Callable[[JSON, JSON | None], bool]
    """Whether the time has come, by the session and its pod."""
    act: Callable[[World, JSON, JSON | None], None]


def _reason(session: JSON, kind: str) -> str:
    return str(condition(session, kind).get("reason", ""))


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
    stays: bool = False
    """Whether it holds its slot when the story ends."""
    idle: bool = False
    """Whether its agent waits for input, and says so."""


def _finished(reason: str) -> Callable[[JSON | None], bool]:
    return lambda session: session is not None and condition(session, "Finished").get("reason") == reason


def _gone(session: JSON | None) -> bool:
    return session is None


def _replaced(session: JSON | None) -> bool:
    return session is not None and _reason(session, "Suspended") == "Replaced"


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
INTERACTIVE: Final = {"mode": "Interactive"}
SEATED: Final = Kind(INTERACTIVE, [], _stays, stays=True)
RESTING: Final = Kind({**INTERACTIVE, "className": IDLE}, [], _finished("Replaced"), idle=True)
RESTING_KEPT: Final = Kind({**INTERACTIVE, "className": IDLE_KEPT}, [], _replaced, idle=True)
COMING: Final = Kind({**INTERACTIVE, "className": IDLE}, [], _stays, stays=True)
TURNED_AWAY: Final = Kind(INTERACTIVE, [], _finished("Rejected"))
FIRST_ACT: Final[Mapping[str, Kind]] = {
    "scarce-seated-kim": SEATED,
    "scarce-seated-lee": SEATED,
    "resting-noa": RESTING,
    "resting-kept-ola": RESTING_KEPT,
    **{f"{kind}-{user}": KINDS[kind] for user in USERS for kind in KINDS},
}
SECOND_ACT: Final[Mapping[str, Kind]] = {
    "coming-pia": COMING,
    "coming-quin": COMING,
    "scarce-turned-kim": TURNED_AWAY,
    "scarce-turned-mia": TURNED_AWAY,
}
"""Begins when the scarce quota is full and both that rest are known to be idle."""


class Story:
    """The sessions of one run, and how far each has come."""

    def __init__(self, w: World) -> None:
        self._w = w
        self._kinds = {**FIRST_ACT, **SECOND_ACT}
        self._done = dict.fromkeys(self._kinds, 0)
        self._to_come = list(SECOND_ACT)
        self._tokens: dict[str, str] = {}
        self._sequence = 0
        self._reported = 0.0

    @property
    def size(self) -> int:
        """How many sessions there are."""
        return len(self._kinds)

    def begin(self) -> None:
        """Create the sessions of the first act."""
        self._w.node.rejects |= {name for name in FIRST_ACT if name.startswith("rejected-")}
        for name in FIRST_ACT:
            self._create(name)

    def _create(self, name: str) -> None:
        self._w.create(name, name.rsplit("-", 1)[1], **self._kinds[name].spec)

    def advance(self) -> list[str]:
        """Do what is due. What is missing to the end: sessions that still change, pods that are not released."""
        w = self._w
        pods = {_session_uid(item): item for item in w.all_pods() if _is_ours(item)}
        sessions = {item["metadata"]["name"]: item for item in w.sessions()}
        for name, session in sessions.items():
            self._act(name, session, pods.get(session["metadata"]["uid"]))
        self._report(sessions, pods)
        if self._to_come and _second_act_is_due(sessions):
            while self._to_come:
                self._create(self._to_come.pop(0))
        missing = [f"session {name}" for name, kind in self._kinds.items() if not kind.ends(sessions.get(name))]
        kinds = {item["metadata"]["uid"]: self._kinds[name] for name, item in sessions.items()}
        return missing + [f"pod {pod['metadata']['name']}" for uid, pod in pods.items() if not _rests(pod, kinds.get(uid))]

    def _report(self, sessions: Mapping[str, JSON], pods: Mapping[str, JSON]) -> None:
        """Those that rest say so, every second: an operator that has started knows nothing of them before."""
        if time.monotonic() - self._reported < REPORT_SECONDS:
            return
        self._reported = time.monotonic()
        for name, session in sessions.items():
            pod = pods.get(session["metadata"]["uid"])
            if self._kinds[name].idle and pod is not None and _runs(session, pod):
                self._sequence += 1
                report = report_of(session, self._sequence, activity="Idle", last_activity_time=LONG_AGO)
                with contextlib.suppress(OSError):  # nobody listens: the operator was killed, or starts
                    send(self._w.operator, session, self._token(pod), report)

    def _token(self, pod: JSON) -> str:
        uid = pod["metadata"]["uid"]
        if uid not in self._tokens:
            self._tokens[uid] = token_for(self._w.api, self._w.namespace, pod)
        return self._tokens[uid]

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
        for item in w.sessions():
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


def _second_act_is_due(sessions: Mapping[str, JSON]) -> bool:
    def is_due(name: str, kind: Kind) -> bool:
        session = sessions.get(name, {})
        return condition(session, "Ready").get("status") == "True" and (not kind.idle or _reason(session, "Active") == "Idle")

    return all(is_due(name, kind) for name, kind in FIRST_ACT.items() if kind.stays or kind.idle)


def _rests(pod: JSON, kind: Kind | None) -> bool:
    """Whether a pod is as it will stay. One that has ended stays for its log; one without a session goes."""
    return kind is not None and (kind.stays or not pod["metadata"].get("finalizers"))


def _is_ours(pod: JSON) -> bool:
    return "agentsession.dev/session-uid" in (pod["metadata"].get("labels") or {})


def _classes(w: World) -> Iterator[JSON]:
    model = {"agent": {"model": "openai/none"}, "tolerations": [{"operator": "Exists"}]}
    storage = {"type": "Persistent", "size": "1Gi", "storageClassName": w.namespace}
    for name, rest in ((CLASS, {"workspace": storage}), (IDLE, {}), (IDLE_KEPT, {"workspace": storage})):
        meta = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "AgentSessionClass", "metadata": {"name": name}}
        yield {**meta, "spec": {**model, **rest}}


def set_up(w: World) -> None:
    """The classes, and volumes for those that are persistent: nobody provisions any here."""
    for session_class in _classes(w):
        w.api.create(f"{GROUP}/agentsessionclasses", session_class)
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
    for session_class in _classes(w):
        w.api.delete(f"{GROUP}/agentsessionclasses/{session_class['metadata']['name']}")
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
