"""The way to the Hub: whose token, how failures read, and that nothing waits for a server that does not answer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from agent.loop.agent import TurnOutcome
from agent.testing import calls, says
from agent.tools.hub import HubSettings, hub_tools
from agent.tools.hub import client as hub_client
from agent.tools.hub.text import size, window
from agent.workspace.local import LocalWorkspace
from support.agent.console import ROOT
from support.agent.hub_server import TOKEN, Reply, refused
from support.agent.hub_session import session
from support.agent.openai_server import Answer, serve
from support.agent.processes import until
from support.agent.stage import interrupt, stage

pytestmark = pytest.mark.anyio

READING = {"hub_search", "hub_read", "hub_dataset", "hub_jobs"}
CHANGING = {"hub_files", "hub_repo", "hub_job"}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's client minds these variables; loopback is not to be asked for through a proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_the_tools_and_which_of_them_only_read(tmp_path: Path) -> None:
    tools = hub_tools(HubSettings(), LocalWorkspace(tmp_path))
    assert {tool.name for tool in tools if tool.read_only} == READING
    assert {tool.name for tool in tools if not tool.read_only} == CHANGING


def test_the_library_is_not_imported_before_a_call() -> None:
    check = """
import pathlib, sys
import agent.__main__, agent.loop.agent
from agent.tools.hub import HubSettings, hub_tools
from agent.workspace.local import LocalWorkspace
hub_tools(HubSettings("t"), LocalWorkspace(pathlib.Path(".")))
sys.exit("huggingface_hub" in sys.modules or "httpx" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_credentials_by_their_usual_names() -> None:
    settings = HubSettings.from_credentials({"HF_TOKEN": f"{TOKEN}\n", "HF_ENDPOINT": "https://hub.example.org/"})
    assert (settings.token, settings.endpoint) == (TOKEN, "https://hub.example.org")
    assert settings.viewer_address == "https://datasets-server.hub.example.org"
    assert HubSettings().viewer_address == "https://datasets-server.huggingface.co"
    assert TOKEN not in repr(settings)
    assert HubSettings.from_credentials({"HF_TOKEN": ""}) == HubSettings()


# -- the token ---------------------------------------------------------------------------------------------------------


async def test_the_sessions_token_is_sent_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_somebodyElses")
    async with session(tmp_path) as s:
        s.hub.add("model", "ann/tiny", **{"README.md": b"# Tiny"})
        await s.text("hub_read", repo="ann/tiny")
        await s.text("hub_jobs", view="list")
        assert {request.headers["authorization"] for request in s.hub.requests} == {f"Bearer {TOKEN}"}


async def test_without_a_token_none_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_somebodyElses")
    async with session(tmp_path, token=None) as s:
        s.hub.add("model", "ann/tiny", **{"README.md": b"# Tiny"})
        await s.text("hub_read", repo="ann/tiny")
        await s.text("hub_search", type="model")
        await s.text("hub_jobs", view="hardware")
        assert not any("authorization" in request.headers for request in s.hub.requests)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("hub_jobs", {"view": "list"}),
        ("hub_job", {"action": "run", "image": "python", "command": ["true"]}),
        ("hub_repo", {"action": "create_repository", "repo": "ann/new"}),
        ("hub_files", {"action": "upload", "repo": "ann/tiny", "files": [{"path": "x", "content": "x"}]}),
    ],
)
async def test_what_needs_a_token_says_where_to_put_it(tmp_path: Path, tool: str, arguments: dict[str, object]) -> None:
    async with session(tmp_path, token=None) as s:
        assert "add HF_TOKEN to the session's Secret" in await s.problem(tool, **arguments)
        assert s.hub.requests == []


async def test_the_terminals_agent_reads_the_hub_and_hides_the_token(tmp_path: Path) -> None:
    call = {"name": "hub_read", "arguments": '{"repo": "ann/tiny"}'}
    asks = Answer(({"tool_calls": [{"index": 0, "id": "a", "function": call}]},), "tool_calls")
    async with session(tmp_path) as s, serve(asks, Answer(({"content": "It is small."},))) as model:
        s.hub.add("model", "ann/tiny", **{"README.md": f"# Tiny\nSomebody wrote {TOKEN} here.".encode()})
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", "--model", "some-model", "--base-url", model.url, "--workdir", str(tmp_path)),
            *("--prompt", "What is ann/tiny?"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "HF_TOKEN": TOKEN, "HF_ENDPOINT": s.hub.url, "SOME_API_KEY": "sk-secret"},
            cwd=ROOT,
        )
        shown, _ = await asyncio.wait_for(process.communicate(), 120)
        paths = [request.path for request in s.hub.requests]
        assert paths == ["/api/models/ann/tiny", "/ann/tiny/resolve/main/README.md"]  # and nothing of the library's own
        assert {request.headers["authorization"] for request in s.hub.requests} == {f"Bearer {TOKEN}"}
        heard = model.requests[1]["messages"][-1]["content"]
    assert process.returncode == 0, shown
    assert "Somebody wrote [REDACTED] here." in heard
    assert "It is small." in shown.decode()
    assert TOKEN not in shown.decode()
    assert TOKEN not in json.dumps(model.requests)


