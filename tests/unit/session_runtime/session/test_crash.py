"""`kill -9` before and after each transaction of a conversation: nothing accepted is lost, nothing finished is done twice,
and the conversation resumes as if nothing had happened.

A few moments, spread over the conversation; every one with AGENTSESSION_CRASH_POINTS=all (`make test-crash-runtime`).
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.loop.agent import IN_FLIGHT
from session_runtime.client.client import ReceivedEvent
from support.runtime.harness import DEADLINE, TOKEN, RuntimeProcess, asking, runtime_process

pytestmark = pytest.mark.anyio

SAMPLE = 5
SEED = 5

MOMENTS = 100
"""More than twice the transactions of the conversation below (about 37); later ones are skipped."""

LONG = "It is a long story, and not much happens in it. " * 40
"""Worth a summary."""

SCRIPT: dict[str, list[dict[str, Any]]] = {
    "Go.": [
        {
            "text": "First I look.",
            "calls": [["bash", {"command": "echo one >> log"}], ["bash", {"command": "echo two >> log"}]],
            "ids": ["one", "two"],
        },
        {"text": f"Looked. {LONG}", "piece": 100, "delay": 0.005},
    ],
    "and more?": [
        {"calls": [["bash", {"command": "echo three >> log"}]], "ids": ["three"]},
        {"text": f"Done, and more. {LONG}", "piece": 500},
    ],
    "again?": [
        {"calls": [["bash", {"command": "echo four >> log"}]], "ids": ["four"]},
        {"text": "Once more."},
    ],
}
"""Answers by what the user has said last."""

SUBMISSIONS: tuple[dict[str, Any], ...] = (
    {"id": "more", "type": "user_input", "text": "and more?"},
    {"id": "yes", "type": "approval", "decisions": [{"tool_call_id": "three", "approved": True}]},
    {"id": "shorter", "type": "compact"},
    {"id": "again", "type": "user_input", "text": "again?"},
    {"id": "back", "type": "undo"},
)

ENDS = [
    ("prompt", "turn_complete"),
    ("more", "approval_required"),
    ("yes", "turn_complete"),
    ("shorter", "compacted"),
    ("again", "turn_complete"),
    ("back", "undo_complete"),
]


@dataclass(frozen=True)
class Story:
    """A conversation from its beginning to its end."""

    events: Sequence[ReceivedEvent]
    messages: Sequence[dict[str, Any]]
    done: Sequence[str]
    """What the calls have really done."""
    crashed: bool
    moments: int

    @property
    def lost(self) -> set[str]:
        """Calls that were under way in the crash; whether they have done anything is not known."""
        return {e.data["tool_call_id"] for e in self.events if e.type == "tool_output" and e.data["output"] == IN_FLIGHT}

    def told(self, lost: set[str]) -> list[tuple[object, ...]]:
        """What the events tell, but for what differs in each run, if these calls were lost."""
        said = ("assistant_message", "tool_call", "tool_output")
        lines: list[tuple[object, ...]] = []
        for event in self.events:
            data = {name: value for name, value in event.data.items() if name != "message_id"}
            if event.type == "tool_output" and data["tool_call_id"] in lost:
                data |= {"output": IN_FLIGHT, "success": False}
            if event.type in said:
                lines.append((event.submission_id, event.type, data))
            elif (event.submission_id, event.type) in ENDS or event.data.get("status") == "started":
                lines.append((event.submission_id, event.type))
        return lines

    def kept(self, lost: set[str]) -> list[dict[str, Any]]:
        """The messages, if these calls were lost."""
        return [m | {"content": IN_FLIGHT} if m.get("tool_call_id") in lost else m for m in self.messages]


def chosen() -> list[float]:
    """Moments as parts of the whole conversation, or their numbers."""
    if os.environ.get("AGENTSESSION_CRASH_POINTS") == "all":
        return list(range(1, MOMENTS + 1))
    seeded = random.Random(SEED)
    return [round((part + seeded.random()) / SAMPLE, 3) for part in range(SAMPLE)]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Of the module, as `uncrashed` is."""
    return "asyncio"


@pytest.fixture(scope="module")
async def uncrashed() -> Story:
    """The conversation without a crash."""
    with tempfile.TemporaryDirectory(prefix="as-") as folder:
        story = await live(Path(folder))
    assert not story.crashed
    assert story.done == ["one", "two", "three", "four"]
    assert story.moments < MOMENTS
    assert [(e.submission_id, e.type) for e in story.events if (e.submission_id, e.type) in ENDS] == ENDS
    return story


@pytest.mark.parametrize("choice", chosen())
async def test_a_kill_at_any_moment_is_survived(short_path: Path, uncrashed: Story, choice: float) -> None:
    moment = choice if isinstance(choice, int) else 1 + int(choice * uncrashed.moments)
    if moment > uncrashed.moments:
        pytest.skip(f"the conversation has {uncrashed.moments} moments")
    story = await live(short_path, CRASH_AT=str(moment))
    assert [e.seq for e in story.events] == list(range(1, len(story.events) + 1))
    assert len(story.lost) <= 1
    assert story.told(set()) == uncrashed.told(story.lost)
    assert story.messages == uncrashed.kept(story.lost)
    assert [word for word in story.done if word not in story.lost] == [w for w in uncrashed.done if w not in story.lost]
    assert len(story.done) == len(set(story.done))
    if not story.crashed:
        pytest.skip(f"this time the conversation had no moment {moment}")


async def live(folder: Path, **environment: str) -> Story:
    """Have the conversation, and start the process again when it dies."""
    count = folder / "moments"
    environment["COUNT_MOMENTS"] = str(count)
    session = {"prompt": "Go.", "agent": asking("*three*")}
    async with runtime_process(folder, answers=SCRIPT, environment=environment, start=False, **session) as run:
        await run.spawn()
        submitting = asyncio.create_task(submit_all(run))
        assert run.process is not None
        died = asyncio.create_task(run.process.wait())
        async with asyncio.timeout(3 * DEADLINE):
            await asyncio.wait([submitting, died], return_when=asyncio.FIRST_COMPLETED)
            crashed = died.done()
            moments = int(count.read_text())
            if crashed:
                run.environment = {}
                assert (await run.end())[0] == -9
                await run.start(keep_port=True)
            last = await submitting
        died.cancel()
        events = [event async for event in _until(run, last)]
        messages = (await run.get("/v1/messages")).json()["messages"]
    return Story(events, messages, (folder / "work" / "log").read_text().split(), crashed, moments)


async def submit_all(run: RuntimeProcess) -> int:
    """Each submission, again and again until it is acknowledged, and then until its last event is seen; its number."""
    for body in SUBMISSIONS:
        await submit(run, body)
    async with run.client() as client:
        return (await client.result("back")).seq


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
