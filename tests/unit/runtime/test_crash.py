"""`kill -9` before and after each transaction of a conversation: nothing accepted is lost, nothing finished is done twice.

A few moments, other ones each day, unless AGENTSESSION_CRASH_POINTS=all asks for every one.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from unit.runtime.harness import DEADLINE, TOKEN, RuntimeProcess, runtime_process

pytestmark = pytest.mark.anyio

MOMENTS = 60
"""More than twice the transactions of the conversation below; later moments never come, and the test says so."""

SCRIPT: tuple[dict[str, Any], ...] = (
    {"text": "First I look.", "calls": [["bash", {"command": "echo one >> log"}], ["bash", {"command": "echo two >> log"}]]},
    {"text": "Looked.", "delay": 0.01},
    {"calls": [["bash", {"command": "echo three >> log"}]]},
    {"text": "Done, and more."},
)

SUBMISSIONS: tuple[dict[str, Any], ...] = (
    {"id": "more", "type": "user_input", "text": "and more?"},
    {"id": "back", "type": "undo"},
)


def chosen() -> list[int]:
    if os.environ.get("AGENTSESSION_CRASH_POINTS") == "all":
        return list(range(1, MOMENTS + 1))
    return sorted(random.Random(datetime.date.today().toordinal()).sample(range(1, 45), 4))


@pytest.mark.parametrize("moment", chosen())
async def test_a_kill_at_any_moment_is_survived(short_path: Path, moment: int) -> None:
    environment = {"CRASH_AT": str(moment)}
    async with runtime_process(short_path, *SCRIPT, environment=environment, start=False, prompt="Go.") as run:
        await run.spawn()
        crashed = await drive(run)
        events = await run.events(submission="back")
        assert events[-1].type == "undo_complete"
        everything = [event async for event in _until(run, events[-1].seq)]
        assert [e.seq for e in everything] == list(range(1, events[-1].seq + 1))
        ends = {"turn_complete", "undo_complete", "error", "interrupted", "approval_required"}
        assert [(e.submission_id, e.type) for e in everything if e.type in ends] == [
            ("prompt", "turn_complete"),
            ("more", "turn_complete"),
            ("back", "undo_complete"),
        ]
        starts = [e.submission_id for e in everything if e.data.get("status") == "started"]
        assert starts == ["prompt", "more"]
        calls = [e.data["tool_call_id"] for e in everything if e.type == "tool_call"]
        assert len(calls) == len(set(calls)) == 3
        assert sorted(calls) == sorted(e.data["tool_call_id"] for e in everything if e.type == "tool_output")
        lost = sum(e.type == "tool_output" and not e.data["success"] for e in everything)
        done = (short_path / "work" / "log").read_text().split()
        assert len(done) == len(set(done))
        assert set(done) <= {"one", "two", "three"}
        assert len(done) >= 3 - lost
        assert lost <= 1
        async with run.client() as client:
            assert (await client.info())["message_count"] == 5
        if not crashed:
            pytest.skip(f"the conversation has no moment {moment}")


async def drive(run: RuntimeProcess) -> bool:
    """Submit what is to be submitted, and start the process again when it dies; whether it did."""
    submitting = asyncio.create_task(submit_all(run))
    assert run.process is not None
    died = asyncio.create_task(run.process.wait())
    async with asyncio.timeout(3 * DEADLINE):
        await asyncio.wait([submitting, died], return_when=asyncio.FIRST_COMPLETED)
        crashed = died.done()
        if crashed:
            run.environment = {}
            await run.end()
            await run.start(keep_port=True)
        await submitting
    died.cancel()
    return crashed


async def submit_all(run: RuntimeProcess) -> None:
    """Each submission, again and again until it is acknowledged, and then until its last event is seen."""
    for body in SUBMISSIONS:
        await submit(run, body)
    async with run.client() as client:
        async for _ in client.events(submission="back"):
            pass


async def submit(run: RuntimeProcess, body: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=run.url, headers=headers) as http:
        while True:
            try:
                response = await http.post("/v1/submissions", json=body)
            except httpx.TransportError:
                await asyncio.sleep(0.02)
                continue
            assert response.status_code == 202
            return


async def _until(run: RuntimeProcess, seq: int) -> Any:
    async with run.client() as client, asyncio.timeout(DEADLINE):
        async for event in client.events():
            yield event
            if event.seq == seq:
                return
