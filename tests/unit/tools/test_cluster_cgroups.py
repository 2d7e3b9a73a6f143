"""The cluster's cgroups come and go while `delete` looks at them: its pods are ending."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agentsession_cluster.machine import cgroups


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in the place of a mounted hierarchy."""
    monkeypatch.setattr(cgroups, "_here", lambda: [tmp_path])
    return tmp_path / cgroups.PARENT / "demo"


def test_processes_are_found_at_every_depth(hierarchy: Path) -> None:
    for depth, name in enumerate(("a", "a/b", "a/b/c")):
        (hierarchy / name).mkdir(parents=True)
        (hierarchy / name / "cgroup.procs").write_text(f"{depth + 10}\n")
    assert cgroups.processes("demo") == {10, 11, 12}


def test_cgroups_that_vanish_meanwhile_are_passed_over(hierarchy: Path) -> None:
    stop = threading.Event()

    def pods() -> None:
        while not stop.is_set():
            for number in range(20):
                (hierarchy / f"pod{number}" / "container").mkdir(parents=True, exist_ok=True)
            for number in range(20):
                (hierarchy / f"pod{number}" / "container").rmdir()
                (hierarchy / f"pod{number}").rmdir()

    thread = threading.Thread(target=pods)
    thread.start()
    try:
        for _ in range(300):
            assert cgroups.processes("demo") == set()
    finally:
        stop.set()
        thread.join()


def test_removing_takes_the_deepest_first(hierarchy: Path) -> None:
    (hierarchy / "kubepods" / "pod" / "container").mkdir(parents=True)
    assert cgroups.remove("demo") == []
    assert not hierarchy.exists()
