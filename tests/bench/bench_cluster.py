"""`make bench`: the operator measured on real clusters, as a table. Ratios within one run count; a busy machine moves the rest.

1. Apply to Ready, 20 sessions one after the other, beside the same pod applied bare, on a cluster with a kubelet.
2. Writes to the API server for one session, from the API server's own metrics.
3. The session pod: container start to ready, memory when idle.
4. 1,000 sessions on fake nodes (kwok) beside 1,000 bare pods of the same spec: how many a second, the operator's and the API
   server's CPU, the operator's writes and memory, and where the operator's CPU goes.
5. Sizes of the images.
"""

from __future__ import annotations

import argparse
import os
import pstats
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bench.table import row, title  # noqa: E402 - after the path
from support.api import GROUP, Api, Refused, condition, pods_path, session, sessions_path  # noqa: E402
from support.cluster import kind  # noqa: E402
from support.installation import Kubectl, build_images, install, load_images  # noqa: E402
from support.operator_process import OperatorProcess  # noqa: E402
from support.waiting import eventually  # noqa: E402

JSON = dict[str, Any]
NAMESPACE = "bench"
ROUNDS = 20
SCALE = 1000
PROFILED = 200
FAKE_NODES = 20
APPLIERS = 8


def seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


@contextmanager
def cluster(name: str, *options: str) -> Iterator[Path]:
    """A cluster for the length of the benchmark."""
    kubeconfig = Path(tempfile.mkdtemp()) / "kubeconfig"
    kind("delete", "cluster", "--name", name)
    kind("create", "cluster", "--name", name, "--kubeconfig", str(kubeconfig), *options)
    try:
        yield kubeconfig
    finally:
        kind("delete", "cluster", "--name", name)


def make_namespace(api: Api) -> None:
    api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    eventually(lambda: _exists(api, f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"), what="the service account")


def install_kinds(kubeconfig: Path) -> Api:
    """The operator's kinds and a namespace for the benchmark, without the operator."""
    api, kubectl = Api(kubeconfig), Kubectl(kubeconfig)
    objects = [item for item in yaml.safe_load_all((ROOT / "manifests/install.yaml").read_text()) if item]
    wanted = [item for item in objects if item["kind"] in ("CustomResourceDefinition", "Namespace")]
    kubectl("apply", "--server-side", "-f", "-", text=yaml.safe_dump_all(wanted))
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    make_namespace(api)
    return api


def _exists(api: Api, path: str) -> bool:
    try:
        return bool(api.get(path))
    except Refused:
        return False


def gone(api: Api, pod: str) -> None:
    """Wait until a pod is gone."""
    eventually(lambda: not _exists(api, pods_path(NAMESPACE, pod)), within=60, what=f"the end of pod {pod}")


def is_true(body: JSON, kind_of: str) -> bool:
    return bool(condition(body, kind_of).get("status") == "True")


_WRITES = re.compile(r"apiserver_request_total\{(.*)\} (\S+)")


def writes(api: Api) -> Counter[tuple[str, str]]:
    """Writes that the API server has counted, by verb and resource (with subresource)."""
    counted: Counter[tuple[str, str]] = Counter()
    for line in str(api.call("GET", "/metrics")).splitlines():
        if match := _WRITES.match(line):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[1]))
            if labels["verb"] in ("POST", "PUT", "PATCH", "APPLY", "DELETE"):
                resource = labels["resource"] + (f"/{labels['subresource']}" if labels["subresource"] else "")
                counted[labels["verb"], resource] += int(float(match[2]))
    return counted


