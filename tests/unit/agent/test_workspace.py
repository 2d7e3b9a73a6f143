"""Real processes and real files."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from agent.tools.router import ToolRouter
from agent.tools.workspace import workspace_tools
from agent.workspace import HEAD_LIMIT, LIST_LIMIT, TAIL_LIMIT, CommandInterrupted, Entry, Listing, WorkspaceError
from agent.workspace.local import BACKGROUND_NOTE, LocalWorkspace
from support.agent.processes import gone, read_pid

pytestmark = pytest.mark.anyio


@pytest.fixture
def workspace(tmp_path: Path) -> LocalWorkspace:
    return LocalWorkspace(tmp_path, {"PATH": os.environ["PATH"], "GREETING": "hello"})


async def test_a_command_runs_in_the_root_with_its_own_environment(workspace: LocalWorkspace, tmp_path: Path) -> None:
    result = await workspace.run("echo $GREETING; echo oops >&2; pwd; env | wc -l; exit 3", timeout=30)
    assert result.exit_code == 3
    assert result.output.splitlines()[:3] == ["hello", "oops", str(tmp_path)]
    assert int(result.output.splitlines()[3]) < 8  # the shell's own few, not this process's environment
    assert not result.timed_out


async def test_a_command_cannot_wait_for_input(workspace: LocalWorkspace) -> None:
    assert (await workspace.run("cat; echo end", timeout=30)).output == "end\n"


async def test_output_is_passed_on_as_it_comes(workspace: LocalWorkspace, tmp_path: Path) -> None:
    pieces: list[str] = []

    def on_output(text: str) -> None:
        pieces.append(text)
        (tmp_path / "seen").touch()  # the command waits for this: it was heard before it ended

    command = "echo one; while [ ! -e seen ]; do sleep 0.01; done; echo two"
    result = await workspace.run(command, timeout=30, on_output=on_output)
    assert result.output == "".join(pieces) == "one\ntwo\n"


async def test_a_timeout_kills_the_whole_process_group(workspace: LocalWorkspace, tmp_path: Path) -> None:
    result = await workspace.run("sleep 300 & echo $! >pid; echo begun; sleep 300", timeout=0.5)
    assert (result.exit_code, result.timed_out, result.output) == (None, True, "begun\n")
    await gone(await read_pid(tmp_path / "pid"))


async def test_a_cancellation_kills_the_whole_process_group(workspace: LocalWorkspace, tmp_path: Path) -> None:
    task = asyncio.create_task(workspace.run("trap '' TERM INT; echo so far; sleep 300 & echo $! >pid; wait", timeout=300))
    pid = await read_pid(tmp_path / "pid")
    task.cancel()
    with pytest.raises(CommandInterrupted) as interrupted:
        await task
    assert interrupted.value.result.output == "so far\n"
    await gone(pid)


async def test_a_process_in_the_background_neither_hangs_the_call_nor_is_killed(
    workspace: LocalWorkspace, tmp_path: Path
) -> None:
    async with asyncio.timeout(20):
        result = await workspace.run("(sleep 300) & echo $! >pid; echo started", timeout=300)
    assert (result.exit_code, result.output) == (0, "started\n" + BACKGROUND_NOTE)
    pid = await read_pid(tmp_path / "pid")
    os.kill(pid, 9)  # it was there
    await gone(pid)


async def test_endless_output_is_bounded_and_keeps_both_ends(workspace: LocalWorkspace) -> None:
    result = await workspace.run("echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last", timeout=60)
    assert result.truncated
    assert result.output.startswith("first\n")
    assert result.output.endswith("last\n")
    assert len(result.output) < HEAD_LIMIT + 2 * TAIL_LIMIT + 300_000


async def test_bytes_that_are_no_text_do_not_break_it(workspace: LocalWorkspace) -> None:
    assert (await workspace.run("printf 'a\\377b'", timeout=30)).output == "a\ufffdb"


async def test_a_missing_root_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="could not be started"):
        await LocalWorkspace(tmp_path / "none").run("true", timeout=5)


async def test_files_are_written_read_and_edited(workspace: LocalWorkspace, tmp_path: Path) -> None:
    await workspace.write("deep/er/a.txt", "one\ntwo\nthree\n")
    assert await workspace.read("deep/er/a.txt", offset=2, limit=1) == "two\n"
    assert await workspace.edit("deep/er/a.txt", "two", "2") == 1
    assert (tmp_path / "deep/er/a.txt").read_text() == "one\n2\nthree\n"
    assert await workspace.edit("deep/er/a.txt", "e", "E", replace_all=True) == 3
    assert [p.name for p in (tmp_path / "deep/er").iterdir()] == ["a.txt"]  # nothing temporary is left


async def test_writing_keeps_mode_and_link(workspace: LocalWorkspace, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("old")
    script.chmod(0o750)
    (tmp_path / "link").symlink_to("run.sh")
    await workspace.write("link", "new")
    assert (script.read_text(), script.stat().st_mode & 0o777) == ("new", 0o750)
    assert (tmp_path / "link").is_symlink()
    await workspace.write("fresh", "x")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o666 & ~mask


async def test_editing_keeps_line_ends_and_foreign_bytes(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "dos").write_bytes(b"a\r\nb\r\n\xff\r\n")
    assert await workspace.edit("dos", "a\nb", "c\nd") == 1
    assert (tmp_path / "dos").read_bytes() == b"c\r\nd\r\n\xff\r\n"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none", "no such file"),
        ("folder", "directory"),
        ("fifo", "not a regular file"),
        ("binary", "binary file"),
        ("long", "read less of it"),
        ("a\0b", "NUL"),
    ],
)
async def test_what_cannot_be_read_is_said_in_words(workspace: LocalWorkspace, tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "long").write_text("x" * 1_100_000)
    with pytest.raises(WorkspaceError, match=message):
        await workspace.read(path)


async def test_folders_are_listed(workspace: LocalWorkspace, tmp_path: Path) -> None:
    await workspace.write("a.txt", "four")
    await workspace.write("sub/b.py", "")
    await workspace.write("sub/deep/c.py", "12")
    (tmp_path / "link").symlink_to("sub")
    os.mkfifo(tmp_path / "fifo")
    kinds = {entry.path: entry.kind for entry in (await workspace.list()).entries}
    assert kinds == {"a.txt": "file", "fifo": "other", "link": "link", "sub": "folder"}
    python = await workspace.list(glob="*.py", depth=3)
    assert python == Listing((Entry("sub/b.py", "file", 0), Entry("sub/deep/c.py", "file", 2)))
    assert (await workspace.list(glob="*.py", depth=2)).entries == (Entry("sub/b.py", "file", 0),)
    assert (await workspace.list("sub/deep")).entries == (Entry("c.py", "file", 2),)
    assert (await workspace.list("link")).entries == (await workspace.list("sub")).entries
    (tmp_path / "empty").mkdir()
    assert await workspace.list("empty") == Listing(())


async def test_a_list_is_bounded_and_keeps_what_is_not_deep(workspace: LocalWorkspace, tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    for number in range(LIST_LIMIT + 10):
        (deep / f"{number:05}").touch()
    (tmp_path / "z").touch()
    listing = await workspace.list(depth=3)
    assert listing.truncated
    assert len(listing.entries) == LIST_LIMIT
    assert {"a", "a/b", "z"} <= {entry.path for entry in listing.entries}
    assert not (await workspace.list("a/b", glob="0000*")).truncated


async def test_a_list_does_not_look_for_ever(
    workspace: LocalWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.workspace.listing.SCAN_LIMIT", 5)
    for number in range(10):
        (tmp_path / str(number)).touch()
    assert await workspace.list(glob="nothing like it") == Listing((), truncated=True)


@pytest.mark.parametrize(
    ("path", "depth", "message"),
    [
        ("none", 1, "no such folder"),
        ("file", 1, "not a folder"),
        (".", 0, "counts from 1"),
        ("", 1, "empty"),
        ("a\0", 1, "NUL"),
    ],
)
async def test_what_cannot_be_listed_is_said_in_words(
    workspace: LocalWorkspace, tmp_path: Path, path: str, depth: int, message: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match=message):
        await workspace.list(path, depth=depth)


async def test_the_list_tool_shows_size_and_kind(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a\nb\udcff.txt").write_text("four")
    (tmp_path / "sub" / "link").symlink_to("/")
    (tmp_path / "sub" / "folder").mkdir()
    router = ToolRouter(workspace_tools(workspace))
    output = (await router.call("list", {"path": "sub", "glob": "[al]*"})).output
    assert output == "         4  a?b?.txt\n         1  link@"
    assert (await router.call("list", {"path": "sub", "glob": "f*"})).output.endswith("  folder/")
    assert (await router.call("list", {"glob": "none"})).output == "[nothing]"
    assert (await router.call("list", {"path": "none"})).output == "no such folder: none"
    assert not (await router.call("list", {"depth": 0})).success
    for number in range(LIST_LIMIT + 1):
        (tmp_path / str(number)).touch()
    assert "[there is more" in (await router.call("list", {})).output


async def test_an_edit_must_be_unambiguous(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x x")
    for old, new, message in (("x", "y", "2 times"), ("z", "y", "does not occur"), ("", "y", "empty"), ("x", "x", "same")):
        with pytest.raises(WorkspaceError, match=message):
            await workspace.edit("a", old, new)
    assert (tmp_path / "a").read_text() == "x x"


async def test_the_tools_say_what_the_model_needs(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("".join(f"line {n}\n" for n in range(1, 6)))
    router = ToolRouter(workspace_tools(workspace))
    read = await router.call("read", {"path": "a", "offset": 2, "limit": 2})
    assert read.output == "     2\tline 2\n     3\tline 3\n[more lines follow; read on with offset 4]"
    assert (await router.call("read", {"path": "a", "offset": 9})).output == "a has only 5 lines"
    failed = await router.call("bash", {"command": "echo no; exit 2"})
    assert (failed.success, failed.output) == (False, "no\n\n[exit code 2]")
    late = await router.call("bash", {"command": "sleep 60", "timeout": 0.2})
    assert (late.success, late.output) == (False, "\n[killed after 0.2 s; pass a longer timeout if it needs one]")
    assert not (await router.call("write", {"path": "a"})).success
    assert not (await router.call("bash", {"command": "true", "timeout": 0})).success


async def test_a_timeout_is_prompt_even_while_output_pours(workspace: LocalWorkspace) -> None:
    began = time.monotonic()
    result = await workspace.run("yes", timeout=0.3)
    assert result.timed_out
    assert time.monotonic() - began < 20


def alive(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


ESCAPES = {
    "timeout": "timeout 60 sh -c 'echo $$ > pid; exec sleep 60'; echo",
    "pipe": "cd . && timeout 60 sh -c 'echo $$ > pid; exec sleep 60' | tail",
    "job control": "set -m; sh -c 'echo $$ > pid; exec sleep 60'",
    "session": "setsid --wait sh -c 'echo $$ > pid; exec sleep 60'",
    "cleared environment": "(setsid env -i /bin/sh -c 'echo $$ > pid; exec sleep 60' &); sleep 60",
    "daemon": "setsid sh -c '(setsid env -i /bin/sh -c \"echo \\$\\$ > pid; exec sleep 60\" &)'; sleep 60",
    "orphan": "(setsid sh -c 'echo $$ > pid; exec sleep 60' &); sleep 60",
}


@pytest.mark.parametrize("kind", ESCAPES)
async def test_a_timeout_kills_what_left_the_process_group(workspace: LocalWorkspace, tmp_path: Path, kind: str) -> None:
    result = await workspace.run(ESCAPES[kind], timeout=1.0)
    assert result.timed_out
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_a_server_in_the_background_may_print_after_its_call(workspace: LocalWorkspace, tmp_path: Path) -> None:
    result = await workspace.run(
        "(until [ -e go ]; do sleep 0.05; done; echo x; echo x && touch printed) & echo begun", timeout=60
    )
    assert result.output.startswith("begun\n")
    assert "still run in the background" in result.output
    (tmp_path / "go").touch()
    waiting = await workspace.run("until [ -e printed ]; do sleep 0.02; done", timeout=30)
    assert waiting.exit_code == 0


async def test_an_edit_keeps_the_line_ends_of_its_file(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "crlf").write_bytes(b"one\r\ntwo\r\n")
    await workspace.edit("crlf", "one", "one\nand a half")
    assert (tmp_path / "crlf").read_bytes() == b"one\r\nand a half\r\ntwo\r\n"


async def test_the_home_folder_of_paths_is_that_of_commands(workspace: LocalWorkspace, tmp_path: Path) -> None:
    await workspace.write("~/x", "here")
    assert (tmp_path / "x").read_text() == "here"
    assert not (tmp_path / "~").exists()


async def test_a_name_with_brackets_is_found(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "[id].tsx").touch()
    assert [entry.path for entry in (await workspace.list(glob="[id].tsx")).entries] == ["[id].tsx"]


async def test_only_writable_regular_files_are_replaced(workspace: LocalWorkspace, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(WorkspaceError, match="not a regular file"):
        await workspace.write("fifo", "x")
    (tmp_path / "fixed").touch(0o444)
    with pytest.raises(WorkspaceError, match="read-only"):
        await workspace.write("fixed", "x")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(WorkspaceError, match=r"loop|symbolic links"):
        await workspace.write("a", "x")
