"""What quotas do to sessions (reject, replace, hold) holds through faults: each is decided once, and no cap is exceeded."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from support.api import JSON, condition
from support.faults.quotas import caps_of
from support.faults.request import on, reserves, tells
from support.faults.rules import ANSWER, Answer, Drop, Hold, Reset, Rule, Step
from support.faults.table import Record
from support.faults.world import SCARCE, OpenWorld, World, overlapping
from support.quota import Quota
from support.reports import report_of, send, token_for

LONG_AGO = "2026-01-01T08:00:00Z"
CAPACITY = "Server is at capacity (1/1 sessions). Please try again later."


def told(w: World, name: str) -> str:
    """Admitted, or why not."""
    status, reason = w.condition(name, "Admitted")
    return "Admitted" if status == "True" else reason


def words(w: World, name: str, kind: str = "Admitted") -> str:
    return str(condition(w.read(name), kind).get("message", ""))


def delivered(w: World, quota: JSON) -> None:
    """Wait until the operator has been given this version of a quota."""
    name, version = quota["metadata"]["name"], int(quota["metadata"]["resourceVersion"])

    def is_there() -> bool:
        seen = [item.version for item in list(w.proxy.delivered) if (item.resource, item.name) == ("sessionquotas", name)]
        return any(one >= version for one in seen)

    w.until(is_there, "the quota's event")


def had_a_pod(w: World, name: str) -> bool:
    names = w.names()
    return any(names.get(uid) == name for uid in w.history().pods_ever())


def ready(w: World, name: str, user: str = "alice", **spec: str) -> JSON:
    """An interactive session's pod that runs."""
    w.create(name, user, mode="Interactive", **spec)
    w.until(lambda: w.condition(name, "Ready")[0] == "True", f"{name} ready")
    return next(pod for pod in w.all_pods() if pod["metadata"]["annotations"]["agentsession.dev/session"] == name)


def is_idle(w: World, name: str, pod: JSON, sequence: int = 1) -> None:
    """The session's pod reports that the agent waits for input."""
    body = w.read(name)
    token = token_for(w.api, pod["metadata"]["namespace"], pod)
    report = report_of(body, sequence, activity="Idle", last_activity_time=LONG_AGO)
    assert send(w.operator, body, token, report) == 204
    w.until(lambda: w.condition(name, "Active")[1] == "Idle", f"{name} idle")


def replacing(cap: int = 1) -> dict[str, JSON]:
    """The second of the three quotas is the tightest."""
    quotas = overlapping(10, 10)
    return {**quotas, "replacing": {**quotas["replacing"], "classNames": ["default", "faults-persistent"], "maxSessions": cap}}


def rejecting() -> dict[str, JSON]:
    """The third of the three quotas is the tightest."""
    quotas = overlapping(10, 10)
    return {**quotas, "rejecting": {**quotas["rejecting"], "maxSessions": 1}}


# Replaced sessions.


@pytest.mark.parametrize("kind", ["ephemeral", "persistent"])
def test_a_slot_left_while_the_operator_is_down_has_one_heir(
    open_world: OpenWorld, record: Record, persistent: str, kind: str
) -> None:
    w = open_world(quotas=replacing())
    w.node.confirms = False
    pod = ready(w, "old", **({"className": persistent} if kind == "persistent" else {}))
    is_idle(w, "old", pod)
    w.create("heir", user="bob")
    path = f"/api/v1/namespaces/{w.namespace}/pods/{pod['metadata']['name']}"
    w.until(lambda: "deletionTimestamp" in w.api.get(path)["metadata"], "the deletion of the pod that makes room")
    w.operator.kill()
    w.create("a-later-one", user="carol")
    w.kubelet.ended(pod)
    w.kubelet.gone(pod)
    w.operator.start(ready=False)
    w.comes(lambda: w.admitted("heir") and told(w, "a-later-one"), within=40)
    w.comes(lambda: w.admitted("a-later-one"), within=2)
    seen = f"heir {told(w, 'heir')}, later {told(w, 'a-later-one')}, old {told(w, 'old')}, {w.history().most_holders()} holder"
    wanted = "heir Admitted, later GlobalLimitReached, old Released, 1 holder"
    record(f"q a slot left while the operator is down ({kind})", wanted, seen, seen == wanted and not w.breaches())


def test_a_session_whose_reports_stop_is_replaced_by_no_new_operator(open_world: OpenWorld, record: Record) -> None:
    """It was idle, says an operator that is gone. Nobody knows what it does until it reports again."""
    w = open_world(quotas=replacing())
    pod = ready(w, "silent")
    is_idle(w, "silent", pod)
    w.operator.kill()
    w.create("new", user="bob")
    w.operator.start()
    w.until(lambda: w.waits("new"), "a word on the new session")
    replaced = w.comes(lambda: w.condition("silent", "Finished")[0] == "True", within=3)
    is_idle(w, "silent", pod, sequence=2)
    again = w.comes(lambda: w.admitted("new"), within=20)
    seen = f"{'replaced' if replaced else 'kept'}, then {told(w, 'new')}"
    record("q reports that stop", "kept, then Admitted", seen, not replaced and again and not w.breaches())


# Rejected sessions.


