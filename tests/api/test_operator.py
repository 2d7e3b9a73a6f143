"""The operator as a process: it waits, comes back, tells its health, and uses no right that the chart does not give."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from support.api import Api, session, sessions_path
from support.kubelet import Kubelet
from support.operator_process import OperatorProcess
from support.waiting import eventually


def test_what_happened_while_it_was_away_is_caught_up(api: Api, operator: OperatorProcess, namespace: str) -> None:
    operator.kill()
    bodies = [api.create(sessions_path(namespace), session(f"s{number}", user=f"u{number}")) for number in range(5)]
    operator.start()
    kubelet = Kubelet(api, namespace)
    for body in bodies:
        kubelet.pod_of(body)


def test_it_stops_within_seconds_and_gives_the_lease_back(api: Api, operator: OperatorProcess) -> None:
    assert operator.stop() == 0
    lease = api.get("/apis/coordination.k8s.io/v1/namespaces/agentsession-system/leases/agentsession-operator")
    assert not lease["spec"].get("holderIdentity")


def test_it_is_denied_nothing_and_warns_of_nothing(api: Api, operator: OperatorProcess, namespace: str) -> None:
    body = api.create(sessions_path(namespace), session("plain"))
    kubelet = Kubelet(api, namespace)
    pod = kubelet.pod_of(body)
    kubelet.scheduled(pod)
    kubelet.ready(pod)
    eventually(
        lambda: api.get(sessions_path(namespace, "plain")).get("status", {}).get("phase") == "Running",
        what="the session to run",
    )
    log = operator.log.read_text()
    assert "Forbidden" not in log
    assert "forbidden" not in log
    # A young API server answers a list with 429 (its storage is being initialized); a relist corrects a slow watch.
    expected = (
        "WARNING agentsession_operator.cluster.resync: the watch",
        "WARNING agentsession_operator.cluster.resync: the first",
    )
    assert not [line for line in log.splitlines() if "WARNING" in line and not any(words in line for words in expected)]
    assert "Traceback" not in log


def test_a_silent_api_server_makes_it_wait_and_not_end(api: Api, operator: OperatorProcess, namespace: str) -> None:
    """The operator is frozen for longer than its lease lasts, as on a stalled node: it must notice before it writes."""
    os.kill(operator.pid, signal.SIGSTOP)
    try:
        body = api.create(sessions_path(namespace), session("later"))
    finally:
        os.kill(operator.pid, signal.SIGCONT)
    Kubelet(api, namespace).pod_of(body)


def test_a_missing_option_is_named() -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("RUNTIME_IMAGE", "REPORT_URL")}
    result = subprocess.run(
        [sys.executable, "-m", "agentsession_operator", "run"], capture_output=True, text=True, env=environment, timeout=60
    )
    assert result.returncode == 1
    assert "--runtime-image" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_cluster_is_named(tmp_path: object) -> None:
    command = [sys.executable, "-m", "agentsession_operator", "--kubeconfig", f"{tmp_path}/none", "token", "a/b"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr


def test_the_token_of_a_session(api: Api, operator: OperatorProcess, namespace: str) -> None:
    body = api.create(sessions_path(namespace), session("talks"))
    pod = Kubelet(api, namespace).pod_of(body)
    command = [sys.executable, "-m", "agentsession_operator", "--kubeconfig", str(api.kubeconfig)]
    result = subprocess.run([*command, "token", f"{namespace}/talks"], capture_output=True, text=True, timeout=60, check=True)
    token = result.stdout.strip()
    assert len(token) == 64
    assert token not in str(pod), "the pod carries its hash alone"
