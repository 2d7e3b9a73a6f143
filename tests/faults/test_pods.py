"""What happens to pods, and what their sessions say of it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from session_runtime.reporting.report import termination_message
from session_runtime.wire import SessionReport
from support.api import JSON, Refused, condition, pods_path
from support.faults.judge import UID_LABEL, at_most
from support.faults.request import event
from support.faults.rules import Alter, EventRule
from support.faults.table import Record
from support.faults.world import OpenWorld, World
from support.operator_account import as_account


def pod_of(w: World, name: str) -> JSON:
    """The session's running pod."""

    def look() -> JSON | None:
        pods = [pod for pod in w.pods() if pod["metadata"]["annotations"].get("agentsession.dev/session") == name]
        return next((pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"), None)

    return w.until(look, f"the pod of {name}")


def ready(w: World, name: str) -> JSON:
    w.create(name)
    w.until(lambda: w.condition(name, "Ready")[0] == "True", "a session that is ready")
    return pod_of(w, name)


def words(w: World, name: str) -> str:
    """How the session ended, in its own words."""
    w.until(lambda: w.condition(name, "Finished")[0] == "True", "the end of the session", within=20)
    return str(condition(w.read(name), "Finished")["message"])


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("EvictionByEvictionAPI", "Eviction API: evicting"),
        ("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),
        ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
        ("TerminationByKubelet", "Pod was terminated in response to imminent node shutdown."),
    ],
)
def test_a_disrupted_session_says_what_took_its_pod(open_world: OpenWorld, record: Record, reason: str, message: str) -> None:
    w = open_world()
    pod = ready(w, "taken")
    w.kubelet.disrupted(pod, reason, message)
    w.api.delete(pods_path(w.namespace, pod["metadata"]["name"]))
    said = words(w, "taken")
    kind = w.condition("taken", "PodReady")[1]
    ok = message in said and "Apply the session again" in said and kind == "Evicted"
    record(f"12 {reason}", "Evicted, the message, what to do", f"{kind}: {said}", ok)


def test_an_evicted_session_says_so(open_world: OpenWorld, record: Record) -> None:
    w = open_world()
    w.kubelet.evicted(ready(w, "taken"), "The node was low on resource: memory.")
    said, kind = words(w, "taken"), w.condition("taken", "PodReady")[1]
    ok = "The node was low on resource: memory." in said and kind == "Evicted"
    record("12 evicted by the kubelet", "Evicted, the message, what to do", f"{kind}: {said}", ok)


def test_a_session_whose_pod_was_deleted_says_so(open_world: OpenWorld, record: Record) -> None:
    w = open_world()
    pod = ready(w, "taken")
    w.api.delete(pods_path(w.namespace, pod["metadata"]["name"]))
    said, kind = words(w, "taken"), w.condition("taken", "PodReady")[1]
    record(
        "12 a running pod deleted",
        "PodGone, what to do",
        f"{kind}: {said}",
        kind == "PodGone" and "Apply the session again" in said,
    )


def test_a_rejected_pod_is_created_again(open_world: OpenWorld, record: Record) -> None:
    w = open_world(cap=1)
    w.node.rejects.add("rejected")
    w.create("rejected")
    ok = w.comes(lambda: w.condition("rejected", "Ready")[0] == "True", within=30)
    history = w.history()
    record(
        "13 the kubelet rejects the pod: OutOfcpu",
        "a second pod is Ready, 1 holder",
        f"Ready={w.condition('rejected', 'Ready')}, {history.most_holders()} holder",
        ok and not history.breaches(at_most(1)),
    )


def test_a_pod_that_ended_before_anything_ran_is_created_again(open_world: OpenWorld, record: Record) -> None:
    w = open_world(cap=1)
    w.node.starts = False
    w.create("unstarted")
    first = w.until(lambda: next(iter(w.pods()), None), "a pod")
    w.kubelet.scheduled(first)
    w.node.starts = True
    w.kubelet.unstarted(first)
    ok = w.comes(lambda: w.condition("unstarted", "Ready")[0] == "True", within=30)
    record("13 a pod that ended before anything ran", "a second pod is Ready", f"{w.condition('unstarted', 'Ready')}", ok)


def test_a_termination_message_that_was_cut_says_how_it_ended(open_world: OpenWorld, record: Record) -> None:
    """Four containers share 12 KiB; with more, less than 3 KiB is left to each. The operator was away."""
    w = open_world()
    pod = ready(w, "cut")
    w.operator.kill()
    report = SessionReport(
        session_uid=w.read("cut")["metadata"]["uid"],
        sequence=9,
        activity="Idle",
        outcome="Completed",
        last_message="word " * 1_000,
    )
    w.kubelet.ended(pod, report=termination_message(report)[:1_024])
    w.operator.start(ready=False)
    ok = w.comes(lambda: w.condition("cut", "Finished") == ("True", "Completed"), within=30)
    record("15 a termination message cut at 1,024 bytes", "Completed", f"{w.condition('cut', 'Finished')}", ok)


def test_a_gated_pod_names_its_gates(open_world: OpenWorld, record: Record) -> None:
    w = open_world()
    w.node.starts = False

    def gated(pod: JSON) -> JSON:
        held = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "",
            "lastTransitionTime": None,
        }
        gates = [{"name": "kueue.x-k8s.io/admission"}]
        return {**pod, "spec": {**pod["spec"], "schedulingGates": gates}, "status": {"phase": "Pending", "conditions": [held]}}

    w.proxy.use(EventRule(event("ADDED|MODIFIED", "pods", "gated-*"), Alter(gated)))
    w.create("gated")
    w.comes(lambda: w.condition("gated", "PodReady")[1] == "SchedulingGated", within=30)
    found = condition(w.read("gated"), "PodReady")
    reason, said = found.get("reason"), found.get("message", "")
    ok = reason == "SchedulingGated" and "kueue.x-k8s.io/admission" in said
    record("16 a pod with a scheduling gate", "SchedulingGated, and the gate", f"{reason}: {said}", ok)


