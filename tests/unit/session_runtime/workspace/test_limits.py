"""What commands may take of the workspace's container, and what they can do to its server: with real processes."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workspace import WorkspaceError
from session_runtime.workspace.client import SocketWorkspace
from session_runtime.workspace.limits import FILE_SHARE, DiskLimit, disk_usage, quantity, volume_for_files
from session_runtime.workspace.memory import container_memory, memory_for_processes
from support.runtime.harness import DEADLINE, eventually
from support.runtime.volume import small_volume
from support.runtime.workspace_process import NAMESPACE, client_of, contained, needs_namespace, process_1, server

pytestmark = pytest.mark.anyio

MB = 1_000_000


def command_lines() -> list[str]:
    """Those of all processes of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def runs(words: str) -> bool:
    return any(words in line for line in command_lines())


def own_sleep() -> str:
    """A `sleep` of ten minutes like no other: tests run side by side, and each looks at all processes of the machine."""
    return f"sleep 600.{uuid.uuid4().int}"


# Processes.


@needs_namespace
async def test_too_many_processes_are_killed_and_the_server_goes_on(short_path: Path) -> None:
    """A fork bomb with an end, at 511 processes: other tests run beside this one. The cluster's test has one without."""
    bomb = "bomb() { if [ $1 -gt 0 ]; then bomb $(($1 - 1)) & bomb $(($1 - 1)) & fi; sleep 600; }; bomb 8"
    async with contained(short_path, "--max-processes", "40") as workspace:
        result = await workspace.run(bomb, timeout=60)
        assert result.exit_code == -signal.SIGKILL
        assert "more than 40" in result.output

        async def quiet() -> bool:
            again = await workspace.run("ls -d /proc/[0-9]* 2>/dev/null | wc -l", timeout=60)
            return "killed" not in again.output and int(again.output) <= 10

        await eventually(quiet)


@needs_namespace
async def test_what_a_command_leaves_in_the_background_counts_too(short_path: Path) -> None:
    """Sessions of their own, as daemons have them, are no way out."""
    sleep = own_sleep()
    async with contained(short_path, "--max-processes", "40") as workspace:
        await workspace.run(f"for n in $(seq 10); do setsid {sleep} & done", timeout=60)
        result = await workspace.run(f"for n in $(seq 60); do setsid {sleep} & done; {sleep}", timeout=60)
        assert "more than 40" in result.output
        await eventually(lambda: not runs(sleep))


@needs_namespace
async def test_what_a_command_leaves_in_the_background_ends_with_the_server(short_path: Path) -> None:
    sleep = own_sleep()
    async with server(short_path, *NAMESPACE) as process:
        workspace = client_of(short_path)
        await workspace.run(f"(setsid {sleep} &) ; setsid nohup {sleep} >/dev/null 2>&1 &", timeout=60)
        await eventually(lambda: runs(sleep))
        await workspace.shut_down()
        async with asyncio.timeout(DEADLINE):
            assert await process.wait() == 0
        await eventually(lambda: not runs(sleep))


# Process 1.


