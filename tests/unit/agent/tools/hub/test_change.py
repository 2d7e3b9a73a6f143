"""What changes the Hub or spends money: files, repositories and jobs; and which of it asks a person first."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.testing import calls
from agent.tools.hub import HubSettings, files, hub_tools, jobs, prices
from agent.workspace.local import LocalWorkspace
from support.agent.hub_server import TOKEN, Reply, refused
from support.agent.hub_session import session
from support.agent.processes import until
from support.agent.stage import stage

pytestmark = pytest.mark.anyio

# -- consent -----------------------------------------------------------------------------------------------------------

FILES = [{"path": "a"}, {"path": "b"}]
HERE = "on the Hugging Face Hub"


@pytest.mark.parametrize(
    ("tool", "arguments", "reason"),
    [
        ("hub_search", {"type": "model"}, None),
        ("hub_read", {"repo": "ann/tiny"}, None),
        ("hub_dataset", {"dataset": "ann/rows"}, None),
        ("hub_jobs", {"view": "list"}, None),
        ("hub_files", {"action": "download", "files": FILES}, None),
        ("hub_files", {"action": "upload", "files": FILES}, f"it would upload 2 files in the model ann/tiny {HERE}"),
        ("hub_files", {"action": "delete", "type": "space", "files": FILES[:1]}, f"delete 1 file in the space ann/tiny {HERE}"),
        ("hub_repo", {"action": "create_branch", "name": "b"}, None),
        ("hub_repo", {"action": "create_tag", "name": "t"}, None),
        ("hub_repo", {"action": "create_repository"}, None),
        ("hub_repo", {"action": "create_repository", "private": False}, "for everybody to see"),
        ("hub_repo", {"action": "delete_branch", "name": "b"}, "it would delete the branch b of the model ann/tiny"),
        ("hub_repo", {"action": "delete_tag", "name": "t"}, "it would delete the tag t of the model ann/tiny"),
        ("hub_repo", {"action": "merge", "number": 3}, f"it would merge #3 of the model ann/tiny {HERE}"),
        ("hub_repo", {"action": "close", "number": 3}, "it would close #3"),
        ("hub_repo", {"action": "reopen", "number": 3}, "it would reopen #3"),
        ("hub_repo", {"action": "comment", "number": 3, "text": "x"}, "publish a comment in your name"),
        ("hub_repo", {"action": "open_pull_request", "title": "x"}, "publish a post in your name"),
        ("hub_repo", {"action": "open_discussion", "title": "x"}, "publish a post in your name"),
        ("hub_job", {"action": "run"}, "a job on cpu-basic now, at most $0.01 a run ($0.01 an hour)"),
        (
            "hub_job",
            {"action": "run", "hardware": "h200", "timeout_minutes": 90},
            "on h200 now, at most $7.50 a run ($5.00 an hour)",
        ),
        ("hub_job", {"action": "run", "hardware": "new"}, "a job on new now, at a price that is not known"),
        ("hub_job", {"action": "run", "with_token": True}, "with your token"),
        ("hub_job", {"action": "schedule", "schedule": "@daily"}, "on the schedule @daily, at most $0.01 a run"),
        ("hub_job", {"action": "cancel", "job_id": "j1"}, f"it would cancel job j1 {HERE}"),
        ("hub_job", {"action": "run_scheduled", "job_id": "s1"}, "it would run scheduled job s1"),
        ("hub_job", {"action": "delete_scheduled", "job_id": "s1"}, "it would delete scheduled job s1"),
    ],
)
def test_what_asks_a_person_first(tmp_path: Path, tool: str, arguments: dict[str, Any], reason: str | None) -> None:
    tools = {one.name: one for one in hub_tools(HubSettings(), LocalWorkspace(tmp_path))}
    said = tools[tool].needs_consent({"repo": "ann/tiny", **arguments})
    assert said is None if reason is None else said is not None and reason in said


# -- files -------------------------------------------------------------------------------------------------------------


async def test_files_are_uploaded_in_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "READ_LINES", 3)
    monkeypatch.setattr(files, "READ_CHARACTERS", 6)
    texts = {"none": "", "three": "1\n2\n3\n", "four": "1\n2\n3\n4", "odd": "1\r\n2\u2028\x0b2\n\n3\n4\n5\n6\n"}
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
    async with session(tmp_path) as s:
        tiny = s.hub.add("model", "ann/tiny", old=b"kept")
        uploads = [{"path": f"in/{name}", "workspace_path": name} for name in texts]
        written = {"path": "README.md", "content": "---\nlicense: mit\n---\nHi é"}
        done = await s.text("hub_files", action="upload", repo="ann/tiny", files=[*uploads, written])
        assert done.startswith("upload done, commit 1f2e3d4c5b6a")
        assert tiny.files == {
            "old": b"kept",
            **{f"in/{name}": text.encode() for name, text in texts.items()},
            "README.md": written["content"].encode(),
        }
        assert len(s.hub.asked("POST", "/api/models/ann/tiny/commit/main")) == 1


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # httpx, of how the library calls it
async def test_a_large_file_goes_its_own_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with session(tmp_path) as s:
        rows = s.hub.add("dataset", "ann/rows")
        rows.lfs.add("data.jsonl")
        (tmp_path / "data.jsonl").write_text('{"a": 1}\n' * 300_000)
        (tmp_path / "wide.jsonl").write_text(f"{'x' * 5000}\n" * 1000)
        uploads = [{"path": "data.jsonl"}, {"path": "wide.jsonl"}]
        await s.text("hub_files", action="upload", repo="ann/rows", type="dataset", files=uploads)
        assert rows.files["wide.jsonl"] == (tmp_path / "wide.jsonl").read_bytes()
        assert rows.files["data.jsonl"] == (tmp_path / "data.jsonl").read_bytes()
        [upload] = [request for request in s.hub.requests if request.method == "PUT"]
        assert "authorization" not in upload.headers  # it is where the address says, which is not the Hub's
        s.hub.replies[upload.path] = refused(403, "", "The signature has expired")
        problem = await s.problem(
            "hub_files",
            action="upload",
            repo="ann/rows",
            type="dataset",
            files=[{"path": "data.jsonl", "content": '{"a": 1}\n' * 300_000}],
        )
        assert "[403] The signature has expired" in problem
    assert capfd.readouterr().err == ""


async def test_an_upload_as_a_pull_request_and_to_another_branch(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.add("dataset", "ann/rows")
        change = {"action": "upload", "repo": "ann/rows", "type": "dataset", "files": [{"path": "a", "content": "a"}]}
        done = await s.text("hub_files", **change, pull_request=True, message="Add a")
        assert done.endswith(f"pull request: {s.hub.url}/ann/rows/discussions/7")
        [request] = s.hub.asked("POST", "/api/datasets/ann/rows/commit/main")
        assert b'"summary": "Add a"' in request.body
        await s.text("hub_files", **change, revision="refs/pr/7")
        assert s.hub.asked("POST", "/api/datasets/ann/rows/commit/refs%2Fpr%2F7")


async def test_files_and_folders_are_deleted(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        tiny = s.hub.add("model", "ann/tiny", a=b"", b=b"", **{"old/1": b"", "old/2": b""})
        await s.text("hub_files", action="delete", repo="ann/tiny", files=[{"path": "a"}, {"path": "old/"}])
        assert set(tiny.files) == {"b"}


async def test_what_cannot_be_uploaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UPLOAD_LIMIT", 8000)
    (tmp_path / "large").write_text("line\n" * 2000)
    (tmp_path / "binary").write_bytes(b"\0\1\2")
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    async with session(tmp_path) as s:
        upload = {"action": "upload", "repo": "ann/tiny"}
        binary = await s.problem("hub_files", **upload, files=[{"path": "binary"}])
        assert binary == "binary is a binary file (3 bytes). Only text files can be uploaded."
        assert "latin is not UTF-8 text" in await s.problem("hub_files", **upload, files=[{"path": "latin"}])
        assert "large is larger than 8 kB" in await s.problem("hub_files", **upload, files=[{"path": "large"}])
        assert "no such file: none" in await s.problem("hub_files", **upload, files=[{"path": "none"}])
        assert s.hub.requests == []
        assert "check the name" in await s.problem("hub_files", **upload, files=[{"path": "x", "content": "x"}])
        assert "path_in_repo" in await s.problem("hub_files", **upload, files=[{"path": "../x", "content": "x"}])
        assert "$.files" in await s.problem("hub_files", **upload, files=[])


async def test_text_files_are_downloaded_into_the_workspace(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.add("model", "ann/tiny", **{"in/a.txt": "é\n".encode(), "b": b"\0", "c": b"c"})
        wanted = [{"path": "in/a.txt"}, {"path": "b"}, {"path": "c", "workspace_path": "there/c"}, {"path": "none"}]
        report = await s.text("hub_files", action="download", repo="ann/tiny", files=wanted)
        assert report.splitlines() == [
            "in/a.txt is in the workspace as in/a.txt (2 characters)",
            "[b (1 B) is binary; it was not downloaded.",
            f"Where no token is needed, a command can fetch it: {s.hub.url}/ann/tiny/resolve/main/b]",
            "c is in the workspace as there/c (1 characters)",
            "[there is no file none; hub_read with path=/ lists what is there]",
        ]
        assert (tmp_path / "in/a.txt").read_text() == "é\n"
        assert (tmp_path / "there/c").read_text() == "c"
        blocked = [{"path": "c", "workspace_path": "in"}]
        assert "in is a directory" in await s.problem("hub_files", action="download", repo="ann/tiny", files=blocked)


async def test_a_file_that_is_too_large_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "DOWNLOAD_LIMIT", 10)
    async with session(tmp_path) as s:
        s.hub.add("model", "ann/tiny", **{"big.txt": b"x" * 11})
        problem = await s.problem("hub_files", action="download", repo="ann/tiny", files=[{"path": "big.txt"}])
        assert problem.startswith("[big.txt (11 B) is larger than 10 B; it was not downloaded.")
        assert not any("resolve" in request.path for request in s.hub.requests)


# -- repositories ------------------------------------------------------------------------------------------------------


async def test_a_repository_is_private_unless_it_is_to_be_public(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        created = await s.text("hub_repo", action="create_repository", repo="ann/new")
        assert created == f"created the private model ann/new: {s.hub.url}/ann/new"
        await s.text("hub_repo", action="create_repository", repo="ann/open", type="space", private=False)
        private, public = (request.json for request in s.hub.requests)
        assert private["visibility"] == "private"
        assert (public["visibility"], public["sdk"], public["type"]) == ("public", "gradio", "space")


async def test_branches_and_tags_come_and_go(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        tiny = s.hub.add("model", "ann/tiny")
        for what, kept in (("branch", tiny.branches), ("tag", tiny.tags)):
            change = {"repo": "ann/tiny", "name": "a/b"}
            assert await s.text("hub_repo", action=f"create_{what}", **change) == f"create_{what} a/b in ann/tiny: done"
            assert "a/b" in kept
            assert "already exists" in await s.problem("hub_repo", action=f"create_{what}", **change)
            await s.text("hub_repo", action=f"delete_{what}", **change)
            assert "a/b" not in kept
            assert "no such branch" in await s.problem("hub_repo", action=f"delete_{what}", **change)
        assert "needs name" in await s.problem("hub_repo", action="create_branch", repo="ann/tiny")
        assert "is no name" in await s.problem("hub_repo", action="delete_branch", repo="ann/tiny", name="..")


async def test_a_pull_request_from_its_opening_to_its_merge(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        tiny = s.hub.add("model", "ann/tiny")
        opened = await s.text("hub_repo", action="open_pull_request", repo="ann/tiny", title="A change", text="Why")
        assert opened.startswith(f"#1 is draft at {s.hub.url}/ann/tiny/discussions/1 (revision refs/pr/1)")
        for action, status in (("reopen", "open"), ("close", "closed"), ("merge", "merged")):
            done = await s.text("hub_repo", action=action, repo="ann/tiny", number=1, text="so be it")
            assert done == f"{action} #1 of ann/tiny: done"
            assert tiny.discussions[0]["status"] == status
            assert s.hub.requests[-1].json["comment"] == "so be it"
        await s.text("hub_repo", action="comment", repo="ann/tiny", number=1, text="Thanks")
        assert s.hub.requests[-1].json == {"comment": "Thanks"}
        assert "comment needs number and text" in await s.problem("hub_repo", action="comment", repo="ann/tiny")
        assert (await s.text("hub_repo", action="open_discussion", repo="ann/tiny", title="A word")).startswith("#2 is open")


# -- jobs --------------------------------------------------------------------------------------------------------------

RUN = {"action": "run", "image": "python:3.12", "command": ["python", "-c", "print(1)"]}


async def test_a_job_from_its_start_to_its_end(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        started = await s.text("hub_job", **RUN, hardware="t4-small", timeout_minutes=1.5, environment={"MODE": "x-value"})
        assert started.splitlines() == [
            "job j1 · RUNNING · 61 s running",
            "t4-small · python:3.12 · python -c print(1)",
            "created 2026-05-01 12:00 UTC · started 2026-05-01 12:00 UTC · environment: MODE",
            f"{s.hub.url}/jobs/ann/j1",
        ]
        [request] = s.hub.asked("POST", "/api/jobs/ann")
        assert (request.json["timeoutSeconds"], request.json["flavor"]) == (90, "t4-small")
        assert "secrets" not in request.json
        assert (await s.text("hub_jobs", view="list")).startswith("j1 · RUNNING · t4-small · 2026-05-01 12:00 UTC")
        assert await s.text("hub_job", action="cancel", job_id="j1") == "cancel j1: done"
        assert "j1 · CANCELED" in await s.text("hub_jobs", view="job", job_id="j1")
        assert "[404]" in await s.problem("hub_jobs", view="job", job_id="none")


async def test_a_job_has_a_time_limit_and_the_token_on_request(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        await s.text("hub_job", **RUN, with_token=True, namespace="org")
        [request] = s.hub.asked("POST", "/api/jobs/org")
        assert request.json["timeoutSeconds"] == prices.DEFAULT_MINUTES * 60
        assert request.json["secrets"] == {"HF_TOKEN": TOKEN}


async def test_a_command_does_not_bring_files_of_the_agent_along(tmp_path: Path) -> None:
    """As huggingface_hub's `run_uv_job` would do with arguments that are paths here."""
    (tmp_path / "state.py").write_text("private")
    async with session(tmp_path) as s:
        command = ["uv", "run", str(tmp_path / "state.py")]
        await s.text("hub_job", action="run", image="python:3.12", command=command)
        assert s.hub.asked("POST", "/api/jobs/ann")[0].json["command"] == command
        assert not any(b"private" in request.body for request in s.hub.requests)


