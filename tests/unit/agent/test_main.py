"""`python -m agent` as a person meets it: at a real terminal, killed, given wrong options."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.terminal.session_file import SessionFile
from support.agent import mcp_server
from support.agent.console import ROOT, console
from support.agent.openai_server import Answer, OpenAIServer, serve
from support.agent.processes import gone, read_pid, until

pytestmark = pytest.mark.anyio


def runs(command: str) -> Answer:
    """The model calls `bash`."""
    function = {"name": "bash", "arguments": json.dumps({"command": command})}
    return Answer(({"tool_calls": [{"index": 0, "id": f"call {command}", "function": function}]},), "tool_calls")


def says(text: str, *, hangs: bool = False) -> Answer:
    return Answer(({"content": text},), hangs=hangs)


def options(server: OpenAIServer, workdir: Path, *more: str) -> list[str]:
    return ["--model", "some-model", "--base-url", server.url, "--workdir", str(workdir), *more]


def results(server: OpenAIServer) -> list[str]:
    """The tool results in the last request."""
    return [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]


async def test_consent_is_given_refused_and_edited_at_the_terminal(tmp_path: Path) -> None:
    script = (runs("echo one >a"), runs("echo two >b"), runs("echo three >c"), says("All is done."))
    async with serve(*script) as server, console(*options(server, tmp_path, "--ask", "bash")) as person:
        await person.shows("\n> ")
        person.type("go\n")
        await person.shows("? bash: the policy says ask for bash\n  command: echo one >a\n  run it? [y]es, [n]o, [e]dit: ")
        person.type("what\n")
        await person.shows("[e]dit: ")
        person.type("y\n")
        await person.shows("command: echo two >b\n  run it? [y]es, [n]o, [e]dit: ")
        person.type("n\n")
        await person.shows("why not")
        person.type("b is mine\n")
        await person.shows("A person denied this call; it was not run. They said: b is mine\n")
        await person.shows("command: echo three >c\n  run it? [y]es, [n]o, [e]dit: ")
        person.type("e\n")
        await person.shows('now: {"command": "echo three >c"}')
        person.type("echo four >d\n")
        await person.shows("that is not JSON")
        await person.shows("[e]dit: ")
        person.type("e\n")
        await person.shows("(a JSON object): ")
        person.type('{"command": "echo four >d"}\n')
        await person.shows("All is done.\n\n> ")
        person.type("/quit\n")
        assert await person.exit_status() == 0
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == {"a": "one\n", "d": "four\n"}


async def test_ctrl_c_ends_a_question_then_a_turn_and_then_leaves(tmp_path: Path) -> None:
    script = (runs("echo one >a"), says("Well, ", hangs=True))
    async with serve(*script) as server, console(*options(server, tmp_path, "--ask", "*")) as person:
        await person.shows("\n> ")
        person.type("go\n")
        await person.shows("[e]dit: ")
        person.press_ctrl_c()
        await person.shows("[interrupted: interrupted by the user]\n\n> ")
        person.type("go on\n")
        await person.shows("Well, ")
        person.press_ctrl_c()
        await person.shows("[interrupted: by the user]\n\n> ")
        person.press_ctrl_c()
        assert await person.exit_status() == 130
        assert "Traceback" not in person.screen
    assert os.listdir(tmp_path) == []


async def test_ctrl_c_in_an_editor_is_for_the_editor(tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    # As in vim, which keeps running, too.
    editor.write_text('#!/bin/sh\ntrap "" INT\nkill -INT 0\necho \'{"command": "echo two >b"}\' >"$1"\n')
    editor.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    async with (
        serve(runs("echo one >a"), says("Done.")) as server,
        console(*options(server, work, "--ask", "bash"), EDITOR=str(editor)) as person,
    ):
        await person.shows("\n> ")
        person.type("go\n")
        await person.shows("[e]dit: ")
        person.type("e\n")
        await person.shows("Done.\n\n> ")
    assert os.listdir(work) == ["b"]


async def test_a_kill_in_a_call_is_resumed_and_the_model_told(tmp_path: Path) -> None:
    session = ("--session", str(tmp_path / "session"))
    waits = f"echo $$ >{tmp_path}/begun; sleep 600"
    async with serve(runs(waits), says("I see."), says("Bye.")) as server:
        async with console(*options(server, tmp_path, *session)) as person:
            await person.shows("\n> ")
            person.type("do it\n")
            await until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text())
            person.kill()
            await person.exit_status()
        os.killpg(int((tmp_path / "begun").read_text()), 9)  # the command keeps running without its agent
        async with console(*options(server, tmp_path, *session)) as person:
            await person.shows("your last message: do it]\n[was cut off: bash ")
            await person.shows("I see.\n\n> ")
            person.type("/undo\n")
            await person.shows("[taken back: do it]")
        [told] = results(server)
        assert "the agent was restarted while this call was under way" in told
        assert len(server.requests) == 2
    conversation = SessionFile(tmp_path / "session").load()
    assert conversation is not None
    assert conversation.messages == ()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
async def test_the_end_of_the_agent_is_the_end_of_its_commands(end: signal.Signals, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    session = ("--session", str(tmp_path / "session"))
    async with (
        serve(runs(f"echo $$ >{begun}; exec sleep 600")) as server,
        console(*options(server, tmp_path, *session, "--prompt", "go")) as person,
    ):
        command = await read_pid(begun)
        person.send(end)
        assert await person.exit_status() == 128 + end
    await gone(command)
    conversation = SessionFile(tmp_path / "session").load()
    assert conversation is not None
    assert conversation.in_turn  # to be resumed


async def test_what_the_terminal_cannot_show_is_shown_by_its_number(tmp_path: Path) -> None:
    async with (
        serve(says("ünï")) as server,
        console(*options(server, tmp_path, "--prompt", "go"), PYTHONIOENCODING="ascii") as person,
    ):
        await person.shows("\\xfcn\\xef")
        assert await person.exit_status() == 0


async def test_a_kill_while_a_question_is_open_asks_it_again(tmp_path: Path) -> None:
    session = ("--session", str(tmp_path / "session"), "--ask", "bash")
    async with serve(runs("echo one >a"), says("Done.")) as server:
        async with console(*options(server, tmp_path, *session)) as person:
            await person.shows("\n> ")
            person.type("do it\n")
            await person.shows("[e]dit: ")
            person.kill()
            await person.exit_status()
        async with console(*options(server, tmp_path, *session)) as person:
            await person.shows("command: echo one >a\n  run it? [y]es, [n]o, [e]dit: ")
            person.type("y\n")
            await person.shows("Done.\n\n> ")
    assert (tmp_path / "a").read_text() == "one\n"
    assert len(server.requests) == 2


async def test_an_mcp_server_on_stdio_with_a_secret_of_its_own(tmp_path: Path) -> None:
    function = {"name": "local__environment", "arguments": "{}"}
    asks = Answer(({"tool_calls": [{"index": 0, "id": "a", "function": function}]},), "tool_calls")
    script = Path(mcp_server.__file__)
    mcp = ("--mcp", f"local={sys.executable} {script}", "--mcp-secret", "local=LOCAL_TOKEN", "--allow", "local__*")
    secrets = {"LOCAL_TOKEN": "token-for-local", "OTHER_TOKEN": "token-for-others"}
    async with serve(asks, says("Done.")) as server:
        async with console(*options(server, tmp_path, *mcp, "--prompt", "go"), **secrets) as person:
            assert await person.exit_status() == 0
        [seen] = results(server)
        assert "LOCAL_TOKEN" in seen
        assert "OTHER_TOKEN" not in seen
        assert {t["function"]["name"].split("__")[0] for t in server.requests[0]["tools"]} == {"local"}


async def test_a_servers_question_waits_for_the_person_or_for_ctrl_c(tmp_path: Path) -> None:
    function = {"name": "local__seat", "arguments": '{"where": "Rome"}'}
    asks = Answer(({"tool_calls": [{"index": 0, "id": "a", "function": function}]},), "tool_calls")
    mcp = ("--mcp", f"local={sys.executable} {mcp_server.__file__}")
    async with serve(asks, asks, says("Done.")) as server, console(*options(server, tmp_path, *mcp)) as person:
        await person.shows("\n> ")
        person.type("go\n")
        await person.shows("? local asks, for local__seat: Which seat to Rome?")
        await person.shows("Seat [aisle]: ")
        person.press_ctrl_c()
        await person.shows("[interrupted: by the user]\n\n> ")
        person.type("once more\n")
        await person.shows("Seat [aisle]: ")
        person.type("roof\n")
        await person.shows("Seat must be of: window, aisle")
        await person.shows("Seat [aisle]: ")
        person.type("1\n")
        await person.shows("  | Rome: accept {'seat': 'window'}")
        await person.shows("Done.\n\n> ")
        person.press_ctrl_c()
        assert await person.exit_status() == 130
        assert "Traceback" not in person.screen


WRONG = {
    "no model": ((), "the following arguments are required: --model"),
    "no server": (("--model", "m", "--base-url", "localhost:8000"), "'localhost:8000' does not start with http"),
    "no folder": (("--model", "m", "--workdir", "/no/such"), "--workdir: /no/such is not a folder"),
    "no number": (("--model", "m", "--max-iterations", "0"), "'0' is not a whole number of at least 1"),
    "no amount": (("--model", "m", "--budget-usd", "nan"), "'nan' is not an amount in dollars"),
    "no prompt": (("--model", "m", "--prompt", ""), "argument --prompt: the text is empty"),
    "no words": (("--model", "m", "--prompt", "\udcff"), "argument --prompt: the text is not UTF-8"),
    "no session": (("--model", "m", "--session", "/"), "--session: / is not a file; name another one"),
    "no end": (("--model", "m", "--session", "/dev/zero"), "--session: /dev/zero is not a file; name another one"),
    "no place": (("--model", "m", "--session", "/no/such/file"), "--session: /no/such/file cannot be written: No such file"),
    "other version": (("--model", "m", "--session", "{old}"), "old is not a session file of this version; name another one"),
    "no text": (("--model", "m", "--session", "{raw}"), "raw is not a session file (it is no text); name another one"),
}


@pytest.mark.parametrize(("given", "told"), WRONG.values(), ids=WRONG.keys())
def test_wrong_options_are_one_clear_line(given: tuple[str, ...], told: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text('{"version": 99}')
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    places = {"old": str(tmp_path / "old"), "raw": str(tmp_path / "raw")}
    command = [sys.executable, "-m", "agent", *(option.format_map(places) for option in given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert (tmp_path / "old").read_text() == '{"version": 99}'


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            Answer(status=401, error={"message": "Incorrect key", "code": "invalid_api_key"}),
            "does not accept the API key (HTTP 401). Check the key in the session's credentials. It said: Incorrect key]",
        ),
        (
            Answer(status=404, error={"message": "No such model", "code": "model_not_found"}),
            "does not know the model some-model or this address (HTTP 404). Check the model's name and baseURL (it usually "
            "ends with /v1). It said: No such model]",
        ),
    ],
)
async def test_what_the_provider_refuses_is_one_clear_line(answer: Answer, told: str, tmp_path: Path) -> None:
    async with serve(answer) as server, console(*options(server, tmp_path, "--prompt", "hi")) as person:
        await person.shows(f"[error: The model server at {server.url} {told}\n")
        assert await person.exit_status() == 1
        assert "Traceback" not in person.screen


async def test_a_missing_key_is_told_at_once(tmp_path: Path) -> None:
    none = {"OPENAI_API_KEY": None, "OPENAI_ADMIN_KEY": None}
    async with console("--model", "openai/gpt-5-mini", "--workdir", str(tmp_path), "--prompt", "hi", **none) as person:
        await person.shows("[error: There is no API key for the model provider openai. Add it")
        assert await person.exit_status() == 1
        assert "trying again" not in person.screen


def test_nothing_slow_is_imported_before_it_is_needed() -> None:
    code = "import agent.__main__, sys; print([m for m in ('litellm', 'mcp', 'openai', 'huggingface_hub') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert shown.stdout == "[]\n"


async def test_the_end_of_input_leaves_a_question_for_later(tmp_path: Path) -> None:
    session = tmp_path / "session"
    async with serve(runs("echo one >a")) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", *options(server, tmp_path, "--session", str(session), "--ask", "bash")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        await asyncio.wait_for(process.communicate(b"do it\n"), 120)
    assert process.returncode == 0
    conversation = SessionFile(session).load()
    assert conversation is not None
    assert [pending.tool for pending in conversation.pending] == ["bash"]
