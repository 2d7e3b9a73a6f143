"""pytest-kind's fixture on the project's own kind command, unless the person names another."""

from __future__ import annotations

import hypothesis
import pytest

from support.cluster import KIND, kind

# How long an example takes says more of what else the machine does than of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.kind_bin is None:
        config.option.kind_bin = str(KIND)
    if config.option.cluster_name == "pytest-kind":
        config.option.cluster_name = "agentsession-e2e"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, through anyio's plugin. A module with a clock of its own overrides this."""
    return "asyncio"


@pytest.fixture(scope="session")
def kubectl() -> str:
    """Path of kubectl."""
    return kind("bin", "kubectl")
