"""Fault tests: an operator process on a real API server with a proxy in between. `make test-faults` runs them.

Each test records what it expects and what it saw; the table at the end shows both.
"""

from __future__ import annotations

import itertools
import os
import random
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from api.conftest import api, operator_kubeconfig  # noqa: F401 - fixtures
from support.api import GROUP, JSON, Api
from support.cluster import control_plane
from support.faults.table import Record, Row
from support.faults.world import OpenWorld, World, overlapping, world

CLUSTER = "agentsession-faults"
SEED, MANY = 11, 20
"""Of a collection of at least MANY fault tests one of each module runs, unless AGENTSESSION_FAULTS is "all"."""


_rows: list[Row] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All of them take 20 minutes: unless asked for all, or for a few by name, a seeded sample runs."""
    faults = [item for item in items if "tests/faults/" in item.nodeid or item.nodeid.startswith("faults/")]
    for item in faults:
        item.add_marker(pytest.mark.api)
    if os.environ.get("AGENTSESSION_FAULTS") != "all" and len(faults) >= MANY:
        seeded = random.Random(SEED)
        of_module = [list(found) for _, found in itertools.groupby(faults, key=lambda item: item.path)]
        left_out = set(faults) - {seeded.choice(found) for found in of_module}
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=sorted(left_out, key=lambda item: item.nodeid))


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of the fault tests' own, or the one that the person asks for."""
    with control_plane(CLUSTER, tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
def open_world(
    api: Api,  # noqa: F811
    operator_kubeconfig: Path,  # noqa: F811
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[OpenWorld]:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.removeprefix("test_").lower())
    with ExitStack() as stack:

        def enter(
            *,
            cap: int = 50,
            per_user: int = 10,
            start: bool = True,
            quotas: Mapping[str, JSON] | None = None,
            judged: bool = True,
        ) -> World:
            opened: AbstractContextManager[World] = world(
                api,
                operator_kubeconfig,
                tmp_path,
                f"faults-{name[:40].strip('-')}-{uuid.uuid4().hex[:6]}",
                quotas=quotas or overlapping(cap, per_user),
                start=start,
            )
            w = stack.enter_context(opened)
            if judged:
                stack.callback(judge, w)
            return w

        def judge(w: World) -> None:
            breaches = w.breaches()
            assert not breaches, f"at the end of the test: {breaches}"

        yield enter


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Put a line into the table: fault, what is expected, what was seen, whether that is what was expected."""

    def note(fault: str, expected: str, seen: str, holds: bool) -> None:
        _rows.append(Row(request.node.nodeid, fault, expected, seen, holds))
        assert holds, f"{fault}: expected {expected}; seen {seen}"

    return note


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and not any(row.test == item.nodeid and not row.holds for row in _rows):
        error = str(call.excinfo.value if call.excinfo else "")
        _rows.append(Row(item.nodeid, item.name, f"the test's {report.when} succeeds", error, False))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _rows:
        return
    terminalreporter.section("faults")
    wide = [max(len(str(getattr(row, name))) for row in _rows) for name in ("fault", "expected")]
    terminalreporter.line(f"       {'fault':{wide[0]}}  {'expected':{wide[1]}}  seen")
    for row in _rows:
        mark = "ok   " if row.holds else "FAILS"
        terminalreporter.line(f"{mark}  {row.fault:{wide[0]}}  {row.expected:{wide[1]}}  {' '.join(row.seen.split())[:200]}")


@pytest.fixture
def persistent(api: Api) -> Iterator[str]:  # noqa: F811
    """The name of a class with a persistent workspace, and volumes for it: nobody provisions any here."""
    name = "faults-persistent"
    storage = {"type": "Persistent", "size": "1Gi", "storageClassName": "by-hand"}
    spec = {"agent": {"model": "openai/none"}, "tolerations": [{"operator": "Exists"}], "workspace": storage}
    classes, volumes = f"{GROUP}/agentsessionclasses", "/api/v1/persistentvolumes"
    meta = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "AgentSessionClass", "metadata": {"name": name}}
    api.delete(f"{classes}/{name}")
    api.create(classes, {**meta, "spec": spec})
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "by-hand",
        "hostPath": {"path": "/nowhere"},
    }
    names = [f"{name}-{number}" for number in range(2)]
    for one in names:
        api.create(volumes, {"metadata": {"name": one}, "spec": volume})
    yield name
    api.delete(f"{classes}/{name}")
    for one in names:
        api.delete(f"{volumes}/{one}")
