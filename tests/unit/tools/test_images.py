"""The images: their tags, and what builds them on what. Building itself is the end-to-end tests' first step."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from images import host, plan

CONTAINERFILE = (plan.ROOT / plan.CONTAINERFILE).read_text()


def source(path: str = "agent/loop.py", content: bytes = b"pass\n", executable: bool = False) -> plan.Source:
    return plan.Source(path, executable, content)


def test_tag_is_the_same_for_the_same_files_in_any_order() -> None:
    files = [source("a"), source("b", b"x")]
    assert plan.content_hash(files, "base") == plan.content_hash(files[::-1], "base")


@pytest.mark.parametrize(
    "changed",
    [
        [source(content=b"pass")],
        [source(path="agent/turn.py")],
        [source(executable=True)],
        [source(), source("more", b"")],
        [],
    ],
)
def test_tag_changes_with_content_name_mode_and_number_of_files(changed: list[plan.Source]) -> None:
    assert plan.content_hash(changed, "base") != plan.content_hash([source()], "base")


def test_tag_changes_with_the_base_and_with_where_a_file_ends() -> None:
    assert plan.content_hash([source()], "base") != plan.content_hash([source()], "newer")
    assert plan.content_hash([source("a", b"12"), source("b", b"3")], "") != plan.content_hash(
        [source("a", b"1"), source("b", b"23")], ""
    )


def test_tag_is_one_that_a_pod_can_name() -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", plan.content_hash([source()], "base"))


def test_sources_leave_out_caches_and_links(tmp_path: Path) -> None:
    package = tmp_path / "agent"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__" / "loop.cpython-311.pyc").write_bytes(b"")
    (package / "stale.pyc").write_bytes(b"")
    (package / "loop.py").write_text("pass")
    (package / "link.py").symlink_to("/etc/passwd")
    (tmp_path / "LICENSE").write_text("free")
    assert [file.path for file in plan.read_sources(tmp_path, ["agent", "LICENSE"])] == ["LICENSE", "agent/loop.py"]


def test_context_holds_what_was_hashed_whatever_happens_to_the_checkout(tmp_path: Path) -> None:
    checkout, context = tmp_path / "checkout", tmp_path / "context"
    (checkout / "agent").mkdir(parents=True)
    (checkout / "agent" / "loop.py").write_text("before")
    sources = plan.read_sources(checkout, ["agent"])
    (checkout / "agent" / "loop.py").write_text("after")
    context.mkdir()
    host.write_context(context, sources)
    assert plan.read_sources(context, ["agent"]) == sources
    assert (context / "agent" / "loop.py").stat().st_mtime == (context / "agent").stat().st_mtime


@pytest.mark.parametrize("image", plan.IMAGES, ids=lambda image: image.name)
def test_inputs_are_what_the_containerfile_copies(image: plan.Image) -> None:
    """A file that a stage copies and the tag leaves out would be an image that a change does not reach."""
    assert copied(image.name) == set(image.inputs)


def copied(target: str) -> set[str]:
    """Paths of the checkout that a target's stages copy, through every FROM and COPY --from."""
    stages = {match[1]: match[0] for match in re.finditer(r"^FROM \S+ AS (\S+)\n(?:(?!FROM ).*\n)*", CONTAINERFILE, re.M)}
    todo, paths = [target], set()
    while todo:
        text = stages[todo.pop()]
        todo += [
            name for name in re.findall(r"^FROM (\S+) AS|^COPY --from=(\S+)", text, re.M) for name in name if name in stages
        ]
        for words in re.findall(r"^COPY (?!--from)(.+)$", text, re.M):
            paths |= set(words.split()[:-1])
    return paths


