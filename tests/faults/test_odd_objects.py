"""An object that cannot be read or decided concerns itself alone."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from support.api import GROUP, JSON, condition, pods_path, sessions_path
from support.faults.request import event, on, reserves, tells
from support.faults.rules import ANSWER, Alter, Answer, EventRule, Hold, Rule
from support.faults.table import Record
from support.faults.world import OpenWorld, World

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sessionquotas.agentsession.dev"


def judged(w: World, record: Record, fault: str) -> None:
    """The operator keeps running, also after a restart with the odd object in its first lists."""
    ok, seen = w.serves("next")
    if ok:
        w.operator.kill()
        w.operator.start(ready=False)
        ok, seen = w.serves("after-restart")
    record(fault, "the next session has its pod", seen, ok)


def running_pod(w: World, **spec: Any) -> JSON:
    """A session named odd, and its pod once it runs."""
    w.create("odd", **spec)
    w.until(lambda: w.condition("odd", "PodReady")[0] == "True", "a pod that runs")
    return next(pod for pod in w.pods() if pod["metadata"]["name"].startswith("odd"))


def test_an_exit_code_0_without_a_time(open_world: OpenWorld, record: Record) -> None:
    w = open_world()
    pod = running_pod(w)
    status = copy.deepcopy(pod["status"])
    status["containerStatuses"][0] |= {"ready": False, "state": {"terminated": {"exitCode": 0}}}
    w.api.patch(pods_path(w.namespace, pod["metadata"]["name"]) + "/status", {"status": status})
    judged(w, record, "6 exit code 0 without finishedAt")


def test_unschedulable_without_a_time(open_world: OpenWorld, record: Record) -> None:
    w = open_world()
    w.node.starts = False
    w.create("odd")
    pod = w.until(lambda: next(iter(w.pods()), None), "a pod")
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
    w.api.patch(pods_path(w.namespace, pod["metadata"]["name"]) + "/status", {"status": {"conditions": [condition]}})
    judged(w, record, "6 Unschedulable without lastTransitionTime")


@pytest.mark.parametrize(
    ("count", "time"),
    [
        (1_000_000, "%Y-%m-%dT%H:%M:%SZ"),
        (-5, "%Y-%m-%dT%H:%M:%SZ"),
        (1, "%Y-%m-%dt%H:%M:%Sz"),
        (1, "%Y-%m-%dT%H:%M:%S+99:99"),
    ],
    ids=["many", "negative", "lower-case", "offset"],
)
def test_a_hand_edited_count_of_lost_pods(
    open_world: OpenWorld, record: Record, persistent: str, count: int, time: str
) -> None:
    w = open_world()
    pod = running_pod(w, className=persistent)
    lost = {"count": count, "lastTime": datetime.now(UTC).strftime(time)}
    w.api.patch(sessions_path(w.namespace, "odd") + "/status", {"status": {"lostPods": lost}})
    w.api.delete(pods_path(w.namespace, pod["metadata"]["name"]))
    judged(w, record, f"6 status.lostPods {count} at {time}")


def test_a_quota_status_of_a_looser_schema(open_world: OpenWorld, record: Record) -> None:
    w = open_world()
    crd = w.api.get(CRD)
    versions = copy.deepcopy(crd["spec"]["versions"])
    loose = copy.deepcopy(versions)
    loose[0]["schema"]["openAPIV3Schema"]["properties"]["status"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    w.api.patch(CRD, {"spec": {"versions": loose}})
    try:
        odd = {"status": {"conditions": [{"kind": "Ready"}], "used": "many"}}

        def stored() -> bool:
            return bool(w.api.patch(w.quota.path + "/status", odd)["status"].get("conditions") == [{"kind": "Ready"}])

        w.until(stored, "an odd status")
    finally:
        w.api.patch(CRD, {"spec": {"versions": versions}})
    try:
        w.comes(lambda: not w.running(), within=7.0)  # the status of quotas is written every 5 s
        judged(w, record, "6 a quota status of a looser schema")
    finally:
        w.api.patch(w.quota.path + "/status", {"status": None})


@pytest.mark.parametrize("body", ["null", "{}", '"text"', "<html>proxy</html>", '{"metadata": {}}'])
@pytest.mark.parametrize("what", ["reservation", "pod", "status"])
def test_an_answer_that_is_not_the_object(open_world: OpenWorld, record: Record, what: str, body: str) -> None:
    w = open_world()
    when = {
        "reservation": reserves("odd"),
        "pod": on("create", "pods", "odd-*"),
        "status": on("patch", "agentsessions/status", "odd", where=tells("PodReady", "True")),
    }[what]
    code = 201 if what == "pod" else 200
    w.proxy.use(Rule(when, Answer(code, body=body, at=ANSWER), times=1))
    w.create("odd")
    w.until(lambda: w.proxy.seen(when), "the write")
    judged(w, record, f"6 a {code} answer that is {body} ({what})")


def test_a_class_that_becomes_unreadable_is_not_used_in_its_old_version(open_world: OpenWorld, record: Record) -> None:
    w = open_world()
    path = f"{GROUP}/agentsessionclasses/default"

    def unreadable(body: JSON) -> JSON:
        return {**body, "spec": {**body["spec"], "models": "all"}}

    w.until(lambda: w.proxy.watching("agentsessionclasses"), "the watch")
    w.proxy.use(EventRule(event("MODIFIED", "agentsessionclasses", "default"), Alter(unreadable), times=1))
    w.api.patch(path, {"spec": {"description": "A class that the operator reads as broken."}})
    w.until(lambda: w.proxy.has_delivered("agentsessionclasses", "default", "MODIFIED"), "the broken class")
    w.create("odd")
    w.comes(lambda: bool(w.pods()), within=3.0)
    said = condition(w.read("odd"), "Admitted")
    ok = said.get("reason") == "Misconfigured" and "cannot be read" in said.get("message", "") and not w.pods()
    record("11 a class that becomes unreadable", "Misconfigured, no pod", f"{said.get('reason')}, {len(w.pods())} pods", ok)


def test_an_operator_that_is_told_to_stop_writes_no_more_status(open_world: OpenWorld, record: Record) -> None:
    """SIGTERM while a status write has no answer: nothing follows it."""
    w = open_world()
    when = on("patch", "agentsessions/status", "odd")
    w.proxy.use(Rule(when, Hold("status")))
    w.create("odd")
    w.until(lambda: w.proxy.held("status") == 1, "a status write under way")
    code = w.operator.stop()
    w.proxy.release("status")
    w.comes(lambda: len(w.proxy.seen(when)) > 1, within=2.0)
    writes = len(w.proxy.seen(when))
    record("11 SIGTERM in a status write", "exit 0, 1 write", f"exit {code}, {writes} write", code == 0 and writes == 1)
