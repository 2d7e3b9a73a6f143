"""`make bench-scale`: the operator with thousands of sessions, on a real API server with fake nodes (kwok), as a table.

For 1,000, 5,000 and 10,000 sessions that run, as many that wait (prompts of 4 KB), and 1 and 20 quotas that overlap:

1. Restart of the operator to its first admission, and its memory (RSS: at rest, and the peak since its start).
2. At rest for a minute: the operator's CPU and its writes.
3. A slot that becomes free to the next session's pod, as one watch sees both, and the time of an admission pass.
4. What one more session costs the operator: one that waits, and one that ends and whose slot is taken.

Before that, the admission by values (bench_admission.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bench import bench_admission  # noqa: E402 - after the path
from bench.bench_cluster import FAKE_NODES, cluster, install_kinds, percentile, usage  # noqa: E402
from bench.table import row, title  # noqa: E402
from support.api import GROUP, Api, Refused, pod_ended, session, sessions_path  # noqa: E402
from support.cluster import kind  # noqa: E402
from support.operator_process import OperatorProcess  # noqa: E402
from support.waiting import eventually  # noqa: E402

JSON = dict[str, Any]
NAME = "agentsession-bench-scale"
SIZES = (1_000, 5_000, 10_000)
QUOTAS = (1, 20)
TEAMS = 5
"""Namespaces. Each further quota counts two of them."""
USERS = 50
PROMPT = "Read the report, and say what is missing in it. " * 85
"""4 KB."""
APPLIERS = 8
FREED = 20
MORE = 50
MINUTE = 60.0
PLENTY = 1_000_000
META = {"apiVersion": "agentsession.dev/v1alpha1"}
SESSION_LABEL = "agentsession.dev/session-uid"


def team(number: int) -> str:
    return f"team-{number % TEAMS}"


def set_up(kubeconfig: Path) -> Api:
    api = install_kinds(kubeconfig)
    for number in range(TEAMS):
        api.create("/api/v1/namespaces", {"metadata": {"name": team(number), "labels": {"team": team(number)}}})
    for number in range(TEAMS):
        account = f"/api/v1/namespaces/{team(number)}/serviceaccounts/default"
        eventually(lambda account=account: _exists(api, account), what="the service account")  # type: ignore[misc]
    default = {"name": "default", "annotations": {"agentsession.dev/is-default-class": "true"}}
    spec = {"agent": {"model": "openai/none"}, "nodeSelector": {"type": "kwok"}, "tolerations": [{"operator": "Exists"}]}
    api.create(f"{GROUP}/agentsessionclasses", {**META, "kind": "AgentSessionClass", "metadata": default, "spec": spec})
    return api


def _exists(api: Api, path: str) -> bool:
    try:
        return bool(api.get(path))
    except Refused:
        return False


def set_quotas(api: Api, number: int, slots: int) -> None:
    """The first counts everybody, and is full. The others overlap, and are not."""
    plenty = {"maxSessionsPerUser": PLENTY, "maxWaiting": PLENTY, "maxWaitingPerUser": PLENTY}
    for each in range(max(QUOTAS)):
        name = f"q{each}"
        path = f"{GROUP}/sessionquotas/{name}"
        if each >= number:
            api.delete(path)
            continue
        teams = [team(each), team(each + 1 + each // TEAMS)]
        selector = {"matchExpressions": [{"key": "team", "operator": "In", "values": teams}]}
        scope: JSON = {"namespaceSelector": selector, "maxSessions": PLENTY} if each else {"maxSessions": slots}
        api.apply({**META, "kind": "SessionQuota", "metadata": {"name": name}, "spec": {**plenty, **scope}}, path)


def apply(api: Api, numbers: range) -> None:
    """Sessions by number; each user and each namespace has as many as the others."""

    def create(number: int) -> None:
        body = session(f"s{number}", user=f"user-{number % USERS}", mode="Interactive", prompt=PROMPT)
        api.create(sessions_path(team(number)), body)

    with ThreadPoolExecutor(APPLIERS) as appliers:
        list(appliers.map(create, numbers))


@dataclass
class Pods:
    """Session pods, as one watch of them sees them."""

    holders: dict[str, JSON] = field(default_factory=dict)
    """By UID, those that have not ended."""
    created: dict[str, float] = field(default_factory=dict)
    """When each was first seen."""
    ended: dict[str, float] = field(default_factory=dict)
    """When each was first seen to have ended, or to be gone."""

    def take(self, kind_of: str, pod: JSON) -> None:
        uid, now = pod["metadata"]["uid"], time.monotonic()
        self.created.setdefault(uid, now)
        if kind_of == "DELETED" or pod_ended(pod):
            self.ended.setdefault(uid, now)
            self.holders.pop(uid, None)
        else:
            meta = pod["metadata"]
            self.holders[uid] = {"namespace": meta["namespace"], "name": meta["annotations"]["agentsession.dev/session"]}


@contextmanager
def watched(api: Api) -> Iterator[Pods]:
    """A watch of the session pods, in a thread of its own."""
    pods, listed = Pods(), api.get("/api/v1/pods", labelSelector=SESSION_LABEL)
    for item in listed["items"]:
        pods.take("LISTED", item)
    query = {"labelSelector": SESSION_LABEL, "watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
    stream = api.stream("/api/v1/pods", timeoutSeconds="3600", **query)

    def read() -> None:
        with suppress(urllib3.exceptions.HTTPError):  # the API server ends before the watch does
            for line in stream:
                event = json.loads(line)
                pods.take(event["type"], event["object"])

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield pods


def free_slot(api: Api, pods: Pods) -> float:
    """Delete a session that holds a slot. Seconds from the end of its pod to the next session's pod."""
    uid, holder = next(iter(pods.holders.items()))
    before = set(pods.created)
    api.delete(sessions_path(holder["namespace"], holder["name"]))
    eventually(lambda: uid in pods.ended and len(pods.created) > len(before), within=60, what="the next session's pod")
    (new,) = set(pods.created) - before
    return max(0.0, pods.created[new] - pods.ended[uid])


