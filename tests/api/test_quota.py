"""The quota at work: who runs, who waits, in which position, and why; never one too many, even across crashes."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from support.api import JSON, Api, condition, pods_path, session, sessions_path
from support.kubelet import Kubelet
from support.operator_process import OperatorProcess
from support.quota import Quota, watching
from support.waiting import eventually, throughout


def all_sessions(api: Api, namespace: str) -> dict[str, JSON]:
    return {item["metadata"]["name"]: item for item in api.get(sessions_path(namespace))["items"]}


def reasons(api: Api, namespace: str) -> dict[str, str]:
    return {name: condition(body, "Admitted").get("reason", "") for name, body in all_sessions(api, namespace).items()}


def reason(api: Api, namespace: str, name: str) -> str | None:
    return reasons(api, namespace).get(name)


def wait_for_reasons(api: Api, namespace: str, expected: dict[str, str], within: float = 20) -> None:
    def look() -> bool:
        found = reasons(api, namespace)
        assert {name: found.get(name) for name in expected} == expected
        return True

    eventually(look, within=within, what=str(expected))


def finish(api: Api, namespace: str, body: JSON) -> None:
    kubelet = Kubelet(api, namespace)
    report = f'{{"session_uid": "{body["metadata"]["uid"]}", "sequence": 1, "activity": "Idle", "outcome": "Completed"}}'
    kubelet.ended(kubelet.pod_of(body), report=report)


def test_the_global_cap_and_the_users_cap(api: Api, operator: OperatorProcess, namespace: str, quota: Quota) -> None:
    quota.set(3, 2)
    created = {}
    for name, user in (("a1", "alice"), ("a2", "alice"), ("a3", "alice"), ("b1", "bob"), ("b2", "bob"), ("c1", "carol")):
        created[name] = api.create(sessions_path(namespace), session(name, user=user))
        # One after the other, so that the order of arrival is plain; creation times have whole seconds.
        eventually(partial(reason, api, namespace, name), what=f"a word on {name}")
    wait_for_reasons(
        api,
        namespace,
        {
            "a1": "Admitted",
            "a2": "Admitted",
            "a3": "UserLimitReached",
            "b1": "Admitted",
            "b2": "GlobalLimitReached",
            "c1": "GlobalLimitReached",
        },
    )
    waiting = all_sessions(api, namespace)
    assert "maximum of 2 concurrent sessions" in condition(waiting["a3"], "Admitted")["message"]
    assert "all 3 slots are in use (SessionQuota default)" in condition(waiting["b2"], "Admitted")["message"]
    assert waiting["c1"]["status"]["phase"] == "Queued"
    assert waiting["c1"]["status"]["queue"]["position"] >= 1
    assert condition(waiting["c1"], "Ready")["reason"] == "GlobalLimitReached"

    # A free slot goes to the user with the fewest holders: carol, who has none, before bob, who came earlier.
    finish(api, namespace, created["a1"])
    wait_for_reasons(api, namespace, {"a1": "Released", "c1": "Admitted", "b2": "GlobalLimitReached"})
    quota.set(5, 2)
    wait_for_reasons(api, namespace, {"a3": "Admitted", "b2": "Admitted"})

    def counted() -> bool:
        status = quota.read().get("status", {})
        assert (status.get("used"), status.get("waiting")) == (5, 0)
        return True

    eventually(counted, within=15, what="the quota's status")


def test_a_deleted_session_frees_its_slot_when_its_pod_is_gone(
    api: Api, operator: OperatorProcess, namespace: str, quota: Quota
) -> None:
    quota.set(1, 1)
    first = api.create(sessions_path(namespace), session("first", user="alice"))
    kubelet = Kubelet(api, namespace)
    pod = kubelet.pod_of(first)
    kubelet.scheduled(pod)
    kubelet.ready(pod)
    api.create(sessions_path(namespace), session("second", user="bob"))
    wait_for_reasons(api, namespace, {"second": "GlobalLimitReached"})
    api.delete(sessions_path(namespace, "first"))
    eventually(
        lambda: "deletionTimestamp" in api.get(pods_path(namespace, pod["metadata"]["name"]))["metadata"],
        what="the pod's deletion",
    )

    def still_waits() -> None:
        assert reasons(api, namespace)["second"] == "GlobalLimitReached"

    throughout(still_waits, seconds=1.5)
    kubelet.gone(pod)
    wait_for_reasons(api, namespace, {"second": "Admitted"})


def test_a_slot_of_a_session_deleted_while_the_operator_was_away(
    api: Api, operator: OperatorProcess, namespace: str, quota: Quota
) -> None:
    quota.set(1, 1)
    first = api.create(sessions_path(namespace), session("first", user="alice"))
    kubelet = Kubelet(api, namespace)
    pod = kubelet.pod_of(first)
    kubelet.scheduled(pod)
    kubelet.ready(pod)
    operator.kill()
    api.call("DELETE", sessions_path(namespace, "first"), {"propagationPolicy": "Orphan"})
    api.create(sessions_path(namespace), session("second", user="bob"))
    operator.start()
    # The pod is found in the list of pods, counted though its session is gone, and deleted.
    wait_for_reasons(api, namespace, {"second": "GlobalLimitReached"})
    kubelet.gone(pod)
    wait_for_reasons(api, namespace, {"second": "Admitted"})


def test_never_one_too_many_through_bursts_and_kills(
    api: Api, operator: OperatorProcess, operator_kubeconfig: Path, tmp_path: Path, namespace: str, quota: Quota
) -> None:
    """70 sessions of 7 users through a cap of 10 while the operator is killed again and again."""
    quota.set(10, 3)
    kubelet = Kubelet(api, namespace)
    names = [f"s{number}" for number in range(70)]
    finished: set[str] = set()
    with watching(api, namespace, 10, 3) as broken:
        for number, name in enumerate(names):
            api.create(sessions_path(namespace), session(name, user=f"user-{number % 7}"))
            if number % 20 == 10:
                operator.kill()
                operator.start(ready=False)
        for round_number in range(100):
            current = all_sessions(api, namespace)
            for name, body in current.items():
                if condition(body, "Admitted").get("status") == "True" and name not in finished:
                    finish(api, namespace, body)
                    finished.add(name)
            if round_number in (2, 4):
                operator.kill()
                operator.start(ready=False)
            if len(finished) == len(names):
                break
            eventually(
                lambda: any(
                    condition(body, "Admitted").get("status") == "True" and name not in finished
                    for name, body in all_sessions(api, namespace).items()
                ),
                within=30,
                what=f"another admission after {len(finished)}",
            )
    assert not broken, broken[:5]
    assert finished == set(names)
    pods = api.get(pods_path(namespace))["items"]
    owners = Counter(pod["metadata"]["labels"]["agentsession.dev/session-uid"] for pod in pods)
    assert len(owners) == len(names), "every session had its pod"
    assert set(owners.values()) == {1}, "and only one"
    assert kubelet


def test_two_operators_do_not_admit_twice(
    api: Api, operator: OperatorProcess, operator_kubeconfig: Path, tmp_path: Path, namespace: str, quota: Quota
) -> None:
    quota.set(2, 2)
    second = OperatorProcess(operator_kubeconfig, tmp_path / "second.log", identity="another")
    second.start(ready=False)
    try:
        with watching(api, namespace, 2, 2) as broken:
            for number in range(6):
                api.create(sessions_path(namespace), session(f"s{number}", user=f"user-{number}"))
            eventually(lambda: list(reasons(api, namespace).values()).count("Admitted") == 2, what="two admissions")
            eventually(lambda: second.get("/readyz")[0] == 503, what="the second operator, which must not be ready")
            operator.stop()  # releases the lease
            eventually(second.is_ready, within=20, what="the second operator taking over")
            body = next(
                item for item in all_sessions(api, namespace).values() if condition(item, "Admitted")["status"] == "True"
            )
            finish(api, namespace, body)
            eventually(lambda: list(reasons(api, namespace).values()).count("Released") == 1, what="a release")
            eventually(lambda: list(reasons(api, namespace).values()).count("Admitted") == 2, what="the next admission")
        assert not broken, broken[:5]
    finally:
        second.stop()
