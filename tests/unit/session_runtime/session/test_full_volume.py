"""A volume that commands have filled: the session survives it, at that moment and at its next start."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from session_runtime.session.events import Frame
from session_runtime.session.facts import Facts
from session_runtime.session.journal import VOLUME_FULL, Change
from session_runtime.session.store import DATABASE, Commit, Store
from session_runtime.session.store_errors import StoreError, VolumeFullError
from support.runtime.harness import DEADLINE, RuntimeProcess, eventually, runtime_process
from support.runtime.journals import open_journal
from support.runtime.volume import fill, small_volume

pytestmark = pytest.mark.anyio

MEGABYTES = 64


def frame(seq: int) -> Frame:
    return Frame(seq, None, "t", "x" * 25_000)


def test_commits_find_room_on_a_full_volume(tmp_path: Path) -> None:
    with small_volume(tmp_path / "v", MEGABYTES) as volume, closing(Store(volume)) as store:
        store.load()
        fill(volume)
        for seq in range(1, 201):
            store.apply(Commit((frame(seq),)))
        assert len(store.frames(0, 1000, 10**9)) == 200


def test_a_full_volume_does_not_keep_a_session_from_starting(tmp_path: Path) -> None:
    with small_volume(tmp_path / "v", MEGABYTES) as volume:
        Store(volume).close()
        fill(volume)
        for seq in range(1, 6):
            with closing(Store(volume)) as store:
                assert store.load().last_seq == seq - 1
                store.apply(Commit((frame(seq),), facts=Facts(finished="no")))


async def test_a_journal_without_any_room_waits_for_it(tmp_path: Path) -> None:
    with small_volume(tmp_path / "v", MEGABYTES) as volume:
        async with open_journal(volume) as journal, asyncio.timeout(DEADLINE):
            filler = fill(volume)

            async def write() -> None:
                for _ in range(1000):
                    await journal.write(Change(journal.draft("usage", {"text": "x" * 100_000})))

            writing = asyncio.create_task(write())
            await eventually(lambda: journal.problem == VOLUME_FULL)
            before = journal.last_seq
            filler.unlink()
            await eventually(lambda: journal.last_seq > before and journal.problem is None)
            writing.cancel()


async def test_a_command_that_fills_the_volume_does_not_end_the_session(short_path: Path) -> None:
    command = "head -c 1G /dev/zero > big; ls big"
    script = (
        {"calls": [["bash", {"command": command}]]},
        {"text": "full"},
        {"calls": [["bash", {"command": "rm big"}]]},
        {"text": "empty"},
    )
    with small_volume(short_path / "v", MEGABYTES) as volume:
        async with runtime_process(volume, *script) as run, run.client() as client, asyncio.timeout(DEADLINE):
            await client.run("fill")
            assert run.process is not None
            run.process.kill()
            await run.process.communicate()
            await run.start(keep_port=True)
            await client.run("clean")
            assert not (volume / "work" / "big").exists()


MANY = "a" + "\u2028" * 99_998 + "b"
"""The longest text that a person may send. In JSON each of its characters takes 6 bytes, and in the log, which nobody reads
here, all together take one."""


async def says_the_volume_is_full(run: RuntimeProcess) -> bool:
    with contextlib.suppress(httpx.TransportError):
        ready = await run.get("/readyz")
        return ready.status_code == 503 and ready.text.startswith("volume: ") and "full" in ready.text
    return False


async def fill_up(run: RuntimeProcess) -> tuple[list[str], asyncio.Task[httpx.Response]]:
    """Send long texts until the room reserved for the database is used up, too: by a text, whose request waits then, or by the
    turn of the one before. Returns the ids of those that were accepted, and the last request."""
    accepted: list[str] = []
    while True:
        sending = asyncio.create_task(run.post({"id": f"long-{len(accepted)}", "type": "user_input", "text": MANY}))
        await eventually(lambda: says_the_volume_is_full(run) if not sending.done() else True)  # noqa: B023 - awaited here
        if not sending.done() or sending.result().status_code == 503:
            return accepted, sending
        assert sending.result().status_code == 202
        accepted.append(f"long-{len(accepted)}")


@pytest.mark.parametrize("killed", [False, True])
async def test_without_any_room_a_turn_waits_and_no_text_is_lost(short_path: Path, killed: bool) -> None:
    """Also when the process is killed meanwhile: the next one says that the volume is full before it has room to recover."""
    with small_volume(short_path / "v", MEGABYTES) as volume:
        script = [{"text": "heard"}] * 100
        async with runtime_process(volume, *script) as run, asyncio.timeout(2 * DEADLINE):
            filler = fill(volume)
            accepted, last = await fill_up(run)
            assert accepted
            await eventually(lambda: says_the_volume_is_full(run))
            assert (await run.get("/healthz")).status_code == 200
            assert (await run.get("/v1/session")).json()["is_active"]
            refused = await run.post({"id": "short", "type": "user_input", "text": "and this?"})
            assert (refused.status_code, refused.json()["title"]) == (503, "The volume is full")
            assert "Send it again when there is room." in refused.json()["detail"]
            if killed:
                await run.end(signal.SIGKILL)
                await asyncio.gather(last, return_exceptions=True)
                assert last.exception() is not None or last.result().status_code == 503
                await run.spawn(keep_port=True)
                await eventually(lambda: says_the_volume_is_full(run))
                assert (await run.get("/healthz")).status_code == 200
                assert (await run.post({"type": "user_input", "text": "hello?"})).status_code == 503
            filler.unlink()
            async with run.client() as client:
                for submission in accepted:
                    assert (await client.result(submission)).type == "turn_complete"
                if not killed and (await last).status_code == 202:
                    accepted.append(f"long-{len(accepted)}")
                    assert (await client.result(accepted[-1])).type == "turn_complete"
                assert (await client.run("and this?")).data["message"] == "heard"
            assert (await run.get("/readyz")).status_code == 200
            messages = (await run.get("/v1/messages")).json()["messages"]
            assert [m["content"] for m in messages if m["role"] == "user"].count(MANY) == len(accepted)


async def test_a_stop_ends_a_process_that_waits_for_room(short_path: Path) -> None:
    with small_volume(short_path / "v", MEGABYTES) as volume:
        async with runtime_process(volume, *[{"text": "heard"}] * 100) as run, asyncio.timeout(2 * DEADLINE):
            fill(volume)
            _, last = await fill_up(run)
            await run.end(signal.SIGKILL)
            await asyncio.gather(last, return_exceptions=True)
            await run.spawn(keep_port=True)
            await eventually(lambda: says_the_volume_is_full(run))
            assert (await run.end(signal.SIGTERM))[0] == 143


def test_a_full_volume_without_a_database_is_an_error_with_advice(tmp_path: Path) -> None:
    with small_volume(tmp_path / "v", 4) as volume:
        fill(volume)
        for _ in range(2):
            with pytest.raises(VolumeFullError, match=r"The volume is full\. Enlarge the volume"):
                Store(volume / "state")


async def test_a_first_start_on_a_full_volume_says_so_and_waits(short_path: Path) -> None:
    with small_volume(short_path / "v", MEGABYTES) as volume:
        async with runtime_process(volume, {"text": "hello"}, start=False, prompt="hi") as run, asyncio.timeout(DEADLINE):
            filler = fill(volume)
            await run.spawn()

            async def says_why() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    ready = await run.get("/readyz")
                    return ready.status_code == 503 and "volume: " in ready.text and "The volume is full." in ready.text
                return False

            await eventually(says_why)
            assert (await run.get("/healthz")).status_code == 200
            refused = await run.get("/v1/session")
            assert (refused.status_code, refused.json()["title"]) == (503, "The session has not started")
            filler.unlink()
            assert [event.type for event in await run.events(submission="prompt")][-1] == "turn_complete"


def test_a_volume_that_cannot_be_written_ends_with_advice(tmp_path: Path) -> None:
    """With a session on it, and without one."""
    with small_volume(tmp_path / "v", MEGABYTES) as volume:
        Store(volume / "held").close()
        subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
        for folder in ("held", "new"):
            with pytest.raises(StoreError, match=r"The volume cannot be written\. Check how it is mounted"):
                Store(volume / folder)


def test_a_damaged_or_emptied_database_ends_with_advice(tmp_path: Path) -> None:
    Store(tmp_path).close()
    (tmp_path / DATABASE).write_bytes(b"this is no database " * 1000)
    with pytest.raises(StoreError, match=r"damaged\. Restore it"):
        Store(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"")
    with pytest.raises(StoreError, match=r"held a session before\. Restore it"):
        Store(tmp_path)
    (tmp_path / DATABASE).unlink()
    with pytest.raises(StoreError, match="held a session before"):
        Store(tmp_path)
