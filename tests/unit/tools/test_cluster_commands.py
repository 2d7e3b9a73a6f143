"""The command line, refusals, and what is recovered from a damaged state."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentsession_cluster import backend, cli, kubeconfig, lifecycle, report
from agentsession_cluster.errors import ClusterError
from agentsession_cluster.machine import network, teardown
from agentsession_cluster.machine.addresses import Plan
from agentsession_cluster.settings import check_name, clusters_root
from agentsession_cluster.state import Layout, ProcessId, State, load, lock, names, save


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clusters of these tests are in a directory of their own, and never Docker's."""
    directory = Path("/tmp") / f"asc-unit-{os.getpid()}"
    monkeypatch.setenv("AGENTSESSION_CLUSTER_ROOT", str(directory))
    monkeypatch.setenv("AGENTSESSION_CLUSTER_BACKEND", "native")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KIND_CLUSTER_NAME", raising=False)
    return directory


def test_pytest_kinds_calls_parse() -> None:
    parse = cli.parser().parse_args
    created = parse(["create", "cluster", "--name=a", "--kubeconfig=/k", "--image=kindest/node", "--config", "c.yaml"])
    assert (created.name, created.kubeconfig, created.image) == ("a", Path("/k"), "kindest/node")
    loaded = parse(["load", "docker-image", "--name", "a", "image:1"])
    assert (loaded.name, loaded.images) == ("a", ["image:1"])
    assert parse(["delete", "cluster", "--name=a", "--kubeconfig=/k"]).name == "a"
    assert parse(["get", "clusters"]).kinds


def test_kinds_other_forms_parse() -> None:
    parse = cli.parser().parse_args
    assert parse(["create", "cluster", "--wait", "1m30s"]).wait == 90
    assert parse(["load", "image-archive", "a.tar", "b.tar", "-n", "x"]).archives == [Path("a.tar"), Path("b.tar")]
    assert parse(["create", "cluster"]).name == "kind"


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("5m", 300), ("500ms", 0.5), ("0", 0), ("1h2m", 3720)])
def test_durations_are_gos(text: str, expected: float) -> None:
    assert cli.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "-1s", "1m!"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        cli.seconds(text)


@pytest.mark.parametrize("name", ["", "-a", "A", "a/b", "..", "a" * 33, ".locks"])
def test_names_that_could_leave_the_root_are_refused(name: str) -> None:
    with pytest.raises(ClusterError) as refused:
        check_name(name)
    assert refused.value.exit_code == 2


def test_a_root_too_long_for_sockets_or_hidden_from_nodes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for path, words in (("/" + "long/" * 20, "too long"), ("/run/clusters", "cannot live below")):
        monkeypatch.setenv("AGENTSESSION_CLUSTER_ROOT", path)
        with pytest.raises(ClusterError, match=words):
            clusters_root()


def test_a_person_who_is_not_root_is_told_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(["create", "cluster", "--name", "a"]) == 1
    assert "sudo -E" in capsys.readouterr().err


def test_no_clusters_leaves_standard_output_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["get", "clusters"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "No kind clusters found" in captured.err


def test_deleting_a_cluster_that_is_not_there_succeeds() -> None:
    assert cli.main(["delete", "cluster", "--name", "nothing"]) == 0


def test_asking_for_a_cluster_that_is_not_there_fails_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["load", "image-archive", "x.tar", "--name", "nothing"]) == 1
    assert "create cluster --name nothing" in capsys.readouterr().err


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, "podman")
    with pytest.raises(ClusterError, match="unknown"):
        backend.kind_command()


def test_state_survives_the_disk(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    state = State("a", 7, False, "ready", ProcessId(1, 2, "boot"), ProcessId(3, 4, "boot"))
    save(layout, state)
    assert load(layout) == state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "a"}', '{"name": "a", "unknown": 1}', "null"])
def test_a_damaged_state_counts_as_none(tmp_path: Path, text: str) -> None:
    layout = Layout(tmp_path)
    layout.state_file.write_text(text)
    assert load(layout) is None
    assert lifecycle.health(layout, load(layout))


def test_a_recycled_process_id_is_not_mistaken() -> None:
    me = ProcessId.of(os.getpid())
    assert me is not None
    assert me.alive()
    assert not ProcessId(me.pid, me.started + 1, me.boot).alive()
    assert not ProcessId(me.pid, me.started, "another boot").alive()


def test_an_ended_process_is_not_alive_even_before_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessId.of(child.pid)
    assert identity is not None
    assert identity.alive()
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, not reaped
    assert not identity.alive()
    child.wait(10)


def test_a_cluster_from_before_a_restart_is_broken() -> None:
    state = State("a", 1, False, "ready", None, ProcessId(os.getpid(), 1, "boot before"))
    assert "gone" in lifecycle.health(Layout(Path("/nowhere")), state)[0]


def test_directories_that_start_with_a_dot_are_no_clusters(tmp_path: Path) -> None:
    for name in ("a", ".locks", ".failed"):
        (tmp_path / name).mkdir()
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "nothing") == []


def test_a_lock_that_is_held_ends_the_wait_at_its_deadline(tmp_path: Path) -> None:
    with (
        lock(tmp_path / "l", "working", 1),
        pytest.raises(ClusterError, match="still working"),
        lock(tmp_path / "l", "working", 0.2),
    ):
        pytest.fail("the lock was held twice")


def test_ended_processes_are_read_from_the_report(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert report.ended_processes(layout) == {}
    layout.run.mkdir()
    processes = {"etcd": {"pid": 7, "exit": None}, "kubelet": {"pid": 9, "exit": -9}}
    layout.processes.write_text(json.dumps(processes))
    assert report.ended_processes(layout) == {"kubelet": -9}


def test_a_rest_of_a_cluster_without_state_can_be_removed(root: Path) -> None:
    layout = Layout(root / "rest")
    (layout.directory / "etcd").mkdir(parents=True)
    layout.state_file.write_text("{")
    teardown.remove(layout, "rest")
    assert not layout.directory.exists()


def test_a_kubeconfig_names_the_cluster_as_kind_does(tmp_path: Path) -> None:
    for file in ("ca.crt", "admin.crt", "admin.key"):
        (tmp_path / file).write_text(file)
    text = kubeconfig.render("demo", Plan(4), tmp_path)
    assert "current-context: kind-demo" in text
    assert "server: https://172.30.4.2:6443" in text
    target = tmp_path / "config"
    kubeconfig.add(target, "demo", text, Path("/no/kubectl/needed"))
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_machine_without_ipv6_is_told_how_to_switch_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(network, "ipv6_available", lambda: False)
    lifecycle.check_system(control_plane_only=True)
    with pytest.raises(ClusterError, match="this machine has no IPv6"):
        lifecycle.check_system(control_plane_only=True, family="ipv6")


def test_a_state_from_before_families_is_an_ipv4_clusters(root: Path) -> None:
    layout = Layout(root / "old")
    layout.directory.mkdir(parents=True)
    save(layout, State("old", 3, control_plane_only=True, phase="ready"))
    written = json.loads(layout.state_file.read_text())
    del written["family"]
    layout.state_file.write_text(json.dumps(written))
    state = load(layout)
    assert state is not None
    assert state.plan == Plan(3)