def peak(pid: int) -> float:
    """The largest RSS that the process had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


class Passes:
    """The admission passes of an operator since this was made, from its metrics."""

    def __init__(self, operator: OperatorProcess) -> None:
        self._operator = operator
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        prefix = "agentsession_admission_pass_seconds_"
        lines = self._operator.get("/metrics")[1].splitlines()
        return {
            name.removeprefix(prefix): float(value)
            for name, _, value in (line.rpartition(" ") for line in lines)
            if name.startswith(prefix)
        }

    def figures(self) -> str:
        """Mean, and the buckets in which the median and the 99th percentile lie."""
        now = {name: value - self._before.get(name, 0.0) for name, value in self._read().items()}
        buckets = [(name.split('"')[1], value) for name, value in now.items() if name.startswith("bucket")]
        count = now["count"]

        def bound(share: float) -> str:
            edge = next(edge for edge, value in buckets if value >= share * count)
            return edge if edge == "+Inf" else f"{1000 * float(edge):g}"

        return f"{1000 * now['sum'] / count:.1f}, <= {bound(0.5)}, <= {bound(0.99)} ms"


def settled(operator: OperatorProcess, seconds: float = 5) -> None:
    """Wait until the operator has written what it has to say of each session: no write for so many seconds."""

    def quiet() -> bool:
        before = operator.writes()
        time.sleep(seconds)
        return operator.writes() == before

    eventually(quiet, within=1200, what="an operator with nothing to write")


def each(operator: OperatorProcess, number: int, rest: float, work: Callable[[], object]) -> str:
    """The operator's CPU and writes for each of `number` sessions that `work` changes. `rest` is its CPU at rest, seconds a
    second."""
    began, (cpu, _), before = time.monotonic(), usage(operator.pid), operator.writes()
    work()
    settled(operator, 3)
    spent = usage(operator.pid)[0] - cpu - rest * (time.monotonic() - began)
    written = sum(operator.writes().values()) - sum(before.values())
    return f"{1000 * spent / number:.0f} ms, {written / number:.1f} writes"


def measure(api: Api, operator: OperatorProcess, pods: Pods, waiting: range) -> None:
    """One size, with the quotas as they are. `waiting` are the numbers of the sessions that come in addition."""
    operator.stop()
    holder = next(iter(pods.holders.values()))
    api.delete(sessions_path(holder["namespace"], holder["name"]))  # so that the first thing to do is an admission
    before, began = len(pods.created), time.monotonic()
    operator.start()
    eventually(lambda: len(pods.created) > before, within=120, what="the first admission")
    row("start of the operator to its first admission", f"{time.monotonic() - began:.1f} s")
    settled(operator)
    (cpu, rss), writes, began = usage(operator.pid), operator.writes(), time.monotonic()
    row("memory at rest, peak since the start (RSS)", f"{rss:.0f} MB, {peak(operator.pid):.0f} MB")
    time.sleep(MINUTE)
    rest = (usage(operator.pid)[0] - cpu) / (time.monotonic() - began)
    row("at rest: CPU; writes", f"{1000 * rest:.0f} ms/s; {sum(operator.writes().values()) - sum(writes.values())} a minute")
    passes, freed = Passes(operator), list[float]()
    spent = each(operator, FREED, rest, lambda: freed.extend(free_slot(api, pods) for _ in range(FREED)))
    found = f"{1000 * statistics.median(freed):.0f} ms, {1000 * percentile(freed, 0.9):.0f} ms"
    row("a free slot to the next session's pod: p50, p90", found)
    row("an admission pass meanwhile: mean, p50, p99", passes.figures())
    row("one session that ends, and one that gets its slot", spent)
    passes = Passes(operator)
    row("one more session that waits", each(operator, len(waiting), rest, lambda: apply(api, waiting)))
    row("an admission pass meanwhile: mean, p50, p99", passes.figures())
    row("memory afterwards, peak since the start (RSS)", f"{usage(operator.pid)[1]:.0f} MB, {peak(operator.pid):.0f} MB")


def fill(api: Api, operator: OperatorProcess, pods: Pods, numbers: range, running: int) -> None:
    """More sessions, until so many run and all others know that they wait."""
    began, (cpu, _) = time.monotonic(), usage(operator.pid)
    apply(api, numbers)
    eventually(lambda: len(pods.holders) >= running, within=1800, what=f"{running} pods")
    settled(operator)
    spent, rss = (usage(operator.pid)[0] - cpu) / len(numbers), peak(operator.pid)
    print(
        f"filled in {time.monotonic() - began:.0f} s: {1000 * spent:.0f} ms of CPU each, {rss:.0f} MB at the peak", flush=True
    )


def main() -> None:
    """Measure the sizes that are given, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="SESSIONS", help="growing; default: %(default)s")
    parser.add_argument("--quotas", nargs="+", type=int, default=QUOTAS, help="default: %(default)s")
    parser.add_argument("--log", type=Path, help="where the operator's log stays")
    parser.add_argument("--no-values", action="store_true", help="leave the admission by values out")
    given = parser.parse_args()
    if not given.no_values:
        bench_admission.main()
    with cluster(NAME, "--control-plane-only") as kubeconfig, tempfile.TemporaryDirectory() as directory:
        kind("create", "fake-nodes", "--name", NAME, "--count", str(FAKE_NODES), "--pods", str(max(given.sizes)))
        api = set_up(kubeconfig)
        operator = OperatorProcess(kubeconfig, given.log or Path(directory) / "operator.log")
        set_quotas(api, 1, given.sizes[0])
        operator.start()
        try:
            with watched(api) as pods:
                applied = 0
                for size in given.sizes:
                    set_quotas(api, 1, size)
                    fill(api, operator, pods, range(applied, 2 * size), size)
                    applied = max(applied, 2 * size)
                    for number in given.quotas:
                        title(f"{size:,} sessions run, {size:,} wait, {number} quotas")
                        set_quotas(api, number, size)
                        measure(api, operator, pods, range(applied, applied + MORE))
                        applied += MORE
        finally:
            operator.stop()


if __name__ == "__main__":
    main()
