"""Who holds a slot at every moment of a cluster's history, and whether the caps held. Pure: a fold over events.

All resources of a cluster that are kept in one etcd share its revisions, so events of sessions, pods and namespaces compare by
resourceVersion, and sorted by it they are what happened, in the order in which it happened. A holder is a session with a pod
of ours that has not ended (Succeeded, Failed, forced, or gone), or one whose status says Admitted=True. A pod holds its slot
even when its session is gone.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from support.api import pod_ended

JSON: TypeAlias = "Mapping[str, Any]"

SESSIONS: Final = "agentsessions"
PODS: Final = "pods"
NAMESPACES: Final = "namespaces"
UID_LABEL: Final = "agentsession.dev/session-uid"
USER_ANNOTATION: Final = "agentsession.dev/user"
FINALIZER: Final = "agentsession.dev/session"
FORGED: Final = "faults.test/forged"
"""The annotation by which a test marks the pods that it makes in the operator's name."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change of one object, or (`LISTED`) how it was when the record began."""

    version: int
    resource: str
    kind: Literal["LISTED", "ADDED", "MODIFIED", "DELETED"]
    body: JSON = field(compare=False)
    when: float = 0.0
    """`time.monotonic` of its arrival."""

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod of ours. Once it was ours it stays ours: its labels may be changed, its UID may not."""

    uid: str
    name: str
    namespace: str
    session: str
    """UID of its session."""
    user: str
    ended: bool = False
    gone: bool = False
    deleting: bool = False
    started: bool = False
    """Whether a container of the agent has ever run."""
    finalizer: bool = False

    @property
    def alive(self) -> bool:
        return not (self.ended or self.gone)


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """A session."""

    uid: str
    name: str
    namespace: str
    user: str
    class_name: str
    admitted: bool
    finished: bool
    persistent: bool
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """A session that holds a slot, whether or not it is still there."""

    session: str
    user: str
    namespace: str
    class_name: str | None
    """The class that it names; empty for the default one, None where the session was never seen: it may be any."""
    by: Literal["pod", "status", "both"]
    labels: Mapping[str, str] | None = None
    """Of its namespace; None where they are not known: a selector may select it."""


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `limit` holders in each group. `group` names a holder's; None where the cap does not concern it."""

    name: str
    limit: int
    group: Callable[[Holder], str | None]


def at_most(limit: int) -> Cap:
    """A cap on all sessions."""
    return Cap("all", limit, lambda _: "all")


def at_most_per_user(limit: int) -> Cap:
    """A cap on each user's sessions."""
    return Cap("per user", limit, lambda holder: holder.user)


@dataclass(frozen=True, slots=True)
class Breach:
    """An event that took a count above its cap."""

    version: int
    cap: str
    group: str
    count: int
    limit: int
    holders: tuple[str, ...]
    """UIDs of the sessions that are counted."""
    cause: str
    """The event."""


class State:
    """The cluster after some events."""

    def __init__(self, ours: Callable[[JSON], bool] | None = None) -> None:
        """`ours` says which pods the operator made; default: those with its label, but for the marked forgeries."""
        self._ours = ours or made_by_us
        self.sessions: dict[str, SessionSeen] = {}
        self.pods: dict[str, PodSeen] = {}
        self.labels: dict[str, Mapping[str, str]] = {}
        """By namespace. Those of one that is gone stay."""

    def apply(self, event: Event) -> None:
        """Take the next event in."""
        if event.resource == SESSIONS:
            self.sessions[event.uid] = replace(_session(event.body), gone=event.kind == "DELETED")
        elif event.resource == NAMESPACES:
            meta = event.body["metadata"]
            self.labels[meta["name"]] = meta.get("labels") or {}
        elif event.uid in self.pods or self._ours(event.body):
            self.pods[event.uid] = _pod(event, self.pods.get(event.uid))

    def holders(self) -> dict[str, Holder]:
        """Those who hold a slot, by the session's UID."""
        running = {pod.session: pod for pod in self.pods.values() if pod.alive}
        admitted = {uid for uid, session in self.sessions.items() if session.admitted and not session.gone}
        result = {}
        for uid in running.keys() | admitted:
            session, pod = self.sessions.get(uid), running.get(uid)
            by: Literal["pod", "status", "both"] = "status" if pod is None else "both" if uid in admitted else "pod"
            if session is not None:
                labels = self.labels.get(session.namespace)
                result[uid] = Holder(uid, session.user, session.namespace, session.class_name, by, labels)
            elif pod is not None:
                result[uid] = Holder(uid, pod.user, pod.namespace, None, by, self.labels.get(pod.namespace))
        return result

    def living_pods(self) -> dict[str, list[str]]:
        """Names of pods that have not ended, by the UID of their session."""
        result: defaultdict[str, list[str]] = defaultdict(list)
        for pod in self.pods.values():
            if pod.alive:
                result[pod.session].append(pod.name)
        return result