def latency(api: Api) -> None:
    """Apply to Ready of a session and of the same pod without an operator, turn by turn so that both see the same machine."""
    title(f"Apply to Ready, {ROUNDS} one after the other")
    ours: list[float] = []
    bare: list[float] = []
    for number in range(ROUNDS):
        name = f"s{number}"
        path = sessions_path(NAMESPACE, name)

        def run(name: str = name, path: str = path) -> None:
            body = session(name, user="bench", mode="Interactive")
            del body["spec"]["prompt"]  # nothing to work on: the model's work would slow the next one's start
            api.create(sessions_path(NAMESPACE), body)
            eventually(lambda: is_true(api.get(path), "Ready"), within=60, what="Ready")

        ours.append(seconds(run))
        pod = api.get(pods_path(NAMESPACE, api.get(path)["status"]["podName"]))
        api.delete(path)
        gone(api, pod["metadata"]["name"])
        twin = bare_twin(pod)

        def run_bare(twin: JSON = twin) -> None:
            api.create(pods_path(NAMESPACE), twin)
            eventually(lambda: is_true(api.get(pods_path(NAMESPACE, "bare")), "Ready"), within=60, what="Ready")

        bare.append(seconds(run_bare))
        api.delete(pods_path(NAMESPACE, "bare"))
        gone(api, "bare")
    for what, values in (("session", ours), ("bare pod of the same containers", bare)):
        row(f"{what}: p50, p90", f"{statistics.median(values):.2f} s, {percentile(values, 0.9):.2f} s")
    row("ratio of the medians", f"{statistics.median(ours) / statistics.median(bare):.2f}")


