"""The policies of docs/quotas.md, applied as they stand there: each has the effect that its text claims."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

from support.api import GROUP, JSON, Api, condition, sessions_path
from support.cluster import ROOT, kind
from support.operator_account import account_kubeconfig
from support.operator_process import NAMESPACE
from support.scene import Scene
from support.waiting import eventually, read, throughout, wait_for

DOCUMENT = (ROOT / "docs" / "quotas.md").read_text()
TITLES = ("A team's share", "CI apart from people", "Scarce GPUs", "Nights are free", "One noisy user", "Maintenance")
COLLECTIONS = {
    "AgentSessionClass": f"{GROUP}/agentsessionclasses",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "CronJob": f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs",
    "ServiceAccount": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
}


def example(title: str) -> list[JSON]:
    """The objects of one example."""
    section = re.split(r"^##+ ", DOCUMENT.split(f"### {title}\n", 1)[1], flags=re.MULTILINE)[0]
    return [
        item for block in re.findall(r"^```yaml\n(.*?)^```", section, re.MULTILINE | re.DOTALL) for item in documents(block)
    ]


def documents(text: str) -> list[JSON]:
    return [item for item in yaml.safe_load_all(text) if item]


def deploy(scene: Scene, title: str) -> dict[str, JSON]:
    """Apply an example; its objects by kind (the last of each), once the operator counts by its quota."""
    found = example(title)
    for item in found:
        if item["kind"] != "SessionQuota":
            scene.apply(item, f"{COLLECTIONS[item['kind']]}/{item['metadata']['name']}")
    (quota,) = [item for item in found if item["kind"] == "SessionQuota"]
    scene.quota(quota["metadata"]["name"], **quota["spec"])
    return {item["kind"]: item for item in found}


def told(scene: Scene, *who: tuple[str, str], **spec: str) -> list[str]:
    """What sessions are told that are created one after the other; each is given as name and user."""
    return [scene.told(scene.ask(name, user, **spec)) for name, user in who]


def numbered(user: str, number: int) -> list[tuple[str, str]]:
    """That many sessions of one user."""
    short = re.sub(r"[^a-z0-9]", "", user)[-20:]
    return [(f"{short}-{index}", user) for index in range(number)]


def test_the_document_has_these_examples_and_no_others() -> None:
    examples = DOCUMENT.split("## Examples\n", 1)[1]
    assert tuple(re.findall(r"^### (.*)$", examples, re.MULTILINE)) == TITLES
    assert all(example(title) for title in TITLES)
    assert "```yaml" not in DOCUMENT.split("## Examples\n", 1)[0]


def test_a_teams_share(scene: Scene) -> None:
    spec = deploy(scene, "A team's share")["SessionQuota"]["spec"]
    most, each = spec["maxSessions"], spec["maxSessionsPerUser"]
    scene.label(scene.namespace, **spec["namespaceSelector"]["matchLabels"])
    other = scene.other_namespace(team="sales")
    assert told(scene, *numbered("alice", each + 1)) == ["Admitted"] * each + ["UserLimitReached"]
    assert told(scene, *numbered("bob", each)) == ["Admitted"] * (most - each)
    assert told(scene, ("carol-0", "carol")) == ["GlobalLimitReached"]
    assert [scene.told(scene.ask(f"there-{index}", "alice", namespace=other)) for index in range(2)] == ["Admitted"] * 2


def test_ci_apart_from_people(scene: Scene) -> None:
    spec = deploy(scene, "CI apart from people")["SessionQuota"]["spec"]
    together = spec["userRules"][0]["maxSessions"]
    accounts = [(f"ci-{index}", f"system:serviceaccount:ci:runner-{index}") for index in range(together + 2)]
    assert told(scene, *accounts) == ["Admitted"] * together + ["UserLimitReached"] * 2
    each = spec["maxSessionsPerUser"]
    people = ["alice", "bob"]
    assert spec["maxSessions"] - together >= each * len(people)
    for user in people:
        assert told(scene, *numbered(user, each + 1)) == ["Admitted"] * each + ["UserLimitReached"]


def test_scarce_gpus(scene: Scene) -> None:
    spec = deploy(scene, "Scarce GPUs")["SessionQuota"]["spec"]
    assert (spec["maxSessions"], spec["maxSessionsPerUser"]) == (2, 1)
    first, second = (scene.ask(user, user, mode="Interactive", className="gpu") for user in ("alice", "bob"))
    pods = [scene.starts(body) for body in (first, second)]
    limits = {item["name"]: item["resources"].get("limits", {}) for item in pods[0]["spec"]["containers"]}
    assert limits["workspace"]["nvidia.com/gpu"] == "1"
    scene.reports(second, pods[1], activity="Processing")
    assert scene.asks("other-class", user="alice") == ["Admitted"]
    third = scene.ask("carol", "carol", className="gpu")
    assert scene.told(third) == "GlobalLimitReached", "nobody is idle"
    scene.reports(first, pods[0], activity="Idle")
    scene.stops(pods[0])
    scene.becomes(third, "Admitted")
    rests = wait_for(scene.api, first, "Suspended", "True", "Replaced")
    assert rests["status"]["workspace"]["claimName"], "its files are kept"
    scene.suspend(first, True)
    wait_for(scene.api, first, "Suspended", "True", "UserRequested")
    scene.suspend(first, False)
    scene.becomes(first, "GlobalLimitReached")


def test_nights_are_free(scene: Scene, tmp_path: Path) -> None:
    """The CronJobs' own commands, with the rights of their account."""
    deploy(scene, "Nights are free")
    jobs = {item["metadata"]["name"]: item["spec"] for item in example("Nights are free") if item["kind"] == "CronJob"}
    assert {name: spec["schedule"] for name, spec in jobs.items()} == {"batch-night": "0 20 * * *", "batch-day": "0 7 * * *"}
    waits = scene.ask("waits", className="batch")
    assert scene.told(waits) == "QuotaHeld"
    assert scene.asks("interactive") == ["Admitted"]
    run(scene.api, jobs["batch-night"], tmp_path)
    scene.becomes(waits, "Admitted")
    scene.starts(waits)
    run(scene.api, jobs["batch-day"], tmp_path)
    late = scene.ask("late", className="batch")
    scene.becomes(late, "QuotaHeld")
    assert condition(read(scene.api, waits), "Ready")["status"] == "True", "it runs to its end"