async def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        await s.text("hub_job", **RUN)
        assert await s.text("hub_jobs", view="logs", job_id="j1") == "[no output yet]"
        s.hub.logs = [f"line {at}" for at in range(1000)]
        assert await s.text("hub_jobs", view="logs", job_id="j1", lines=2) == "line 998\nline 999"
        assert "needs job_id" in await s.problem("hub_jobs", view="logs")
        assert "$.job_id" in await s.problem("hub_jobs", view="logs", job_id="../../x")


async def test_the_log_of_a_job_that_never_stops_talking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LOG_SECONDS", 0.1)
    async with session(tmp_path) as s:
        await s.text("hub_job", **RUN)
        s.hub.replies["/api/jobs/ann/j1/logs"] = Reply(b'data: {"data": "tick", "timestamp": ""}\n\n', endless=True)
        lines = (await s.text("hub_jobs", view="logs", job_id="j1", lines=3)).splitlines()
        assert set(lines) == {"tick"}
        assert len(lines) <= 3


async def test_waiting_for_the_end_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "POLL", 0.01)
    async with session(tmp_path) as s:
        await s.text("hub_job", **RUN)
        assert "RUNNING" in await s.text("hub_jobs", view="job", job_id="j1", wait=0.02)
        waiting = asyncio.create_task(s.text("hub_jobs", view="job", job_id="j1", wait=600))
        seen = len(s.hub.asked("GET", "/api/jobs/ann/j1"))
        await until(lambda: len(s.hub.asked("GET", "/api/jobs/ann/j1")) > seen + 2)
        s.hub.jobs["j1"]["status"]["stage"] = "COMPLETED"
        assert "COMPLETED" in await asyncio.wait_for(waiting, 30)