@needs_namespace
async def test_as_process_1_it_reaps_orphans_and_passes_signals_on(short_path: Path) -> None:
    async with server(short_path, *NAMESPACE) as process:
        workspace = SocketWorkspace(short_path / "w.sock")
        for _ in range(10):
            await workspace.run("(sleep 0.01 &) ; true", timeout=60)

        async def no_zombies() -> bool:
            result = await workspace.run("cat /proc/[0-9]*/stat", timeout=60)
            states = [line.rpartition(") ")[2][:1] for line in result.output.splitlines()]
            assert len(states) >= 3  # init, server, cat
            return "Z" not in states

        await eventually(no_zombies)
        os.kill(process_1(process), signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            assert await process.wait() == 143


FORGE = """
import ctypes, signal
class Info(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int) for n in ("signo", "errno", "code", "pad", "pid", "uid")] + [("rest", ctypes.c_char * 104)]
RT_SIGQUEUEINFO = {"x86_64": 129, "aarch64": 138}[__import__("os").uname().machine]
for code in (0, 0x80, -1, -6):
    info = Info(signal.SIGTERM, 0, code)
    print(ctypes.CDLL(None).syscall(RT_SIGQUEUEINFO, 1, int(signal.SIGTERM), ctypes.byref(info)))
"""


@needs_namespace
async def test_process_1_ignores_signals_that_commands_send(short_path: Path) -> None:
    """Also one that names no sender: the kernel refuses what would look as if it came from outside."""
    async with server(short_path, *NAMESPACE) as process:
        workspace = SocketWorkspace(short_path / "w.sock")
        for name in ("TERM", "INT", "HUP"):
            assert (await workspace.run(f"kill -{name} 1; echo on", timeout=60)).output == "on\n"
        forged = await workspace.run(f"{sys.executable} -c {shlex.quote(FORGE)}", timeout=60)
        assert forged.output.split() == ["-1", "-1", "0", "-1"]
        assert (await workspace.run("echo on", timeout=60)).output == "on\n"
        os.kill(process_1(process), signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            assert await process.wait() == 143


@needs_namespace
@pytest.mark.parametrize("name", ["KILL", "TERM", "INT", "HUP"])
async def test_a_killed_server_restarts_and_the_call_says_so(short_path: Path, name: str) -> None:
    sleep = own_sleep()
    async with contained(short_path) as workspace:
        await workspace.run(f"echo kept > file; setsid {sleep} &", timeout=60)
        with pytest.raises(WorkspaceError, match="files are kept, processes are not"):
            await workspace.run(f"kill -{name} -1; sleep 600", timeout=60)
        assert (await workspace.run("cat file", timeout=60)).output == "kept\n"
        await eventually(lambda: not runs(sleep))


@needs_namespace
async def test_a_server_that_a_command_stops_goes_on(short_path: Path) -> None:
    async with contained(short_path) as workspace:
        stop = "for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = $$ ] || kill -STOP $p; done 2>/dev/null; echo stopped"
        assert (await workspace.run(stop, timeout=60)).output.endswith("stopped\n")
        assert (await workspace.run("echo on", timeout=60)).output == "on\n"


@needs_namespace
@pytest.mark.parametrize(
    "replace",
    [
        "rm w.sock",
        "rm w.sock && mkdir -p w.sock/full",
        "rm w.sock && ln -s /dev/null w.sock",
        "chmod 0 w.sock",
        "mv w.sock aside",
        f"""{sys.executable} -c 'import os, socket, time
os.unlink("w.sock")
s = socket.socket(socket.AF_UNIX)
s.bind("w.sock")
s.listen()
time.sleep(600)'""",
    ],
)
async def test_a_socket_that_a_command_takes_away_comes_back(short_path: Path, replace: str) -> None:
    async with contained(short_path) as workspace:
        result = await workspace.run(f"cd ..; {replace}; sleep 600", timeout=60)
        assert result.exit_code == -signal.SIGKILL
        assert "the socket of the workspace's server was removed or replaced" in result.output
        assert (await workspace.run("echo on", timeout=60)).output == "on\n"


# Memory.


def python(code: str) -> str:
    """The command that runs this code."""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


@needs_namespace
async def test_a_command_that_takes_too_much_memory_fails_alone(short_path: Path) -> None:
    sleep = own_sleep()
    async with contained(short_path, "--max-memory", "200000000") as workspace:
        await workspace.run(f"{sleep} &", timeout=60)
        greedy = await workspace.run(f"{python('x = bytearray(400_000_000); input()')}; echo $?; sleep 1; echo on", timeout=60)
        assert greedy.exit_code == 0
        assert "\n137\non\n" in "\n" + greedy.output, "the shell continues"
        assert re.search(
            r"\[python\S* \(process \d+\) was killed: all processes together took [2-9]\d\d MB of memory, and may take at most "
            r"200 MB\]",
            greedy.output,
        )
        assert runs(sleep), "others are left alone"
        assert (await workspace.run("echo on", timeout=60)).output == "on\n"


RESERVES = {
    "a heap": """
import mmap
x = mmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE, as Java reserves its heap
x[0] = 1
print("works")
""",
    "the stacks of threads": """
import threading
stop = threading.Event()
threading.stack_size(8 << 20)
threads = [threading.Thread(target=stop.wait) for _ in range(228)]
[thread.start() for thread in threads]
stop.set()
print("works")
""",
    "pages that it shares with its children": """
import os, time
x = bytearray(b"x") * 60_000_000
for _ in range(4):
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
for _ in range(4):
    os.wait()
print("works")
""",
}


@needs_namespace
@pytest.mark.parametrize("what", RESERVES)
async def test_memory_that_is_reserved_or_shared_is_not_counted(short_path: Path, what: str) -> None:
    async with contained(short_path, "--max-memory", "200000000") as workspace:
        result = await workspace.run(python(RESERVES[what]), timeout=60)
        assert (result.exit_code, result.output) == (0, "works\n")


@pytest.mark.parametrize("name", ["v1", "v2"])
@pytest.mark.parametrize(
    ("text", "memory"), [("1048576\n", 1048576), ("max\n", None), ("9223372036854771712\n", None), (None, None)]
)
def test_the_containers_memory_limit_is_read(tmp_path: Path, name: str, text: str | None, memory: int | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert container_memory([tmp_path / "v2", tmp_path / "v1"]) == memory


@pytest.mark.parametrize(("memory", "processes"), [(2_000 * MB, 1_800 * MB), (268 * MB, 204 * MB), (64 * MB, 48 * MB), (0, 0)])
def test_memory_is_left_for_what_is_taken_between_two_looks(memory: int, processes: int) -> None:
    assert memory_for_processes(memory) == processes


# Disk.


@needs_namespace
async def test_files_that_take_too_much_end_the_command_and_not_the_server(short_path: Path) -> None:
    async with contained(short_path, "--disk", "20M") as workspace:
        fill = "n=0; while true; do n=$((n + 1)); head -c 1000000 /dev/zero > file$n || exit 7; sleep 0.02; done"
        result = await workspace.run(fill, timeout=60)
        assert result.exit_code == -signal.SIGKILL
        assert "MB, and may take at most 18 MB; remove some before you write more" in result.output
        # Nothing is lost, and what is there can be looked at, but nothing can be added, in one way or another.
        assert (await workspace.run("sleep 1; ls | wc -l", timeout=60)).exit_code == 0
        with pytest.raises(WorkspaceError, match=r"more was not written: .* remove some before"):
            await workspace.write("more", "x")
        with pytest.raises(WorkspaceError, match="remove some before"):
            await workspace.edit("file1", "\0", "x", replace_all=True)
        assert "killed" in (await workspace.run(fill, timeout=60)).output
        # There is a way out.
        removed = await workspace.run("for f in file*; do sleep 0.02; rm $f; done; sleep 1", timeout=60)
        assert (removed.exit_code, removed.output) == (0, "")
        await workspace.write("more", "x")
        assert (await workspace.run("cat more", timeout=60)).output == "x"


@needs_namespace
async def test_no_file_gets_larger_than_the_disk(short_path: Path) -> None:
    """The kernel's own limit, which needs no look: it holds where files are written faster than they are counted."""
    async with contained(short_path, "--disk", "10M") as workspace:
        result = await workspace.run("head -c 100000000 /dev/zero > file; echo on; sleep 0.5", timeout=60)
        assert (result.exit_code, result.output.splitlines()[-1]) == (0, "on")
        assert (short_path / "work" / "file").stat().st_size <= 10 * MB * FILE_SHARE
        assert (await workspace.run("rm file", timeout=60)).exit_code == 0
        with pytest.raises(WorkspaceError, match="File too large"):
            await workspace.write("own", "x" * 10 * MB)
        assert (await workspace.run("ls -A", timeout=60)).output == ""


@needs_namespace
async def test_scratch_space_counts_too(short_path: Path) -> None:
    (short_path / "tmp").mkdir()
    async with contained(short_path, str(short_path / "tmp"), "--disk", "20M") as workspace:
        fill = "for n in $(seq 60); do head -c 1000000 /dev/zero > ../tmp/$n; sleep 0.02; done; sleep 600"
        assert "remove some" in (await workspace.run(fill, timeout=60)).output


@needs_namespace
async def test_a_volume_of_its_own_has_its_own_size(short_path: Path) -> None:
    (short_path / "tmp").mkdir()
    async with contained(short_path, str(short_path / "tmp"), "--disk", "20M", "--volume", "80M") as workspace:
        fill = "for n in $(seq 40); do head -c 1000000 /dev/zero > $n; sleep 0.02; done; sleep 1; echo there"
        assert (await workspace.run(fill, timeout=60)).output == "there\n"
        fill = f"cd ../tmp; {fill}"
        assert f"the files in {short_path / 'tmp'} take" in (await workspace.run(fill, timeout=60)).output


@given(st.lists(st.integers(0, 200), min_size=1))
def test_what_grows_beyond_the_limit_is_stopped_and_nothing_else(sizes: list[int]) -> None:
    disk = DiskLimit(100)
    before = 0
    for size in sizes:
        assert disk.grown(size, free=0, now=0.0) == (size > 100 and size > before)
        assert (disk.problem is None) == (size <= 100)
        before = size


def test_files_are_counted_after_enough_writes_or_enough_time() -> None:
    disk = DiskLimit(100)
    assert disk.is_due(free=1000, now=5.0), "at first"
    disk.grown(60, free=1000, now=5.0)
    assert not disk.is_due(free=1000, now=5.1)
    assert not disk.is_due(free=980, now=5.1)
    assert disk.is_due(free=979, now=5.1), "more than half of the room"
    assert disk.is_due(free=1000, now=60.0), "others may have removed what was written here"
    disk.grown(120, free=1000, now=60.0)
    assert not disk.is_due(free=1000, now=60.1)
    assert disk.is_due(free=999, now=60.1), "there is no room"


def test_disk_usage_is_what_du_counts(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "sub" / "deep" / "large").write_bytes(b"x" * 3 * MB)
    os.link(tmp_path / "sub" / "deep" / "large", tmp_path / "linked")
    (tmp_path / "around").symlink_to(tmp_path)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1000 * MB)
    used = disk_usage([tmp_path, tmp_path / "none"])
    assert 3 * MB <= used < 3.2 * MB
    for number in range(100):
        (tmp_path / f"empty{number}").touch()
    assert disk_usage([tmp_path]) >= used + 100 * 4096, "an inode is not for nothing"
    assert disk_usage([tmp_path / "sub" / "deep" / "large"]) >= 3 * MB


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("1Ki", 1024),
        ("10G", 10**10),
        ("1.5Gi", 1610612736),
        ("1e3", 1000),
        ("12E6", 12_000_000),
        ("2k", 2000),
        ("5000m", 5),
    ],
)
def test_sizes_are_written_as_in_kubernetes(text: str, size: int) -> None:
    assert quantity(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "-1", "1 Gi", "1GB", "ten", "1.2.3", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|float"):
        quantity(text)


def test_a_volume_leaves_room_for_the_database_of_its_real_size(tmp_path: Path) -> None:
    with small_volume(tmp_path / "v", 20) as volume:
        real = 20 * 2**20
        assert volume_for_files(2**40, volume) == int(real * 0.85)
        assert volume_for_files(10**6, volume) == 850_000
    assert volume_for_files(10**6, tmp_path / "gone") == 850_000