def test_operator_image_holds_what_the_operator_imports(tmp_path: Path) -> None:
    """In that image there is one module of the runtime and nothing of the agent."""
    (operator,) = plan.selected(["operator"])
    host.write_context(tmp_path, plan.read_sources(plan.ROOT, operator.inputs))
    assert sorted(path.name for path in (tmp_path / "session_runtime").iterdir()) == ["__init__.py", "wire.py"]
    program = "import sys, agentsession_operator.process; print(*sys.modules)"
    run = [sys.executable, "-c", program]
    # The folders that come first in the path win over the checkout, which is installed in this environment.
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'operator'}:{tmp_path}"}
    loaded = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert "session_runtime.wire" in loaded
    assert "agent" not in loaded


def test_the_containerfile_has_the_default_base() -> None:
    assert f"ARG BASE_IMAGE={plan.DEFAULT_BASE}\n" in CONTAINERFILE


@pytest.mark.parametrize(
    ("wanted", "docker_answers", "builder"),
    [("auto", True, "docker"), ("auto", False, "buildah"), ("buildah", True, "buildah"), ("docker", False, "docker")],
)
def test_builder(wanted: str, docker_answers: bool, builder: str) -> None:
    assert plan.choose_builder(wanted, docker_answers) == builder


@pytest.mark.parametrize(
    ("wanted", "present", "reachable", "base"),
    [
        ("auto", False, True, plan.DEFAULT_BASE),
        ("auto", True, False, plan.DEFAULT_BASE),
        ("auto", False, False, "debootstrap"),
        ("debootstrap", True, True, "debootstrap"),
        ("example/python:3.12", False, False, "example/python:3.12"),
    ],
)
def test_base(wanted: str, present: bool, reachable: bool, base: str) -> None:
    assert plan.choose_base(wanted, present, reachable) == base


def test_pip_configuration_carries_addresses_and_not_the_hosts_paths() -> None:
    text = plan.pip_configuration(
        {"PIP_INDEX_URL": "https://index.example/simple", "PIP_FIND_LINKS": "/opt/wheels", "PIP_DEFAULT_TIMEOUT": "180"},
        {"index-url": "https://file.example/simple", "cert": "/etc/ca.crt", "trusted-host": "a.example\nb.example"},
        ca=True,
    )
    assert text.splitlines() == [
        "[global]",
        "cert = /run/ca.crt",
        "index-url = https://index.example/simple",
        "timeout = 180",
        "trusted-host = a.example",
        "    b.example",
    ]


def test_pip_uses_the_index_that_uv_uses_unless_it_has_its_own() -> None:
    uv = {"UV_DEFAULT_INDEX": "https://uv.example/simple"}
    assert "index-url = https://uv.example/simple" in plan.pip_configuration(uv, {}, ca=False)
    both = uv | {"PIP_INDEX_URL": "https://pip.example/simple"}
    assert "index-url = https://pip.example/simple" in plan.pip_configuration(both, {}, ca=False)
    assert plan.pip_configuration({}, {}, ca=False) == "[global]\n"


def test_images_are_built_in_one_order_and_all_by_default() -> None:
    assert [image.name for image in plan.selected(None)] == ["operator", "runtime", "local-model"]
    assert [image.name for image in plan.selected(["runtime", "operator"])] == ["operator", "runtime"]


def test_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    args = plan.arguments(["--only", "runtime", "--only", "operator", "--base", "example/python:3.12"])
    assert (args.only, args.base, args.builder, args.save) == (["runtime", "operator"], "example/python:3.12", "auto", None)
    with pytest.raises(SystemExit):
        plan.arguments(["--only", "cluster"])
    assert "invalid choice: 'cluster'" in capsys.readouterr().err


def test_failure_shows_the_end_of_what_the_program_said(tmp_path: Path) -> None:
    with pytest.raises(host.Refusal, match=r"(?s)ended with 3.*last words.*all of it"):
        host.run(["sh", "-c", "echo last words >&2; exit 3"], tmp_path / "log")
    with pytest.raises(host.Refusal, match="last words"):
        host.run(["sh", "-c", "echo last words; exit 1"])
    assert host.run(["echo", "well"]) == "well\n"
    assert not host.succeeds(["no-such-program"])
    assert not host.succeeds(["sleep", "5"], seconds=0.01)
