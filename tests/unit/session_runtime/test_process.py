"""How a session ends, is stopped, is killed, and resumes: with real processes and signals."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from agent.model.failure import CredentialsError
from agent.testing import calls, fails, says
from session_runtime.session.outcome import CUT_OFF
from session_runtime.session.session import MAX_RESUMES
from session_runtime.session.store import Store
from session_runtime.wire import SessionReport
from session_runtime.workspace.protocol import GREETING
from support.runtime.harness import DEADLINE, alive, eventually, runtime, runtime_process

pytestmark = pytest.mark.anyio


async def test_a_task_reports_its_outcome_and_ends_with_status_0(short_path: Path) -> None:
    script = (calls(("write", {"path": "a.txt", "content": "made"})), says("It is made."))
    async with runtime(short_path, *script, mode="Task", prompt="make it") as run:
        assert await run.ended() == 0
        report = SessionReport.model_validate_json(run.termination_log.read_text())
        assert report.outcome == "Completed"
        assert report.last_message == "It is made."
        assert report.usage.tool_calls == 1
        assert report.message_count == 4
        assert (short_path / "work" / "a.txt").read_text() == "made"
        assert (short_path / "ended").exists()
        await eventually(lambda: not (short_path / "w.sock").exists())


async def test_a_task_whose_model_fails_says_what_to_do(short_path: Path) -> None:
    refusal = fails(CredentialsError("invalid key"))
    async with runtime(short_path, refusal, mode="Task", prompt="go") as run:
        assert await run.ended() == 0
        report = SessionReport.model_validate_json(run.termination_log.read_text())
        assert report.outcome == "Failed"
        assert report.outcome_message is not None
        assert "scripted" in report.outcome_message
        assert "invalid key" in report.outcome_message
        assert "spec.credentials.secretName" in report.outcome_message


async def test_a_task_that_is_interrupted_has_failed(short_path: Path) -> None:
    async with runtime(short_path, says("hm", hangs=True), mode="Task", prompt="go") as run:
        await run.until("assistant_chunk")
        await run.submit("interrupt")
        assert await run.ended() == 0
        report = SessionReport.model_validate_json(run.termination_log.read_text())
        assert (report.outcome, report.outcome_message) == ("Failed", "The task's turn was interrupted: by the user.")


async def test_a_termination_message_that_is_missing_is_no_trouble(short_path: Path) -> None:
    async with runtime(short_path, says("done"), mode="Task", prompt="go") as run:
        run.termination_log.unlink()
        assert await run.ended() == 0
        assert not run.termination_log.exists()


async def test_a_shutdown_kills_the_tool_and_is_quick(short_path: Path) -> None:
    script = calls(("bash", {"command": "sleep 600 & echo $! > pid; wait"}))
    async with runtime(short_path, script) as run:
        await run.submit("user_input", text="go")
        pid = await _pid(short_path)
        started = time.monotonic()
        await run.submit("shutdown")
        assert await run.ended() == 0
        assert time.monotonic() - started < 2
        assert not alive(pid)


@asynccontextmanager
async def stuck_workspace(folder: Path) -> AsyncIterator[asyncio.Event]:
    """In place of the workspace's server, one that takes requests and answers none; the event says that it has taken one."""
    taken = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        await reader.readline()
        taken.set()
        await reader.read()
        writer.close()

    await eventually((folder / "w.sock").exists)
    (folder / "w.sock").unlink()
    async with await asyncio.start_unix_server(serve, str(folder / "w.sock")):
        yield taken


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
async def test_a_stuck_workspace_does_not_delay_the_end(short_path: Path, number: signal.Signals | None) -> None:
    script = {"calls": [["bash", {"command": "true"}]]}
    async with runtime_process(short_path, script, start=False) as run, stuck_workspace(short_path) as taken:
        await run.start()
        async with run.client() as client:
            await client.submit("user_input", text="go")
            await taken.wait()
            started = time.monotonic()
            if number is None:
                await client.submit("shutdown")
        status, _ = await run.end(number)
        assert time.monotonic() - started < 2
        assert status == (0 if number is None else 128 + number)
    with closing(Store(short_path / "state")) as store:
        saved = store.load().conversation
    if number is None:
        assert [message.role for message in saved.messages] == ["user", "assistant", "tool"]
    else:  # the next process knows that the call had begun
        assert [call.id for call in saved.open_calls] == list(saved.started)
    assert (short_path / "ended").exists() == (number is None)


async def test_a_prompt_is_taken_once_in_a_sessions_life(short_path: Path) -> None:
    for _ in range(3):
        async with runtime_process(short_path, {"text": "hello"}, prompt="hi") as run:
            events = await run.events(submission="prompt")
            assert [e.type for e in events].count("processing") == 1
            await run.end(signal.SIGKILL)
    async with runtime_process(short_path, {"text": "hello"}, prompt="hi") as run, run.client() as client:
        assert (await client.info())["message_count"] == 2


async def test_sigterm_cancels_the_turn_and_the_next_process_resumes_it(short_path: Path) -> None:
    script = (
        {"calls": [["bash", {"command": "echo one >> log; test -e again || sleep 600 & echo $! > pid; wait"}]]},
        {"text": "all done"},
    )
    async with runtime_process(short_path, *script, mode="Task", prompt="go") as run:
        pid = await _pid(short_path)
        before = await run.until("tool_call")
        started = time.monotonic()
        status, printed = await run.end(signal.SIGTERM)
        assert time.monotonic() - started < 2
        assert status == 128 + signal.SIGTERM
        assert (short_path / "termination-log").read_text() == ""
        assert "call      bash" in printed
        await eventually(lambda: not alive(pid))
        await run.start()
        events = await run.events()
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        outputs = [e for e in events if e.type == "tool_output"]
        assert len(outputs) == 1
        assert outputs[0].data["success"] is False
        assert outputs[0].seq > before.seq
        assert {e.submission_id for e in events if e.type == "turn_complete"} == {"prompt"}
        assert (await run.end())[0] == 0
        assert json.loads((short_path / "termination-log").read_text())["outcome"] == "Completed"
        assert (short_path / "work" / "log").read_text() == "one\n"