def bare_twin(pod: JSON) -> JSON:
    """The session's pod as anybody could have applied it."""
    spec = {key: value for key, value in pod["spec"].items() if key not in ("nodeName", "serviceAccountName", "serviceAccount")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": NAMESPACE}, "spec": spec}


def writes_of_one(api: Api) -> None:
    """The API server's own count around one session, all components together."""
    title("Writes to the API server for one Task (kubelet and scheduler included)")
    path = sessions_path(NAMESPACE, "counted")
    before = writes(api)
    api.create(sessions_path(NAMESPACE), session("counted", user="bench", prompt="Write a long story about a lighthouse."))
    eventually(lambda: is_true(api.get(path), "Ready"), within=60, what="Ready")
    at_ready = writes(api)
    eventually(lambda: is_true(api.get(path), "Finished"), within=180, what="Finished")
    at_end = writes(api)
    for moment, after in (("up to Ready", at_ready), ("in all", at_end)):
        for (verb, resource), number in sorted((after - before).items()):
            if not resource.startswith("leases") and resource not in ("selfsubjectaccessreviews", "sessionquotas/status"):
                row(f"{moment}: {verb} {resource}", str(number))
    api.delete(path)


def session_pod(api: Api, kubectl: Kubectl) -> None:
    """Container start to ready, from the pod's own status, and memory, from /proc in the containers."""
    title("The session pod")
    path = sessions_path(NAMESPACE, "idle")
    api.create(sessions_path(NAMESPACE), session("idle", user="bench", mode="Interactive", prompt="Say hello."))
    eventually(lambda: api.get(path).get("status", {}).get("phase") == "Idle", within=120, what="Idle")
    pod = api.get(pods_path(NAMESPACE, api.get(path)["status"]["podName"]))
    started = next(
        item["state"]["running"]["startedAt"] for item in pod["status"]["containerStatuses"] if item["name"] == "agent"
    )
    ready = next(item["lastTransitionTime"] for item in pod["status"]["conditions"] if item["type"] == "Ready")
    gap = datetime.fromisoformat(ready) - datetime.fromisoformat(started)
    row("agent container started to pod Ready (whole seconds of the kubelet)", f"{gap.total_seconds():.0f} s")
    for name in ("agent", "workspace"):
        status = kubectl("-n", NAMESPACE, "exec", pod["metadata"]["name"], "-c", name, "--", "cat", "/proc/1/status")
        memory = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        row(f"memory of {name} when idle after its first turn (RSS)", f"{int(memory) / 1024:.0f} MB")
    api.delete(path)


def scale(kubeconfig: Path) -> None:
    """1,000 sessions at once on fake nodes, the operator as a process of this machine."""
    title(f"The operator with {SCALE:,} sessions on {FAKE_NODES} fake nodes (kwok)")
    api = install_kinds(kubeconfig)
    meta = {"apiVersion": "agentsession.dev/v1alpha1"}
    spec: JSON = {"maxSessions": 2 * SCALE, "maxSessionsPerUser": 2 * SCALE}
    api.create(f"{GROUP}/sessionquotas", {**meta, "kind": "SessionQuota", "metadata": {"name": "all"}, "spec": spec})
    spec = {"agent": {"model": "openai/none"}, "nodeSelector": {"type": "kwok"}}
    spec["tolerations"] = [{"operator": "Exists"}]
    default = {"name": "default", "annotations": {"agentsession.dev/is-default-class": "true"}}
    api.create(f"{GROUP}/agentsessionclasses", {**meta, "kind": "AgentSessionClass", "metadata": default, "spec": spec})
    with tempfile.TemporaryDirectory() as directory:
        operator = OperatorProcess(kubeconfig, Path(directory) / "operator.log")
        operator.start()
        try:
            server = server_pid("agentsession-scale")
            bare_rate = burst_of_bare_pods(api, server, one_pod(api))
            before = operator.writes()
            idle, quiet = usage(operator.pid), usage(server)

            def apply(number: int) -> None:
                body = session(f"s{number}", user=f"user-{number % 50}", mode="Interactive", prompt="Hello")
                api.create(sessions_path(NAMESPACE), body)

            elapsed = all_ready(api, sessions_path(NAMESPACE), apply)
            busy, served = usage(operator.pid), usage(server)
            row("sessions: all Ready after", f"{elapsed:.1f} s ({SCALE / elapsed:.0f}/s)")
            row("ratio to the bare pods' rate", f"{SCALE / elapsed / bare_rate:.2f}")
            row("sessions: API server's CPU", f"{1000 * (served[0] - quiet[0]) / SCALE:.1f} ms each")
            row("sessions: operator's CPU", f"{1000 * (busy[0] - idle[0]) / SCALE:.1f} ms each")
            row("operator: memory before, after (RSS)", f"{idle[1]:.0f} MB, {busy[1]:.0f} MB")
            for (method, resource), number in sorted(operator.writes().items()):
                row(
                    f"operator: {method} {resource}, per session", f"{(number - before.get((method, resource), 0)) / SCALE:.2f}"
                )
        finally:
            operator.stop()
        profile(api, kubeconfig, Path(directory))


def profile(api: Api, kubeconfig: Path, directory: Path) -> None:
    """Where the operator's own CPU time goes: by package, under cProfile, which slows it down."""
    title(f"The operator's CPU by package, {PROFILED} more sessions (cProfile: shares count, not times)")
    statistics_file = directory / "profile"
    operator = OperatorProcess(kubeconfig, directory / "profiled.log", profile=statistics_file)
    operator.start()

    def apply(number: int) -> None:
        body = session(f"p{number}", user=f"user-{number % 50}", mode="Interactive", prompt="Hello")
        api.create(sessions_path(NAMESPACE), body)

    try:
        with ThreadPoolExecutor(APPLIERS) as appliers:
            list(appliers.map(apply, range(PROFILED)))
        path = sessions_path(NAMESPACE)
        names = {f"p{number}" for number in range(PROFILED)}

        def ready() -> bool:
            items = api.get(path, resourceVersion="0")["items"]
            return names <= {item["metadata"]["name"] for item in items if is_true(item, "Ready")}

        eventually(ready, within=300, what="the sessions that are profiled")
    finally:
        operator.stop()
    spent: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, _) in pstats.Stats(str(statistics_file)).stats.items():  # type: ignore[attr-defined]
        spent[package(file, name)] += round(own * 1000)
    waited = spent.pop("waiting", 0)
    row("waiting for the network (left out)", f"{waited / 1000:.1f} s")
    for name, milliseconds in spent.most_common(12):
        row(name, f"{100 * milliseconds / spent.total():.0f} %")