@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        ("never arrives", (Reset(), Drop())),
        ("arrives without an answer", (Reset(),)),
        ("answered 409", (Answer(409),)),
        ("answered 422", (Answer(422),)),
        ("answered 500", (Answer(500),)),
        ("carried out and answered 500", (Answer(500, at=ANSWER),)),
    ],
    ids=["lost", "unanswered", "conflict", "refused", "error", "denied"],
)
def test_a_rejection_is_decided_once(open_world: OpenWorld, record: Record, fault: str, steps: tuple[Step, ...]) -> None:
    """The slot is free by the time at which the rejection is written at last."""
    w = open_world(quotas=rejecting())
    ready(w, "scarce-held")
    finished = on("patch", "agentsessions/status", "scarce-late", where=tells("Finished", "True"))
    w.proxy.use(Rule(finished, Hold("first"), *steps, times=1), Rule(finished, *steps, times=2))
    w.create("scarce-late", user="bob")
    w.until(lambda: w.proxy.held("first") == 1, "the rejection under way")
    w.delete("scarce-held")
    w.until(lambda: not w.all_pods(), "the end of the holder's pod")
    w.create("scarce-next", user="carol")
    w.proxy.release("first")
    w.until(lambda: w.admitted("scarce-next"), "the slot's next holder")
    w.comes(lambda: w.condition("scarce-late", "Finished")[0] == "True", within=30)
    w.comes(lambda: had_a_pod(w, "scarce-late"), within=1)
    seen = f"{told(w, 'scarce-late')}, {'a' if had_a_pod(w, 'scarce-late') else 'no'} pod: {words(w, 'scarce-late')}"
    wanted = f"Rejected, no pod: {CAPACITY}"
    record(f"q a rejection that {fault}", wanted, seen, seen == wanted and not w.breaches())


# Quotas that change.


CHANGES: Mapping[str, tuple[JSON, JSON]] = {
    "cap lowered": ({"maxSessions": 4}, {"maxSessions": 2}),
    "selector changed": ({"maxSessions": 4, "classNames": ["other"]}, {"maxSessions": 2}),
    "held": ({"maxSessions": 4}, {"maxSessions": 4, "stopPolicy": "Hold"}),
    "drained": ({"maxSessions": 4}, {"maxSessions": 4, "stopPolicy": "HoldAndDrain"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_quota_that_changes_counts_the_creations_in_flight(open_world: OpenWorld, record: Record, change: str) -> None:
    before, after = CHANGES[change]
    quotas = {**overlapping(10, 10), "default": before}
    w = open_world(quotas=quotas, judged=False, start=False)
    w.proxy.use(Rule(reserves("early-*"), Hold("early")))
    for number in range(2):
        w.create(f"early-{number}", user=f"user-{number}")
    w.operator.start(ready=False)  # both are in one pass
    w.until(lambda: w.proxy.held("early") == 2, "two creations in flight")
    # Less than the operator waits for an answer (5 s).
    delivered(w, w.quota.write(**after))
    for number in range(3):
        w.create(f"late-{number}", user=f"late-{number}")
    w.until(lambda: w.proxy.has_delivered("agentsessions", "late-2"), "the sessions that came later")
    w.proxy.release("early")
    w.until(lambda: all(w.admitted(f"early-{number}") for number in range(2)), "the two in flight")
    w.until(lambda: all(told(w, f"late-{number}") for number in range(3)), "a word on those who came later")
    w.comes(lambda: w.history().most_holders() > 2, within=2)
    history = w.history()
    breaches = history.breaches(*caps_of({**quotas, "default": after}))
    reasons = {told(w, f"late-{number}") for number in range(3)}
    reason = "QuotaHeld" if "stopPolicy" in after else "GlobalLimitReached"
    seen = f"{history.most_holders()} hold, the others: {', '.join(sorted(reasons))}"
    wanted = f"2 hold, the others: {reason}"
    record(f"q {change} while creations are in flight", wanted, seen, seen == wanted and not breaches)


def test_a_namespace_relabeled_unseen_counts_from_the_next_list_on(open_world: OpenWorld, record: Record) -> None:
    w = open_world(quotas=rejecting())
    ready(w, "moved")
    watch = on("watch|list", "namespaces")
    w.until(lambda: w.proxy.watching("namespaces"), "the watch")
    w.proxy.use(Rule(watch, Hold("down")))
    w.proxy.close_watches("namespaces")
    w.until(lambda: w.proxy.held("down"), "the end of the watch")
    w.api.patch(f"/api/v1/namespaces/{w.namespace}", {"metadata": {"labels": SCARCE}})
    w.until(lambda: w.recorder.history.end().labels.get(w.namespace, {}).items() >= SCARCE.items(), "the new label")
    w.proxy.clear()
    w.proxy.release("down")

    def counted() -> bool:
        return bool(Quota(w.api, "rejecting").read().get("status", {}).get("used") == 1)

    w.until(counted, "the moved session's count")
    since = w.history().events[-1].version
    w.create("new", user="bob")
    w.create("scarce-new", user="carol")
    w.until(lambda: told(w, "new") and told(w, "scarce-new"), "a word on the new ones")
    breaches = w.history().breaches(*caps_of(w.quotas), since=since)
    seen = f"{told(w, 'moved')}, then {told(w, 'new')} and {told(w, 'scarce-new')}"
    wanted = "Admitted, then Rejected and Rejected"
    record("q a namespace relabeled while its watch is down", wanted, seen, seen == wanted and not breaches)
