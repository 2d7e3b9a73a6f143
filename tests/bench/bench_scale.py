"""`make bench-scale`: the operator with thousands of sessions that wait, on a real API server without nodes, as a table.

For 1,000, 5,000 and 10,000 waiting sessions with prompts of 4 KB:

1. Restart of the operator to its first admission, and its memory (RSS: at rest, and the peak since its start).
2. At rest for a minute: the operator's CPU and its writes.
3. A slot that becomes free to the next session's pod, and the time of an admission pass.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bench.bench_cluster import NAMESPACE, cluster, install_kinds, usage  # noqa: E402 - after the path
from bench.table import row, title  # noqa: E402
from support.api import GROUP, Api, pods_path, session, sessions_path  # noqa: E402
from support.operator_process import OperatorProcess  # noqa: E402
from support.waiting import eventually  # noqa: E402

JSON = dict[str, Any]
NAME = "agentsession-bench-scale"
SIZES = (1_000, 5_000, 10_000)
USERS = 50
PROMPT = "Read the report, and say what is missing in it. " * 85
"""4 KB."""
APPLIERS = 8
FREED = 10
MINUTE = 60.0


def set_up(kubeconfig: Path) -> Api:
    api = install_kinds(kubeconfig)
    meta = {"apiVersion": "agentsession.dev/v1alpha1"}
    default = {"name": "default", "annotations": {"agentsession.dev/is-default-class": "true"}}
    spec = {"agent": {"model": "openai/none"}}
    api.create(f"{GROUP}/agentsessionclasses", {**meta, "kind": "AgentSessionClass", "metadata": default, "spec": spec})
    quota = {"maxSessions": 1, "maxSessionsPerUser": 1}
    api.create(f"{GROUP}/sessionquotas", {**meta, "kind": "SessionQuota", "metadata": {"name": "one"}, "spec": quota})
    return api


def apply(api: Api, first: int, last: int) -> None:
    """Sessions by number; each user has as many as the others."""

    def create(number: int) -> None:
        body = session(f"s{number}", user=f"user-{number % USERS}", prompt=PROMPT)
        api.create(sessions_path(NAMESPACE), body)

    with ThreadPoolExecutor(APPLIERS) as appliers:
        list(appliers.map(create, range(first, last)))


def pods(api: Api) -> list[JSON]:
    return [item for item in api.get(pods_path(NAMESPACE))["items"] if "deletionTimestamp" not in item["metadata"]]


def free_slot(api: Api) -> float:
    """Delete the session that holds the slot. Seconds until another one has a pod."""
    (holder,) = pods(api)
    name = holder["metadata"]["annotations"]["agentsession.dev/session"]
    began = time.monotonic()
    api.delete(sessions_path(NAMESPACE, name))
    eventually(lambda: [pod for pod in pods(api) if pod["metadata"]["uid"] != holder["metadata"]["uid"]], within=30)
    return time.monotonic() - began


def peak(pid: int) -> float:
    """The largest RSS that the process had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def passes(operator: OperatorProcess) -> tuple[float, float]:
    """Number and seconds of all admission passes so far."""
    values = {}
    for line in operator.get("/metrics")[1].splitlines():
        name, _, value = line.partition(" ")
        values[name] = value
    name = "agentsession_admission_pass_seconds"
    return float(values[f"{name}_count"]), float(values[f"{name}_sum"])


def measure(api: Api, kubeconfig: Path, directory: Path, waiting: int) -> None:
    title(f"{waiting:,} sessions wait for one slot")
    operator = OperatorProcess(kubeconfig, directory / "operator.log")
    for pod in pods(api):  # so that the first thing to do is an admission
        api.delete(sessions_path(NAMESPACE, pod["metadata"]["annotations"]["agentsession.dev/session"]))
    began = time.monotonic()
    operator.start()
    try:
        eventually(lambda: pods(api), within=120, what="the first admission")
        row("start of the operator to its first admission", f"{time.monotonic() - began:.1f} s")
        settled(operator)
        (cpu, rss), writes = usage(operator.pid), operator.writes()
        row("memory at rest, peak since the start (RSS)", f"{rss:.0f} MB, {peak(operator.pid):.0f} MB")
        time.sleep(MINUTE)
        after = operator.writes()
        row("CPU at rest", f"{1000 * (usage(operator.pid)[0] - cpu) / MINUTE:.0f} ms a second")
        row("writes at rest", f"{sum(after.values()) - sum(writes.values())} a minute")
        count, seconds = passes(operator)
        freed = [free_slot(api) for _ in range(FREED)]
        row("a free slot to the next session's pod: median, most", f"{statistics.median(freed):.2f} s, {max(freed):.2f} s")
        more, longer = passes(operator)
        row("an admission pass meanwhile: mean", f"{1000 * (longer - seconds) / (more - count):.1f} ms")
    finally:
        operator.stop()


def settled(operator: OperatorProcess) -> None:
    """Wait until the operator has written what it has to say of each session: no write for five seconds."""

    def quiet() -> bool:
        before = operator.writes()
        time.sleep(5)
        return operator.writes() == before

    eventually(quiet, within=900, what="an operator with nothing to write")


def main() -> None:
    """Measure the sizes that are given, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="SESSIONS", help="growing; default: %(default)s")
    sizes = parser.parse_args().sizes
    with cluster(NAME, "--control-plane-only") as kubeconfig, tempfile.TemporaryDirectory() as directory:
        api = set_up(kubeconfig)
        applied = 0
        for size in sizes:
            apply(api, applied, size)
            applied = size
            measure(api, kubeconfig, Path(directory), size)


if __name__ == "__main__":
    main()