async def test_kill_in_the_models_answer_asks_for_it_anew(short_path: Path) -> None:
    script = {"text": "word " * 20, "delay": 0.05}
    async with runtime_process(short_path, script, prompt="talk") as run, run.client() as client:
        await run.until("assistant_chunk")
        waiting = await client.submit("user_input", text="never mind, this waits")
        await run.end(signal.SIGKILL)
        await run.start()
        events = await run.events(submission="prompt")
        assert events[-1].type == "turn_complete"
        chunks = [e.data for e in events if e.type == "assistant_chunk"]
        cut_off = chunks[0]["message_id"]
        assert {"message_id": cut_off, "superseded": True} in chunks
        whole = next(e for e in events if e.type == "assistant_message")
        pieces = "".join(c["text"] for c in chunks if c["message_id"] == whole.data["message_id"])
        assert pieces == whole.data["text"]
        async with run.client() as again:
            info = await again.info()
        assert info["queued"] + info["is_processing"] >= 0
        assert (await run.events(submission=waiting))[-1].type == "error"


async def test_what_ends_the_process_again_and_again_is_cut_off(short_path: Path) -> None:
    script = ({"text": "thinking", "hangs": True}, {"text": "better"})
    async with runtime_process(short_path, *script, prompt="crash") as run:
        for _ in range(MAX_RESUMES + 1):
            async with run.client() as client:
                after = (await client.info())["last_seq"]
            await run.until("assistant_chunk", after=max(0, after - 1))
            await run.end(signal.SIGKILL)
            await run.start()
        error = (await run.events(submission="prompt"))[-1]
        assert (error.type, error.data) == ("error", {"kind": "cut_off", "message": CUT_OFF})
        async with run.client() as client, asyncio.timeout(DEADLINE):
            assert (await client.info())["is_active"] is True


async def test_the_log_reads_as_the_conversation_without_secrets(short_path: Path) -> None:
    script = (
        {"calls": [["bash", {"command": "echo key is sk-very-secret-1234; printf '\\033[31m'"}]]},
        {"text": "Two\nlines with sk-very-secret-1234.\033[31m"},
    )
    environment = {"AGENTSESSION_CREDENTIAL_OPENAI_API_KEY": "sk-very-secret-1234"}
    async with runtime_process(short_path, *script, environment=environment, mode="Task", prompt="Look.") as run:
        status, printed = await run.end()
        assert status == 0
        said = [line.split(" ", 1)[1] for line in printed.splitlines()]
        assert said == [
            "ready     model scripted, tools: bash, read, write, edit, list, plan, web_fetch, research, "
            "hub_search, hub_read, hub_dataset, hub_jobs, hub_files, hub_repo, hub_job",
            "user      Look.",
            """call      bash {"command": "echo key is [REDACTED]; printf '\\\\033[31m'"}""",
            "output    key is [REDACTED]",
            "assistant Two ⏎ lines with [REDACTED]. [31m",
            "done      the turn is complete",
            "end       The task's turn is complete.",
        ]
        log = (short_path / "termination-log").read_text()
        database = b"".join(path.read_bytes() for path in (short_path / "state").iterdir())
        assert "sk-very-secret" not in log
        assert b"sk-very-secret" not in database


async def test_two_processes_do_not_share_a_database(short_path: Path) -> None:
    async with runtime_process(short_path, prompt=None) as run:
        await run.until("ready")
        second = type(run)(short_path, (), {})
        await second.spawn()
        status, printed = await second.end()
        assert status == 1
        assert "in use by another process" in printed


@pytest.mark.parametrize(("text", "words"), [("", "AGENTSESSION_CONFIG"), ("{}", "uid"), ("nonsense", "JSON")])
async def test_a_broken_configuration_is_named(short_path: Path, text: str, words: str) -> None:
    async with runtime_process(short_path, environment={"AGENTSESSION_CONFIG": text}, start=False) as run:
        await run.spawn()
        status, printed = await run.end()
        assert status == 2
        assert words in printed


async def _pid(folder: Path) -> int:
    path = folder / "work" / "pid"
    await eventually(lambda: path.exists() and path.read_text().strip().isdigit())
    return int(path.read_text())


async def test_a_session_can_be_stopped_and_started_any_number_of_times(short_path: Path) -> None:
    script = ({"text": "thinking", "hangs": True},)
    async with runtime_process(short_path, *script, prompt="think") as run, run.client() as client:
        for _ in range(MAX_RESUMES + 2):
            await run.until("assistant_chunk", after=max(0, (await client.info())["last_seq"] - 1))
            assert (await run.end(signal.SIGTERM))[0] == 128 + signal.SIGTERM
            await run.start(keep_port=True)
        assert (await client.info())["is_processing"] is True


async def test_a_shutdown_comes_before_what_the_last_process_was_working_on(short_path: Path) -> None:
    script = ({"text": "thinking", "hangs": True},)
    async with runtime_process(short_path, *script, prompt="think") as run:
        await run.until("assistant_chunk")
        await run.end(signal.SIGKILL)
        await run.start()
        async with run.client() as client:
            await client.submit("shutdown")
        assert (await run.end())[0] == 0
