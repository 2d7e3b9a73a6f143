"""pytest-kind's fixture on the project's own kind command, unless the person names another."""

from __future__ import annotations

import pytest

from support.cluster import KIND, kind


def pytest_configure(config: pytest.Config) -> None:
    if config.option.kind_bin is None:
        config.option.kind_bin = str(KIND)
    if config.option.cluster_name == "pytest-kind":
        config.option.cluster_name = "agentsession-e2e"


@pytest.fixture(scope="session")
def kubectl() -> str:
    """Path of kubectl."""
    return kind("bin", "kubectl")