# -- failures ----------------------------------------------------------------------------------------------------------

INFO = "/api/models/ann/tiny"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (refused(401, "", "Invalid credentials in Authorization header"), "does not accept this session's token"),
        (refused(404, "RepoNotFound", "Repository not found"), "check the name and the type.\n[404] Repository not found"),
        (refused(404, "RevisionNotFound", "Invalid rev id"), "view=refs"),
        (refused(404, "EntryNotFound", "Entry not found"), "path=/"),
        (refused(403, "GatedRepo", "You are not in the authorized list"), "has to ask for it at {url}/ann/tiny."),
        (refused(403, "", "You need write access"), "lacks the permission"),
        (refused(402, "", "Payment required"), "has no credit"),
        (refused(409, "", "It exists"), "[409] It exists"),
        (refused(429, "", "Slow down", RateLimit='"api";r=0;t=55'), "try again in 55 s"),
        (refused(429, "", "Slow down", **{"Retry-After": "7"}), "try again in 7 s"),
        (refused(429, "", "Slow down"), "try again in some minutes"),
        (refused(500, "", "Internal Error"), "has trouble; try again later.\n[500] Internal Error"),
    ],
)
async def test_a_refusal_names_the_remedy(tmp_path: Path, reply: Reply, words: str) -> None:
    async with session(tmp_path) as s:
        s.hub.replies[INFO] = reply
        assert words.format(url=s.hub.url) in await s.problem("hub_read", repo="ann/tiny")


@pytest.mark.parametrize(
    "reply", [refused(401, "RepoNotFound", "Repository not found"), refused(403, "GatedRepo", "Access is restricted")]
)
async def test_a_missing_token_is_named_as_a_cause(tmp_path: Path, reply: Reply) -> None:
    async with session(tmp_path, token=None) as s:
        s.hub.replies[INFO] = reply
        assert "add HF_TOKEN to the session's Secret" in await s.problem("hub_read", repo="ann/tiny")