async def test_a_scheduled_job(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        assert await s.text("hub_jobs", view="scheduled") == "There are no scheduled jobs."
        line = "s1 at @daily · cpu-basic · python:3.12 · python -c print(1) · next 2026-05-01 12:00 UTC"
        assert await s.text("hub_job", **RUN | {"action": "schedule"}, schedule="@daily") == line
        assert (await s.text("hub_job", action="run_scheduled", job_id="s1")).startswith("job j2 · RUNNING")
        await s.text("hub_job", action="suspend_scheduled", job_id="s1")
        assert "s1 at @daily · suspended" in await s.text("hub_jobs", view="scheduled")
        await s.text("hub_job", action="resume_scheduled", job_id="s1")
        assert await s.text("hub_jobs", view="scheduled") == line
        await s.text("hub_job", action="delete_scheduled", job_id="s1")
        assert s.hub.scheduled == {}
        assert "schedule needs schedule" in await s.problem("hub_job", **RUN | {"action": "schedule"})


# -- prices ------------------------------------------------------------------------------------------------------------


async def test_the_hubs_own_prices_replace_the_listed_ones(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        consent = s.tool("hub_job").needs_consent
        assert consent(RUN) is not None
        assert await s.text("hub_jobs", view="hardware") == (
            "cpu-basic · $0.00 an hour · 2 vCPU · 16 GB memory · 50 GB disk\n"
            "t4-small · $0.60 an hour · 1x T4 16 GB · 4 vCPU · 15 GB memory · 50 GB disk"
        )
        assert consent(RUN) is None  # this Hub gives it for nothing
        assert consent(RUN | {"with_token": True}) is not None
        assert consent(RUN | {"action": "schedule", "schedule": "@daily"}) is not None
        assert "at most $0.30 a run ($0.60 an hour)" in str(consent(RUN | {"hardware": "t4-small"}))
        assert "not known" in str(consent(RUN | {"hardware": "h200"}))


@pytest.mark.parametrize(
    ("arguments", "price"),
    [
        ({"action": "run"}, 0.005),
        ({"action": "run", "hardware": "a100-large", "timeout_minutes": 120}, 5.0),
        ({"action": "run", "hardware": "unheard-of"}, None),
        ({"action": "run", "with_token": True}, None),
        ({"action": "schedule"}, None),
        ({"action": "run_scheduled"}, None),
        ({"action": "cancel"}, None),
    ],
)
def test_a_price_is_told_of_what_does_nothing_but_cost(tmp_path: Path, arguments: dict[str, Any], price: float | None) -> None:
    tools = hub_tools(HubSettings(), LocalWorkspace(tmp_path))
    assert [one.price(arguments) for one in tools if one.name == "hub_job"] == [price]


async def test_a_job_that_fits_under_the_cap_runs_without_a_question(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        expensive = RUN | {"hardware": "h200", "timeout_minutes": 60}
        turn = stage(
            calls(("hub_job", RUN), ("hub_job", RUN | {"with_token": True}), ("hub_job", expensive)),
            tools=s.router.tools,
            auto_approve_usd=1.0,
        )
        outcome = await turn.agent.run_turn("go")
        assert outcome.status == "awaiting_approval"
        assert len(s.hub.asked("POST", "/api/jobs/ann")) == 1
        assert [one.arguments for one in turn.agent.conversation.pending] == [RUN | {"with_token": True}, expensive]


def test_every_hardware_of_the_library_has_a_price() -> None:
    from huggingface_hub import JobHardware

    assert {str(one.value) for one in JobHardware} == set(prices.LISTED)