def package(file: str, function: str) -> str:
    """What a function belongs to: our room, a library, or the interpreter."""
    if "poll" in function and file == "~":
        return "waiting"
    parts = Path(file).parts
    if "agentsession_operator" in parts:
        return f"ours: {parts[parts.index('agentsession_operator') + 1].removesuffix('.py')}"
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return (
        "built-in functions"
        if file == "~"
        else f"standard library: {Path(file).parent.name if len(parts) > 5 else Path(file).stem}"
    )


def all_ready(api: Api, path: str, apply: Callable[[int], None]) -> float:
    """Seconds until SCALE objects of a collection, applied by APPLIERS clients, are all Ready."""
    started = time.monotonic()
    with ThreadPoolExecutor(APPLIERS) as appliers:
        list(appliers.map(apply, range(SCALE)))

    def ready() -> int:
        return sum(is_true(item, "Ready") for item in api.get(path, resourceVersion="0")["items"])

    while ready() < SCALE:  # a list of everything is work for the API server too: not more often than this
        assert time.monotonic() - started < 600, f"{ready()} of {SCALE} were Ready in time"
        time.sleep(1)
    return time.monotonic() - started


def one_pod(api: Api) -> JSON:
    """The pod of a session, as the operator creates it."""
    path = sessions_path(NAMESPACE, "pattern")
    api.create(sessions_path(NAMESPACE), session("pattern", user="bench", mode="Interactive", prompt="Hello"))
    eventually(lambda: is_true(api.get(path), "Ready"), within=60, what="Ready")
    pod = api.get(pods_path(NAMESPACE, api.get(path)["status"]["podName"]))
    api.delete(path)
    gone(api, pod["metadata"]["name"])
    return bare_twin(pod)


def burst_of_bare_pods(api: Api, server: int, twin: JSON) -> float:
    """The same pods without an operator: how many a second become Ready. They are gone afterwards."""

    def apply(number: int) -> None:
        api.create(pods_path(NAMESPACE), {**twin, "metadata": {"name": f"bare-{number}", "namespace": NAMESPACE}})

    quiet = usage(server)
    elapsed = all_ready(api, pods_path(NAMESPACE), apply)
    row("bare pods of our spec: all Ready after", f"{elapsed:.1f} s ({SCALE / elapsed:.0f}/s)")
    row("bare pods: API server's CPU", f"{1000 * (usage(server)[0] - quiet[0]) / SCALE:.1f} ms each")
    api.delete(pods_path(NAMESPACE), grace=0)
    eventually(lambda: not api.get(pods_path(NAMESPACE))["items"], within=120, what="the end of the bare pods")
    return SCALE / elapsed


def server_pid(cluster_name: str) -> int:
    """The API server of a cluster of this machine."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if command[0].endswith(b"/kube-apiserver") and any(cluster_name.encode() in part for part in command):
            return int(directory.name)
    raise SystemExit(f"no kube-apiserver of {cluster_name} runs on this machine")


def usage(pid: int) -> tuple[float, float]:
    """CPU seconds and resident megabytes of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def image_sizes(images: dict[str, tuple[str, str]]) -> None:
    title("Images (uncompressed layers, as in the archive that is loaded)")
    for name, (_, archive) in images.items():
        row(name, f"{Path(archive).stat().st_size / 2**20:.0f} MiB")


def main() -> None:
    """Run all of it, or what `--only` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["pods", "scale", "images"], help="one part instead of all")
    only = parser.parse_args().only
    images = build_images() if only != "scale" else {}
    if only in (None, "pods"):
        with cluster("agentsession-bench") as kubeconfig:
            load_images("agentsession-bench", images)
            kubectl = Kubectl(kubeconfig)
            install(kubectl, images)
            api = Api(kubeconfig)
            make_namespace(api)
            latency(api)
            writes_of_one(api)
            session_pod(api, kubectl)
    if only in (None, "scale"):
        with cluster("agentsession-scale", "--control-plane-only") as kubeconfig:
            kind("create", "fake-nodes", "--name", "agentsession-scale", "--count", str(FAKE_NODES))
            scale(kubeconfig)
    if only in (None, "images"):
        image_sizes(images)


if __name__ == "__main__":
    main()