async def test_a_rate_limit_is_reported_at_once_instead_of_waiting(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.replies["/api/models/ann/tiny/preupload/main"] = refused(429, "", "Slow down", RateLimit='"api";r=0;t=280')
        problem = await s.problem("hub_files", action="upload", repo="ann/tiny", files=[{"path": "x", "content": "x"}])
        assert "try again in 280 s" in problem
        assert len(s.hub.requests) == 1


async def test_a_hub_that_is_not_there(tmp_path: Path) -> None:
    settings = HubSettings(TOKEN, "http://127.0.0.1:9", "http://127.0.0.1:9")
    read, dataset = (tool for tool in hub_tools(settings, LocalWorkspace(tmp_path)) if tool.name in ("hub_read", "hub_dataset"))
    with pytest.raises(Exception, match="cannot be reached"):
        await read.call({"repo": "ann/tiny"})
    with pytest.raises(Exception, match="cannot be reached"):
        await dataset.call({"dataset": "ann/rows"})


async def test_offline_mode_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    async with session(tmp_path) as s:
        assert "HF_HUB_OFFLINE is set" in await s.problem("hub_read", repo="ann/tiny")


@pytest.mark.parametrize("repo", ["no spaces", "a/b/c", "../../api", "ann/..", ""])
async def test_a_wrong_name_is_told_without_asking(tmp_path: Path, repo: str) -> None:
    async with session(tmp_path) as s:
        assert "epo id" in await s.problem("hub_read", repo=repo) or "epo_id" in await s.problem("hub_read", repo=repo)
        assert s.hub.requests == []


@pytest.mark.parametrize("path", ["../../api/whoami-v2", "a/../../b", "./x"])
async def test_a_path_does_not_lead_elsewhere(tmp_path: Path, path: str) -> None:
    async with session(tmp_path) as s:
        assert "is no path" in await s.problem("hub_read", repo="ann/tiny", path=path)
        files = [{"path": path}]
        assert "is no path" in await s.problem("hub_files", action="download", repo="ann/tiny", files=files)
        assert s.hub.requests == []


# -- a server that does not answer -------------------------------------------------------------------------------------


async def test_a_hanging_server_blocks_nothing_and_an_interrupt_ends_the_turn(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.hold(INFO)
        loop_runs_on = asyncio.Event()
        turn_stage = stage(calls(("hub_read", {"repo": "ann/tiny"})), says("back"), tools=s.router.tools)
        turn: asyncio.Task[TurnOutcome] = asyncio.create_task(turn_stage.agent.run_turn("go"))
        await until(lambda: s.hub.asked("GET", INFO))  # this server runs on the very loop
        asyncio.get_running_loop().call_soon(loop_runs_on.set)
        await asyncio.wait_for(loop_runs_on.wait(), 10)
        await interrupt(turn_stage, turn)
        assert (await turn_stage.agent.run_turn("again")).message == "back"


async def test_a_process_ends_although_a_call_hangs(tmp_path: Path) -> None:
    """asyncio waits for the threads of its own executor; a server could keep the process from ending."""
    script = """
import asyncio, sys
from pathlib import Path
from agent.tools.hub import HubSettings, client, hub_tools
from agent.workspace.local import LocalWorkspace

async def main():
    client.HTTP_TIMEOUT = 600
    read = hub_tools(HubSettings(None, sys.argv[1]), LocalWorkspace(Path(".")))[1]
    call = asyncio.create_task(read.call({"repo": "ann/tiny"}))
    await asyncio.to_thread(sys.stdin.readline)
    call.cancel()
    await asyncio.wait({call})
    print("cancelled:", call.cancelled())

asyncio.run(main())
"""
    async with session(tmp_path) as s:
        s.hub.hold(INFO)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, s.hub.url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        await until(lambda: s.hub.asked("GET", INFO))
        shown, _ = await asyncio.wait_for(process.communicate(b"\n"), 60)
    assert (shown, process.returncode) == (b"cancelled: True\n", 0)


async def test_work_that_was_given_up_sends_nothing_more(tmp_path: Path) -> None:
    """An upload that is interrupted before its commit is not committed afterwards."""
    async with session(tmp_path) as s:
        s.hub.add("model", "ann/tiny")
        held = s.hub.hold("/api/models/ann/tiny/preupload/main")
        files = [{"path": "x", "content": "x"}]
        upload = asyncio.create_task(s.call("hub_files", action="upload", repo="ann/tiny", files=files))
        await until(lambda: s.hub.asked("POST", "/api/models/ann/tiny/preupload/main"))
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        held.set()
        await until(lambda: not any(thread.name == "hub" for thread in threading.enumerate()))
        assert len(s.hub.requests) == 1
        assert "x" not in s.hub.repositories["model", "ann/tiny"].files


async def test_no_request_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library passes timeout=None in most places, which httpx takes for no limit."""
    monkeypatch.setattr(hub_client, "HTTP_TIMEOUT", 0.2)
    async with session(tmp_path) as s:
        s.hub.hold(INFO)
        s.hub.hold("/api/models")
        assert "did not answer in time" in await s.problem("hub_read", repo="ann/tiny")
        assert "did not answer in time" in await s.problem("hub_search", type="model")


async def test_requests_of_others_are_left_alone(tmp_path: Path) -> None:
    """The hooks are in a client that everything in this process shares."""
    async with session(tmp_path) as s:
        s.hub.replies["/slow"] = refused(429, "", "Slow down")
        await s.text("hub_search", type="paper", query="llama")

        def ask() -> httpx.Response:
            from huggingface_hub import get_session

            return get_session().get(f"{s.hub.url}/slow")

        response = await asyncio.to_thread(ask)
        assert response.status_code == 429
        assert response.request.extensions["timeout"]["read"] is None


# -- text --------------------------------------------------------------------------------------------------------------


def test_long_text_is_read_in_pieces() -> None:
    text = "".join(chr(97 + at % 26) for at in range(45_000))
    first = window(text, 0)
    assert first == f"{text[:20_000]}\n[read on with offset 20000; 45000 characters in all]"
    assert window(text, 40_000) == text[40_000:]
    with pytest.raises(Exception, match="only 45000"):
        window(text, 45_000)


def test_sizes() -> None:
    assert [size(count) for count in (None, 0, 999, 1500, 2_340_000, 5e9, 7e12)] == [
        *(None, "0 B", "999 B", "1.5 kB", "2.34 MB", "5 GB", "7 TB")
    ]