def run(api: Api, cron_job: JSON, folder: Path) -> None:
    """What the CronJob's pod would run."""
    pod = cron_job["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    account = account_kubeconfig(api, pod["serviceAccountName"], folder / "account")
    command = [kind("bin", "kubectl"), "--kubeconfig", str(account), *container["command"][1:], *container["args"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_one_noisy_user(scene: Scene) -> None:
    spec = deploy(scene, "One noisy user")["SessionQuota"]["spec"]
    noisy, places = "load-test@example.com", spec["maxWaitingPerUser"]
    expected = ["Admitted", *["UserLimitReached"] * places, "QueueFull"]
    assert told(scene, *numbered(noisy, len(expected))) == expected
    each = spec["maxSessionsPerUser"]
    assert told(scene, *numbered("alice", each)) == ["Admitted"] * each, "nobody waits behind the load test"
    assert told(scene, *numbered("eve@oncall.example.com", each + 2)) == ["Admitted"] * (each + 2)


def test_maintenance(scene: Scene) -> None:
    storage = {"type": "Persistent", "size": "1Gi", "storageClassName": "by-hand"}
    kept = scene.ask("kept", mode="Interactive", className=scene.session_class("kept", workspace=storage))
    fleeting = scene.ask("fleeting", "bob", mode="Interactive")
    pods = [scene.starts(body) for body in (kept, fleeting)]
    scene.reports(kept, pods[0], activity="Processing")
    wait_for(scene.api, kept, "Active", "True", "Processing")
    deploy(scene, "Maintenance")
    new = scene.ask("new", "carol")
    assert scene.told(new) == "QuotaHeld"
    scene.idle(fleeting, pods[1], "2026-01-01T08:00:00Z")
    scene.reports(kept, pods[0], activity="Idle")
    scene.stops(pods[0])
    wait_for(scene.api, kept, "Suspended", "True", "QuotaHeld")

    def runs() -> None:
        assert condition(read(scene.api, fleeting), "Ready")["status"] == "True"
        assert not scene.pods(new)

    throughout(runs, seconds=1.0)
    command = re.search(r"`kubectl (delete sessionquota maintenance)`", DOCUMENT)
    assert command is not None
    kubectl = [kind("bin", "kubectl"), "--kubeconfig", str(scene.api.kubeconfig), *command[1].split()]
    subprocess.run(kubectl, check=True, capture_output=True, timeout=60)
    for body in (kept, new):
        scene.becomes(body, "Admitted")
    eventually(
        lambda: scene.api.get(sessions_path(scene.namespace, "kept"))["status"]["phase"] != "Suspended", what="its resuming"
    )
