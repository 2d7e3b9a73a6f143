"""Who may create pods takes no slot, blocks nobody and speaks for no session; who edits a pod's labels frees none."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from agentsession_operator.api.names import pod_name
from support.api import JSON, Api, Refused, pods_path
from support.faults.judge import FORGED, UID_LABEL, at_most
from support.faults.table import Record
from support.faults.world import OpenWorld, World


def forger(w: World, namespace: str) -> Api:
    """Somebody with the rights of `edit` in a namespace."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory"}
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
    w.api.create(bindings, {"metadata": {"name": "mallory"}, "roleRef": role, "subjects": [subject]})
    mallory = w.api.impersonating("mallory")

    def may() -> bool:
        mallory.get(pods_path(namespace))
        return True

    w.until(may, "the forger's rights")
    return mallory


def forgery(session: str, uid: str, user: str, **spec: Any) -> JSON:
    """A pod with everything that can be computed of a session's pod."""
    return {
        "metadata": {
            "name": pod_name(session, uid),
            "labels": {"app.kubernetes.io/name": "agentsession", UID_LABEL: uid, "agentsession.dev/session": session},
            "annotations": {"agentsession.dev/session": session, "agentsession.dev/user": user, FORGED: ""},
        },
        "spec": {
            "nodeName": "nowhere",  # with a node, its deletion waits for a kubelet
            "containers": [{"name": "agent", "image": "agent"}],
            "terminationGracePeriodSeconds": 86400,
            "tolerations": [{"operator": "Exists"}],
            **spec,
        },
    }


def test_forged_pods_take_no_slots(open_world: OpenWorld, record: Record) -> None:
    w = open_world(cap=4)
    w.node.confirms = False  # a container may use its grace period of a day
    mallory, refused = forger(w, w.namespace), 0
    for number in range(8):
        try:
            mallory.create(pods_path(w.namespace), forgery("nobody", f"no-such-uid-{number}", "alice"))
        except Refused:
            refused += 1
    w.create("honest", user="alice")
    ok = w.comes(lambda: w.admitted("honest"), within=30)
    seen = f"{refused} of 8 forgeries refused, the honest session {'is' if ok else 'is not'} admitted"
    record("8 forged pods of sessions that do not exist", "the honest session is admitted", seen, ok)


def test_a_forged_pod_does_not_speak_for_a_session(open_world: OpenWorld, record: Record) -> None:
    """The forger makes the pod of a session that waits, before the operator does, and lets it end with an answer."""
    w = open_world(cap=1)
    w.create("first", user="bob")
    w.until(lambda: w.condition("first", "PodReady")[0] == "True", "the holder")
    victim = w.create("victim", user="alice")
    w.until(lambda: w.waits("victim"), "the victim's wait")
    uid = victim["metadata"]["uid"]
    w.operator.kill()  # else the forgery and the operator's answer to it would race
    with suppress(Refused):
        pod = forger(w, w.namespace).create(pods_path(w.namespace), forgery("victim", uid, "alice"))
        report = {"session_uid": uid, "sequence": 9, "activity": "Idle", "outcome": "Completed", "last_message": "forged"}
        w.kubelet.ended(pod, report=json.dumps(report))
    w.operator.start(ready=False)
    w.delete("first")
    spoken = w.comes(lambda: w.condition("victim", "Finished") == ("True", "Completed"), within=12.0)
    record(
        "8 a forged pod with an answer",
        "the victim is not completed by it",
        f"Completed: {w.read('victim').get('status', {}).get('lastMessage')}" if spoken else "it is not",
        not spoken,
    )


def test_forged_pods_in_another_namespace_take_nobodys_slots(open_world: OpenWorld, record: Record) -> None:
    """They name the victim as their user, and a session that does not exist."""
    w = open_world(per_user=2)
    other = f"{w.namespace}-forger"
    w.api.create("/api/v1/namespaces", {"metadata": {"name": other}})
    w.until(lambda: w.api.get(f"/api/v1/namespaces/{other}/serviceaccounts/default"), "the forger's namespace")
    mallory = forger(w, other)
    for number in range(2):
        with suppress(Refused):
            mallory.create(pods_path(other), forgery("nobody", f"uid-{number}", "alice"))
    w.create("victim", user="alice")
    ok = w.comes(lambda: bool(w.pods()), within=30)
    for pod in w.api.get(pods_path(other))["items"]:
        w.api.delete(pods_path(other, pod["metadata"]["name"]), grace=0)
    w.api.delete(f"/api/v1/namespaces/{other}")
    record("8 forged pods in another namespace", "the victim gets its pod", "it does" if ok else "it does not, in 30 s", ok)


def test_a_pod_without_its_label_keeps_its_slot(open_world: OpenWorld, record: Record) -> None:
    w = open_world(cap=1)
    w.create("first", user="alice")
    w.until(lambda: w.condition("first", "PodReady")[0] == "True", "the holder")
    w.create("second", user="bob")
    w.until(lambda: w.waits("second"), "the second session's wait")
    (pod,) = w.pods()
    mallory = forger(w, w.namespace)
    body = {"metadata": {"labels": {UID_LABEL: None, "agentsession.dev/session": None}}}
    with suppress(Refused):  # a policy that reserves the labels is an answer too
        mallory.patch(pods_path(w.namespace, pod["metadata"]["name"]), body)
    w.comes(lambda: w.admitted("second"), within=5.0)
    most, finished = w.history().most_holders(), w.condition("first", "Finished")
    ok = not w.history().breaches(at_most(1)) and finished[0] != "True"
    record("9 a label removed from a running pod", "1 holder, not finished", f"{most} holders, Finished={finished}", ok)
