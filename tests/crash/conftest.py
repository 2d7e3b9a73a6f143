"""Crash tests: an operator that is killed at each of its writes. `make test-crash` runs them all, on several clusters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.conftest import api, operator_kubeconfig  # noqa: F401 - fixtures
from support.cluster import control_plane

CLUSTER = f"agentsession-crash-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
"""Operators and quotas see a whole cluster, so each worker has one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/crash/" in item.nodeid or item.nodeid.startswith("crash/"):
            item.add_marker(pytest.mark.api)


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of this worker's own, or the one that the person asks for."""
    with control_plane(CLUSTER, tmp_path_factory.mktemp("cluster")) as path:
        yield path