class History:
    """Events in the order in which they happened."""

    def __init__(self, events: Iterable[Event], ours: Callable[[JSON], bool] | None = None) -> None:
        self.events: Sequence[Event] = sorted(events, key=lambda event: (event.version, event.resource))
        self._ours = ours

    def states(self) -> Iterator[tuple[Event, State]]:
        """The state after each event. It is one object that changes: keep nothing of it."""
        state = State(self._ours)
        for event in self.events:
            state.apply(event)
            yield event, state

    def end(self) -> State:
        """The state after the last event."""
        state = State(self._ours)
        for event in self.events:
            state.apply(event)
        return state

    # Caps.

    def breaches(self, *caps: Cap, since: int = 0, until: float = math.inf) -> list[Breach]:
        """Every event that took a count above a cap, of those after the version `since` and up to the version `until`. One
        that leaves it there, or lowers it, is none; nor is a namespace's change of labels, which stops nobody."""
        result: list[Breach] = []
        before: list[Counter[str]] = [Counter() for _ in caps]
        for event, state in self.states():
            holders = state.holders().values()
            admits = event.kind != "LISTED" and event.resource != NAMESPACES
            for index, cap in enumerate(caps):
                counts = _count(holders, cap)
                for group, count in counts.items():
                    if count > cap.limit and count > before[index][group] and admits and since < event.version <= until:
                        counted = tuple(sorted(holder.session for holder in holders if cap.group(holder) == group))
                        result.append(Breach(event.version, cap.name, group, count, cap.limit, counted, _words(event)))
                before[index] = counts
        return result

    def most_holders(self, group: Callable[[Holder], str | None] = lambda _: "all") -> int:
        """The largest number of holders of one group at any event."""
        cap = Cap("", 0, group)
        return max((max(_count(state.holders().values(), cap).values(), default=0) for _, state in self.states()), default=0)

    # Pods.

    def pods_ever(self) -> dict[str, list[str]]:
        """Names of all pods that each session ever had, by its UID."""
        result: defaultdict[str, list[str]] = defaultdict(list)
        for pod in self.end().pods.values():
            result[pod.session].append(pod.name)
        return result

    def doubled(self) -> dict[str, int]:
        """Sessions that had two living pods at once: their UID, and the version at which the second appeared."""
        result: dict[str, int] = {}
        for event, state in self.states():
            for session, pods in state.living_pods().items():
                if len(pods) > 1:
                    result.setdefault(session, event.version)
        return result

    def orphans(self) -> list[str]:
        """Names of pods that live at the end though their session is gone, or was never there."""
        end = self.end()
        gone = {uid for uid, session in end.sessions.items() if session.gone}
        return sorted(
            pod.name
            for pod in end.pods.values()
            if pod.alive and not pod.deleting and (pod.session in gone or pod.session not in end.sessions)
        )

    def finalizers_left(self) -> list[str]:
        """Names of pods that have ended or are being deleted, and still carry our finalizer at the end."""
        pods = self.end().pods.values()
        return sorted(pod.name for pod in pods if pod.finalizer and not pod.gone and (pod.ended or pod.deleting))

    def started_twice(self) -> dict[str, list[str]]:
        """Ephemeral sessions with more than one pod whose agent started: their prompt ran twice."""
        end = self.end()
        started: defaultdict[str, list[str]] = defaultdict(list)
        for pod in end.pods.values():
            if pod.started:
                started[pod.session].append(pod.name)
        persistent = {uid for uid, session in end.sessions.items() if session.persistent}
        return {uid: names for uid, names in started.items() if len(names) > 1 and uid not in persistent}


def made_by_us(pod: JSON) -> bool:
    """Whether a pod carries the operator's label, and no test's mark."""
    meta = pod["metadata"]
    return UID_LABEL in (meta.get("labels") or {}) and FORGED not in (meta.get("annotations") or {})


def busiest(times: Iterable[tuple[object, float]], window: float = 1.0) -> dict[object, int]:
    """The most events of each key within any `window` seconds, from (key, time) pairs."""
    by_key: defaultdict[object, list[float]] = defaultdict(list)
    for key, when in times:
        by_key[key].append(when)
    result = {}
    for key, whens in by_key.items():
        whens.sort()
        first = most = 0
        for last, when in enumerate(whens):
            while when - whens[first] >= window:
                first += 1
            most = max(most, last - first + 1)
        result[key] = most
    return result


def _count(holders: Iterable[Holder], cap: Cap) -> Counter[str]:
    return Counter(group for holder in holders if (group := cap.group(holder)) is not None)


def _words(event: Event) -> str:
    meta = event.body["metadata"]
    return f"{event.kind} {event.resource} {meta.get('namespace', '')}/{meta['name']}"


def _session(body: JSON) -> SessionSeen:
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    conditions = {item["type"]: item["status"] for item in status.get("conditions") or ()}
    return SessionSeen(
        uid=meta["uid"],
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        user=spec.get("user", ""),
        class_name=spec.get("className", ""),
        admitted=conditions.get("Admitted") == "True",
        finished=conditions.get("Finished") == "True",
        persistent=bool(status.get("workspace")),
    )


def _pod(event: Event, before: PodSeen | None) -> PodSeen:
    meta, status = event.body["metadata"], event.body.get("status") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    return PodSeen(
        uid=meta["uid"],
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        session=before.session if before else labels.get(UID_LABEL, ""),
        user=before.user if before else annotations.get(USER_ANNOTATION, ""),
        ended=pod_ended(dict(event.body)),
        gone=event.kind == "DELETED",
        deleting="deletionTimestamp" in meta,
        started=_has_started(status) or (before is not None and before.started),
        finalizer=FINALIZER in (meta.get("finalizers") or ()),
    )


def _has_started(status: JSON) -> bool:
    for container in status.get("containerStatuses") or ():
        if container.get("name") != "agent":
            continue
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            if "running" in state or (state.get("terminated") or {}).get("startedAt"):
                return True
    return False
