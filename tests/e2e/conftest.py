"""A real cluster with a real kubelet and real containers, by pytest-kind's own fixture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.api import Api
from support.cluster import ROOT, current_cluster
from support.installation import Kubectl, build_images, install, load_images, serve
from support.quota import Quota
from support.sessions import NAMESPACE, Sessions

WHERE = "ls /opt/agentsession/local-model; python3 -c 'import litellm' 2>&1; id -u"
"""What tells in which image a command runs."""

DIARY = "cat diary.txt; stat -c '%a %n' private.txt; ls -a /workspace; find / -name 'session.db*' 2>/dev/null; echo LOOKED"
"""What the diary's owner asks for after the pod that it was written in."""

SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "tool": [
        {"tools": [{"name": "bash", "arguments": {"command": "echo made-in-$(basename $PWD); id -u"}}]},
        {"content": "The tool has spoken."},
    ],
    "diary": [
        {
            "tools": [
                {"name": "bash", "arguments": {"command": "echo dear diary > diary.txt; umask 077; echo mine > private.txt"}}
            ]
        },
        {"content": "It is written."},
        {"tools": [{"name": "bash", "arguments": {"command": DIARY}}]},
        {"content": "It is read."},
    ],
    "where": [
        {"tools": [{"name": "bash", "arguments": {"command": WHERE}}]},
        {"content": "It is there."},
    ],
    "slow": [{"content": "Slowly now.", "delay": 8}],
    "quick": [{"content": "Quick as a flash."}],
    "notes": [
        {"tools": [{"name": "notes__authorization", "arguments": {}}]},
        {"content": "I have asked."},
    ],
    "hang": [
        {"tools": [{"name": "bash", "arguments": {"command": "sleep 12; echo awake"}}]},
        {"content": "Slept well."},
    ],
}
"""What the scripted server says, by model name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e/" in item.nodeid:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Kubectl:
    """The cluster with AgentSession installed."""
    existing = current_cluster()
    if existing is not None:
        result, name = Kubectl(existing), ""
    else:
        kind_cluster = request.getfixturevalue("kind_cluster")
        result, name = Kubectl(Path(kind_cluster.kubeconfig_path).resolve()), kind_cluster.name
    images = build_images()
    load_images(name, images)
    install(result, images)
    if f"namespace/{NAMESPACE}" not in result("get", "namespaces", "-o", "name").split():
        result("create", "namespace", NAMESPACE)
    result("-n", NAMESPACE, "delete", "agentsessions", "--all")
    _scripted_server(result, images["runtime"][0])
    return result


def _scripted_server(kubectl: Kubectl, image: str) -> None:
    """The scripted model server, and a class that leads to it."""
    program = (ROOT / "tests/support/scripted_openai.py").read_text()
    files = {"scripted_openai.py": program, "scripts.json": json.dumps(SCRIPTS)}
    serve(kubectl, NAMESPACE, "scripted", image, files, "/files/scripted_openai.py", "/files/scripts.json")
    rule = {"match": "openai/*", "baseURL": f"http://scripted.{NAMESPACE}.svc:8080/v1"}
    meta = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "AgentSessionClass", "metadata": {"name": "scripted"}}
    kubectl("apply", "-f", "-", text=json.dumps({**meta, "spec": {"models": [rule], "allowMCPServers": True}}))
    meta["metadata"] = {"name": "kept"}
    workspace = {"type": "Persistent", "size": "100Mi"}
    kubectl("apply", "-f", "-", text=json.dumps({**meta, "spec": {"models": [rule], "workspace": workspace}}))


@pytest.fixture(scope="session")
def api(cluster: Kubectl) -> Api:
    return Api(cluster.kubeconfig)


@pytest.fixture
def quota(api: Api) -> Iterator[Quota]:
    """A quota named default, once it is set; gone afterwards, so that the built-in limits hold."""
    result = Quota(api)
    yield result
    result.remove()


@pytest.fixture
def sessions(cluster: Kubectl) -> Iterator[Sessions]:
    """Sessions of the test's own; deleted afterwards."""
    yield Sessions(cluster)
    cluster("-n", NAMESPACE, "delete", "agentsessions", "--all", "--wait=true")
    cluster("-n", NAMESPACE, "wait", "--for=delete", "pods", "-l", "agentsession.dev/session-uid", "--timeout=60s")
