"""Real files: read, replaced, edited."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.workspace import READ_LIMIT, Edited, WorkspaceError
from agent.workspace.files import EDIT_LIMIT
from agent.workspace.local import LocalWorkspace

pytestmark = pytest.mark.anyio


async def test_files_are_written_read_and_edited(workspace: LocalWorkspace, tmp_path: Path) -> None:
    await workspace.write("deep/er/a.txt", "one\ntwo\nthree\n")
    assert await workspace.read("deep/er/a.txt", offset=2, limit=1) == "two\n"
    assert (await workspace.edit("deep/er/a.txt", "two", "2")).count == 1
    assert (tmp_path / "deep/er/a.txt").read_text() == "one\n2\nthree\n"
    assert (await workspace.edit("deep/er/a.txt", "e", "E", replace_all=True)).count == 3
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


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none", "no such file"),
        ("folder", "directory"),
        ("fifo", "not a regular file"),
        ("binary", "binary file"),
        ("long", r"line 2 of long has more than 1048576 characters; look at parts of it with bash"),
        ("large", "read less of it with offset and limit"),
        ("loop", "symbolic links"),
        ("fifo/x", "Not a directory"),
        ("a\0b", "NUL"),
    ],
)
async def test_what_cannot_be_read_is_said_in_words(workspace: LocalWorkspace, tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "long").write_text("short\n" + "x" * 2_100_000 + "\nlast\n")
    (tmp_path / "large").write_text("a line\n" * 200_000)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(WorkspaceError, match=message):
        await workspace.read(path)


async def test_an_edit_must_be_unambiguous(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x x")
    for old, new, message in (("x", "y", "2 times"), ("z", "y", "does not occur"), ("", "y", "empty"), ("x", "x", "same")):
        with pytest.raises(WorkspaceError, match=message):
            await workspace.edit("a", old, new)
    assert (tmp_path / "a").read_text() == "x x"


async def test_the_home_folder_of_paths_is_that_of_commands(workspace: LocalWorkspace, tmp_path: Path) -> None:
    await workspace.write("~/x", "here")
    assert (tmp_path / "x").read_text() == "here"
    assert not (tmp_path / "~").exists()


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


async def test_editing_keeps_line_ends_and_foreign_bytes(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "dos").write_bytes(b"a\r\nb\r\n\xff\r\n")
    assert (await workspace.edit("dos", "a\nb", "c\nd")).count == 1
    assert (tmp_path / "dos").read_bytes() == b"c\r\nd\r\n\xff\r\n"


async def test_an_edit_keeps_the_line_ends_of_its_file(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "crlf").write_bytes(b"one\r\ntwo\r\n")
    await workspace.edit("crlf", "one", "one\nand a half")
    assert (tmp_path / "crlf").read_bytes() == b"one\r\nand a half\r\ntwo\r\n"


async def test_lines_around_an_endless_one_are_numbered_as_in_the_shell(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "long").write_text("first\n" + "x" * 3 * READ_LIMIT + "\nlast\n")
    assert await workspace.read("long", limit=1) == "first\n"
    assert await workspace.read("long", offset=3) == "last\n"
    with pytest.raises(WorkspaceError, match="has only 3 lines"):
        await workspace.read("long", offset=4)


async def test_names_of_one_file_stay_one_file(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one two three")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    await workspace.write("a", "short")
    assert (tmp_path / "b").read_text() == "short"
    await workspace.edit("b", "short", "longer than before")
    assert (tmp_path / "a").read_text() == "longer than before"


async def test_an_edit_of_a_huge_file_names_the_limit(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", EDIT_LIMIT + 1)
    with pytest.raises(WorkspaceError, match=r"huge has 67 MB, and files of at most 67 MB can be edited; use sed"):
        await workspace.edit("huge", "a", "b")


async def test_a_link_to_a_missing_file_is_written_through(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    await workspace.write("link", "x")
    assert (tmp_path / "target").read_text() == "x"
    assert (tmp_path / "link").is_symlink()


async def test_an_edit_that_finds_nothing_shows_the_nearest_lines(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import os\n\n\ndef main(arguments):\n\treturn os.getcwd()\n")
    with pytest.raises(WorkspaceError) as failure:
        await workspace.edit("a.py", "def main(argument):\n    return os.getcwd()", "x")
    assert str(failure.value) == (
        "the text to replace does not occur in a.py; copy it exactly, without line numbers. The nearest lines are:\n"
        "     4\tdef main(arguments):\n"
        "     5\t\treturn os.getcwd()"
    )
    with pytest.raises(WorkspaceError, match=r"does not occur in a\.py; read the file and copy it exactly"):
        await workspace.edit("a.py", "nothing of this kind is in there", "x")


async def test_a_file_that_something_else_changed_is_not_replaced_unread(workspace: LocalWorkspace, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    await workspace.read("./a")
    await workspace.write("a", "two")  # its own change is none
    await workspace.run("echo three > a", timeout=60)
    with pytest.raises(WorkspaceError, match="a has changed since you read or wrote it; read it again"):
        await workspace.write("a", "four")
    with pytest.raises(WorkspaceError, match=r"does not occur.*\n\[a has changed since you read or wrote it\]"):
        await workspace.edit("a", "two", "four")
    assert await workspace.edit("a", "three", "3") == Edited(1, had_changed=True), "what it changes is there"
    with pytest.raises(WorkspaceError, match="read it again"):
        await workspace.write("a", "four")
    assert await workspace.read("a") == "3\n"
    assert await workspace.edit("a", "3", "4") == Edited(1)
    await workspace.write("a", "four")
    await workspace.run("rm a", timeout=60)
    await workspace.write("a", "five")
