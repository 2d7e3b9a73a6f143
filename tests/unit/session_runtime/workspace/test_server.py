"""The workspace server over its real socket, with real processes."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.workspace import CommandInterrupted, Entry, ImageFile, Listing, WorkspaceError
from session_runtime.workspace import client
from session_runtime.workspace.client import SocketWorkspace
from session_runtime.workspace.protocol import GREETING, MESSAGE_LIMIT
from session_runtime.workspace.server import DEFAULT_PATH, MAX_TIMEOUT, command_environment
from support.agent.pictures import png
from support.runtime.harness import DEADLINE, alive, eventually
from support.runtime.workspace_process import ROOT, client_of, server

pytestmark = pytest.mark.anyio


async def test_commands_and_files(short_path: Path) -> None:
    async with server(short_path):
        workspace = SocketWorkspace(short_path / "w.sock")
        await workspace.write("sub/a.txt", "one\ntwo\nthree \u00e9\n")
        assert await workspace.read("sub/a.txt", offset=2, limit=1) == "two\n"
        assert (await workspace.edit("sub/a.txt", "two", "2")).count == 1
        result = await workspace.run("cat sub/a.txt; echo oops >&2; exit 3", timeout=10)
        assert (result.exit_code, result.output) == (3, "one\n2\nthree \u00e9\noops\n")
        with pytest.raises(WorkspaceError, match="no such file"):
            await workspace.read("b.txt")
        assert await workspace.list() == Listing((Entry("sub", "folder", (short_path / "work" / "sub").stat().st_size),))
        assert await workspace.list("sub", glob="*.txt") == Listing((Entry("a.txt", "file", 15),))
        assert stat.S_IMODE((short_path / "w.sock").stat().st_mode) == 0o660


async def test_an_image_comes_as_its_bytes(short_path: Path) -> None:
    async with server(short_path):
        workspace = SocketWorkspace(short_path / "w.sock")
        await workspace.list()
        content = png(640, 480, padding=3_700_000)
        (short_path / "work" / "shot").write_bytes(content)
        with pytest.raises(ImageFile, match="shot is no text: PNG image, 640 x 480 pixels"):
            await workspace.read("shot")
        assert await workspace.read_image("shot") == content
        (short_path / "work" / "shot").write_bytes(content * 2)
        with pytest.raises(WorkspaceError, match=r"too large to be shown .*`magick") as caught:
            await workspace.read_image("shot")
        assert not isinstance(caught.value, ImageFile)


async def test_output_comes_as_it_is_printed(short_path: Path) -> None:
    async with server(short_path):
        pieces: list[str] = []
        first = asyncio.Event()

        def take(piece: str) -> None:
            pieces.append(piece)
            first.set()

        workspace = SocketWorkspace(short_path / "w.sock")
        running = asyncio.create_task(
            workspace.run("echo first; until test -e go; do sleep 0.01; done; echo last", timeout=20, on_output=take)
        )
        async with asyncio.timeout(DEADLINE):
            await first.wait()
            assert pieces == ["first\n"]
            await workspace.write("go", "")
            assert (await running).output == "first\nlast\n" == "".join(pieces)


async def test_cancelling_kills_the_whole_group_and_keeps_its_output(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(short_path):
        workspace = SocketWorkspace(short_path / "w.sock")
        running = asyncio.create_task(workspace.run("echo so far; sleep 600 & echo $! > pid; sleep 600", timeout=600))
        path = short_path / "work" / "pid"
        await eventually(lambda: path.exists() and path.read_text().endswith("\n"))
        monkeypatch.setattr(client, "INTERRUPT_SECONDS", DEADLINE)
        running.cancel()
        with pytest.raises(CommandInterrupted) as interrupted:
            await running
        assert interrupted.value.result.output == "so far\n"
        await eventually(lambda: not alive(int(path.read_text())))
        assert (await workspace.run("echo still here", timeout=10)).output == "still here\n"


async def test_time_is_limited(short_path: Path) -> None:
    async with server(short_path):
        workspace = SocketWorkspace(short_path / "w.sock")
        result = await workspace.run("echo begun; sleep 600", timeout=0.3)
        assert (result.timed_out, result.exit_code, result.output) == (True, None, "begun\n")
        assert MAX_TIMEOUT == 3600


async def test_output_is_limited(short_path: Path) -> None:
    async with server(short_path):
        result = await SocketWorkspace(short_path / "w.sock").run("yes 0123456789 | head -c 5000000; echo end", timeout=60)
        assert result.truncated
        assert len(result.output) < 400_000
        assert result.output.startswith("0123456789\n")
        assert result.output.endswith("end\n")


def test_commands_get_the_environment_of_their_image(tmp_path: Path) -> None:
    image = {
        "PATH": "/opt/java/bin:/bin",
        "JAVA_HOME": "/opt/java",
        "LD_LIBRARY_PATH": "/opt/lib",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "PIP_INDEX_URL": "https://pip.example/simple",
        "https_proxy": "http://proxy.example",
        "LANG": "de_DE.UTF-8",
    }
    others = {"HOME": "/root", "TERM": "xterm", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "LITELLM_MODE": "PRODUCTION"}
    given = command_environment(tmp_path, {**image, **others, "AGENTSESSION_ANY": "x"})
    assert given == {**image, "HOME": str(tmp_path), "TERM": "dumb", "PAGER": "cat"}
    assert command_environment(tmp_path, {}) == {
        "PATH": DEFAULT_PATH,
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PAGER": "cat",
    }


async def test_a_command_sees_that_environment(short_path: Path) -> None:
    async with server(short_path):
        result = await SocketWorkspace(short_path / "w.sock").run("echo $JAVA_HOME $HOME $AGENTSESSION_SECRET.", timeout=10)
        assert result.output == f"/opt/java {short_path / 'work'} .\n"


async def test_bytes_that_are_not_text_survive(short_path: Path) -> None:
    async with server(short_path):
        workspace = SocketWorkspace(short_path / "w.sock")
        (short_path / "work" / "latin").write_bytes(b"caf\xe9 one")
        assert (await workspace.edit("latin", "one", "two")).count == 1
        assert (short_path / "work" / "latin").read_bytes() == b"caf\xe9 two"
        assert (await workspace.run(r"printf 'a\377b'", timeout=10)).output == "a\ufffdb"


async def test_many_calls_at_once(short_path: Path) -> None:
    async with server(short_path):
        workspace = SocketWorkspace(short_path / "w.sock")
        results = await asyncio.gather(*(workspace.run(f"echo {n}", timeout=60) for n in range(20)))
        assert [result.output for result in results] == [f"{n}\n" for n in range(20)]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"op": "dance"}\n',
        b'{"op": "run"}\n',
        b'{"op": "run", "command": "true", "timeout": "soon"}\n',
        b'{"op": "read", "path": ""}\n',
        b'{"op": "list"}\n',
        b'{"op": "list", "path": ".", "depth": 0}\n',
        b'{"op": "write", "path": "a\\u0000b", "content": ""}\n',
        b"\xff\xfe\n",
        b"x" * (MESSAGE_LIMIT + 2) + b"\n",
    ],
)
async def test_what_is_no_request_gets_an_error_and_the_server_goes_on(short_path: Path, line: bytes) -> None:
    async with server(short_path):
        assert (await SocketWorkspace(short_path / "w.sock").run("echo up", timeout=10)).output == "up\n"
        answer = await exchange(short_path, line)
        assert set(answer) == {"error"}
        assert (await SocketWorkspace(short_path / "w.sock").run("echo on", timeout=10)).output == "on\n"


async def exchange(folder: Path, line: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(folder / "w.sock"))
    writer.write(line)
    async with asyncio.timeout(DEADLINE):
        assert await reader.readline() == GREETING
        answer: dict[str, Any] = json.loads(await reader.readline())
    writer.close()
    return answer


async def test_shutdown_ends_the_server_with_status_0(short_path: Path) -> None:
    async with server(short_path) as process:
        workspace = client_of(short_path)
        running = asyncio.create_task(workspace.run("echo $$ > pid; exec sleep 600", timeout=600))
        path = short_path / "work" / "pid"
        await eventually(lambda: path.exists() and path.read_text().endswith("\n"))
        await workspace.shut_down()
        async with asyncio.timeout(DEADLINE):
            assert await process.wait() == 0
        assert not alive(int(path.read_text()))
        assert not (short_path / "w.sock").exists()
        with pytest.raises(WorkspaceError, match="exited in the middle"):
            await running


async def test_a_server_that_starts_after_the_end_ends_at_once(short_path: Path) -> None:
    await client_of(short_path).shut_down()
    async with server(short_path) as process, asyncio.timeout(DEADLINE):
        assert await process.wait() == 0


async def test_a_command_cannot_end_the_workspace(short_path: Path) -> None:
    """Neither with the mark of earlier versions, beside the socket, nor with the agent's own request."""
    async with server(short_path) as process:
        workspace = client_of(short_path)
        await workspace.run("touch ../w.sock.finished", timeout=60)
        assert await exchange(short_path, b'{"op": "shutdown"}\n') == {"error": "the session has not ended"}
        assert (await workspace.run("echo on", timeout=60)).output == "on\n"
        assert process.returncode is None


async def test_calls_wait_for_the_server_to_appear(short_path: Path) -> None:
    calling = asyncio.create_task(SocketWorkspace(short_path / "w.sock").run("echo up", timeout=10))
    await asyncio.sleep(0)
    (short_path / "w.sock").touch()  # what an earlier server left behind
    async with server(short_path):
        assert (await calling).output == "up\n"


async def test_a_server_that_never_appears_is_an_error(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.1)
    with pytest.raises(WorkspaceError, match="cannot reach the workspace"):
        await SocketWorkspace(short_path / "w.sock").read("a")


async def test_sigterm_ends_the_server_with_status_143(short_path: Path) -> None:
    async with server(short_path) as process:
        await eventually((short_path / "w.sock").exists)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            assert await process.wait() == 143


async def test_it_starts_with_little(short_path: Path) -> None:
    program = (
        "import sys, session_runtime.workspace.server; print([m for m in sys.modules if m in ('pydantic', 'fastapi', 'httpx')])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env={"PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert printed == b"[]\n"
