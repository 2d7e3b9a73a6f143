"""`helm upgrade` leaves alone what the platform team has set, with Helm 3 (it merges) and Helm 4 (it applies server-side)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api import Api
from support.cluster import ROOT, control_plane, current_cluster, kind
from support.operator_process import NAMESPACE
from support.quota import Quota

CLUSTER = f"agentsession-upgrade-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]}"
OLD_TEMPLATE = """
apiVersion: agentsession.dev/v1alpha1
kind: SessionQuota
metadata:
  name: default
spec:
  maxSessions: {{ .Values.quota.maxSessions }}
  maxSessionsPerUser: {{ .Values.quota.maxSessionsPerUser }}
"""
OLD_VALUES = """
quota:
  maxSessions: 50
  maxSessionsPerUser: 10
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API server of the tests' own: the others have the plain manifests on theirs."""
    if current_cluster() is not None:
        pytest.skip("upgrades are not tried on a cluster of yours")
    with control_plane(CLUSTER, tmp_path_factory.mktemp("upgrade")) as path:
        yield Api(path)


class Helm:
    """One helm against one cluster, and its release."""

    def __init__(self, program: str, api: Api) -> None:
        self._program, self._api = program, api

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Exit status and what it says."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")}
        command = [self._program, "--kubeconfig", str(self._api.kubeconfig), "--namespace", NAMESPACE, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
        return done.returncode, done.stdout + done.stderr

    def upgrade(self, chart: Path, *arguments: str) -> tuple[int, str]:
        """Install, or upgrade what is there."""
        return self("upgrade", "--install", "agentsession", str(chart), "--create-namespace", *arguments)


@pytest.fixture(params=["helm", "helm4"])
def helm(cluster: Api, request: pytest.FixtureRequest) -> Iterator[Helm]:
    """Helm 3 or 4; nothing is installed, and there is no quota."""
    result = Helm(kind("bin", request.param), cluster)
    yield result
    code, output = result("uninstall", "agentsession", "--no-hooks", "--ignore-not-found")
    assert code == 0, output
    Quota(cluster).remove()


@pytest.fixture
def old_chart(tmp_path: Path) -> Path:
    """The chart as it was when it had a quota."""
    chart = tmp_path / "chart"
    shutil.copytree(ROOT / "charts" / "agentsession", chart)
    (chart / "templates" / "check-values.yaml").unlink()
    (chart / "templates" / "quota.yaml").write_text(OLD_TEMPLATE)
    with (chart / "values.yaml").open("a") as values:
        values.write(OLD_VALUES)
    return chart


CHART = ROOT / "charts" / "agentsession"


def kubectl(api: Api, *arguments: str) -> None:
    command = [kind("bin", "kubectl"), "--kubeconfig", str(api.kubeconfig), *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def patch(api: Api, sessions: int) -> None:
    kubectl(api, "patch", "sessionquota", "default", "--type=merge", "-p", f'{{"spec": {{"maxSessions": {sessions}}}}}')


def test_an_upgrade_neither_fails_nor_resets_a_patched_quota(cluster: Api, helm: Helm) -> None:
    code, output = helm.upgrade(CHART)
    assert code == 0, output
    quota = Quota(cluster)
    quota.set(20, 5)
    patch(cluster, 7)
    before = quota.read()
    code, output = helm.upgrade(CHART, "--set", "operator.logLevel=DEBUG")
    assert code == 0, output
    assert quota.read() == before
    assert before["spec"]["maxSessions"] == 7


def test_a_quota_of_an_older_release_is_kept_as_the_changelog_says(cluster: Api, helm: Helm, old_chart: Path) -> None:
    keep = "kubectl annotate sessionquota default helm.sh/resource-policy=keep"
    assert keep in (ROOT / "CHANGELOG.md").read_text()
    code, output = helm.upgrade(old_chart)
    assert code == 0, output
    patch(cluster, 7)
    kubectl(cluster, *keep.split()[1:])
    code, output = helm.upgrade(CHART, "--reuse-values")
    assert code != 0, "the older release's values say that there is a quota"
    assert "--set quota=null" in output
    code, output = helm.upgrade(CHART, "--reuse-values", "--set", "quota=null")
    assert code == 0, output
    assert Quota(cluster).read()["spec"]["maxSessions"] == 7
    code, output = helm.upgrade(CHART)
    assert code == 0, output
    assert Quota(cluster).read()["spec"]["maxSessions"] == 7