def test_our_marks_are_put_back_on_a_running_pod(open_world: OpenWorld, record: Record) -> None:
    w = open_world(cap=1)
    path = pods_path(w.namespace, ready(w, "marked")["metadata"]["name"])
    before = w.api.get(path)["metadata"]
    w.api.patch(path, {"metadata": {"labels": {"people": "own"}}})
    as_account(w.api).patch(path, {"metadata": {"labels": {UID_LABEL: None}, "annotations": {"agentsession.dev/user": None}}})

    def back() -> bool:
        meta = w.api.get(path)["metadata"]
        return bool(meta["labels"] == {**before["labels"], "people": "own"} and meta["annotations"] == before["annotations"])

    ok = w.comes(back, within=30)
    record("9 label and annotation removed", "both are put back, Ready", f"{w.condition('marked', 'Ready')}", ok)


def test_a_pod_without_its_session_is_named_in_the_quota(open_world: OpenWorld, record: Record) -> None:
    """Its node is down, so the pod cannot end."""
    w = open_world(cap=1)
    name = ready(w, "left")["metadata"]["name"]
    w.node.confirms = False
    w.delete("left", propagationPolicy="Orphan")
    w.create("next", user="bob")

    def named() -> bool:
        return bool(w.quota.read().get("status", {}).get("podsWithoutSession") == [f"{w.namespace}/{name}"])

    ok = w.comes(named, within=30)
    waits = w.waits("next")
    logged = f"pods that hold a slot without their session: {w.namespace}/{name}" in w.operator.log.read_text()
    seen = str(w.quota.read().get("status", {}).get("podsWithoutSession"))
    with suppress(Refused):
        w.kubelet.gone(w.api.get(pods_path(w.namespace, name)))
    record("8 a slot held without a session", "named in the quota and the log", seen, ok and waits and logged)
