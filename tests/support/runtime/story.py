"""A conversation with a process that kills itself in the middle of it, and is started again: what was told, kept and done."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from agent.loop.agent import IN_FLIGHT
from session_runtime.client.client import ReceivedEvent
from support.runtime.harness import DEADLINE, TOKEN, RuntimeProcess, runtime_process

SAMPLE = 5
SEED = 5

MOMENTS = 150
"""More than the moments of each conversation, which are two for each transaction; later ones are skipped."""

LONG = "It is a long story, and not much happens in it. " * 40
"""Worth a summary."""


@dataclass(frozen=True)
class Plan:
    """What is said in a conversation, and how each part of it ends."""

    answers: Mapping[str, Sequence[Mapping[str, Any]]]
    """The model's, by what was said last."""
    submissions: Sequence[Mapping[str, Any]]
    """Behind the prompt, each sent until it is acknowledged, one after the other."""
    ends: Sequence[tuple[str, str]]
    """Submission and type of the event that ends it."""
    session: Mapping[str, Any] = field(default_factory=dict)
    awaited: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By the id of a submission: the submission and its event (type) after which it is sent."""


@dataclass(frozen=True)
class Story:
    """A conversation from its beginning to its end."""

    plan: Plan
    events: Sequence[ReceivedEvent]
    messages: Sequence[dict[str, Any]]
    done: Sequence[str]
    """What the calls have really done."""
    crashed: bool
    moments: int

    @property
    def ends(self) -> list[tuple[str, str]]:
        """Submission and type of each event that ends one."""
        types = {type_ for _, type_ in self.plan.ends} | {"turn_complete", "error", "interrupted"}
        return [(str(e.submission_id), e.type) for e in self.events if e.type in types]

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
            elif (event.submission_id, event.type) in self.plan.ends or event.data.get("status") == "started":
                lines.append((event.submission_id, event.type))
        return lines

    def kept(self, lost: set[str]) -> list[dict[str, Any]]:
        """The messages, if these calls were lost."""
        return [m | {"content": IN_FLIGHT} if m.get("tool_call_id") in lost else m for m in self.messages]


def chosen(sample: int = SAMPLE) -> list[float]:
    """Moments as parts of the whole conversation, or, with AGENTSESSION_CRASH_POINTS=all, the numbers of all of them."""
    if os.environ.get("AGENTSESSION_CRASH_POINTS") == "all":
        return list(range(1, MOMENTS + 1))
    seeded = random.Random(SEED)
    return [round((part + seeded.random()) / sample, 3) for part in range(sample)]


def moment_of(choice: float, uncrashed: Story) -> int:
    """The number of the moment."""
    return choice if isinstance(choice, int) else 1 + int(choice * uncrashed.moments)


async def live(plan: Plan, folder: Path, **environment: str) -> Story:
    """Have the conversation, and start the process again when it dies."""
    count = folder / "moments"
    environment["COUNT_MOMENTS"] = str(count)
    async with runtime_process(folder, answers=plan.answers, environment=environment, start=False, **plan.session) as run:
        await run.spawn()
        submitting = asyncio.create_task(_submit_all(run, plan))
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
    return Story(plan, events, messages, (folder / "work" / "log").read_text().split(), crashed, moments)


async def _submit_all(run: RuntimeProcess, plan: Plan) -> int:
    """Each submission, again and again until it is acknowledged, and then until the last one's event is seen; its number."""
    for body in plan.submissions:
        if body["id"] in plan.awaited:
            await _happened(run, *plan.awaited[body["id"]])
        await _submit(run, body)
    async with run.client() as client:
        return (await client.result(plan.ends[-1][0])).seq


async def _happened(run: RuntimeProcess, type_: str, submission: str) -> None:
    async with run.client() as client:
        async for event in client.events():
            if (event.type, event.submission_id) == (type_, submission):
                return


async def _submit(run: RuntimeProcess, body: Mapping[str, Any]) -> None:
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
