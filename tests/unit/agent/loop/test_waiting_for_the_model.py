"""A session waits for its model, visibly and not forever: real servers that are silent, gone, moved or busy."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from agent.config import AgentConfig, Patience
from agent.events import Event
from agent.loop.agent import Agent, TurnOutcome
from agent.model.failure import ModelUnavailableError
from agent.model.model import LiteLLMModel
from agent.testing import fails, says
from agent.tools.router import ToolRouter
from support.agent.openai_server import Answer, OpenAIServer, serve
from support.agent.stage import interrupt, stage

pytestmark = pytest.mark.anyio

PATIENT = Patience(notice=0.4, silence=2.0, first_wait=0.01)
EMPTY = 'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
HELLO = Answer(({"content": "hello"},))

SILENT = {
    "endless comments": Answer(raw=": OPENROUTER PROCESSING\n\n", repeats=": OPENROUTER PROCESSING\n\n"),
    "endless empty pieces": Answer(raw=EMPTY, repeats=EMPTY),
    "nothing at all": Answer(hangs=True),
    "nothing after a beginning": Answer(({"content": "Once upon"},), hangs=True),
    "headers only": Answer(raw=" ", stays_open=True),
    "half an error": Answer(status=500, raw="oops", stays_open=True),
}


async def turn(server: OpenAIServer, patience: Patience = PATIENT, url: str = "") -> tuple[TurnOutcome, list[dict[str, Any]]]:
    """A turn with a model at this server, and the states of its `processing`."""
    events: list[Event] = []

    async def emit(event: Event) -> None:
        events.append(event)

    model = LiteLLMModel("some-model", base_url=url or server.url)
    agent = Agent(AgentConfig("some-model", patience=patience), model, ToolRouter(), emit)
    async with asyncio.timeout(60):
        outcome = await agent.run_turn("hi")
    return outcome, [event.data for event in events if event.type == "processing"][1:]


@pytest.mark.parametrize("name", SILENT)
async def test_silence_is_shown_and_then_the_call_is_tried_again(name: str) -> None:
    async with serve(SILENT[name], HELLO) as server:
        outcome, seen = await turn(server)
    assert outcome.message == "hello"
    *before, retrying = seen
    # On a busy machine a try can end before the server has its request: then it is tried once more.
    assert {data["status"] for data in before} <= {"waiting", "retrying"}
    assert next(data for data in before if data["status"] == "waiting")["seconds"] >= 0.4
    assert retrying["status"] == "retrying"
    assert "no content for 2 s" in retrying["reason"]


async def test_a_slow_answer_is_not_silence() -> None:
    said = json.dumps({"choices": [{"index": 0, "delta": {"reasoning": "hm"}}]})
    thinks = Answer(raw=f"data: {said}\n\n", repeats=f"data: {said}\n\n")
    async with serve(thinks) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4.0):
                await turn(server)
        assert len(server.requests) == 1


async def test_a_model_that_moved_is_found_at_its_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    places = iter(["127.0.0.1", "127.0.0.1", "127.0.0.2"])

    def moved(host: Any, *more: Any, **options: Any) -> Any:
        return resolve(next(places) if host in ("model.test", b"model.test") else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", moved)
    async with serve(HELLO, Answer(hangs=True)) as old:
        port = int(old.url.removesuffix("/v1").rpartition(":")[2])
        async with serve(HELLO, host="127.0.0.2", port=port) as new:
            for _ in range(2):
                outcome, _ = await turn(old, url=f"http://model.test:{port}/v1")
                assert outcome.message == "hello"
            assert (len(old.requests), len(new.requests)) == (2, 1)


async def test_an_outage_is_waited_out() -> None:
    busy = [Answer(status=503, error={"message": "starting"}), Answer(status=429, error={"message": "slow"})] * 4
    async with serve(*busy, HELLO) as server:
        outcome, seen = await turn(server, Patience(first_wait=0.001))
    assert outcome.message == "hello"
    assert [data["attempt"] for data in seen] == list(range(2, 10))
    assert {data["status"] for data in seen} == {"retrying"}


@pytest.mark.parametrize(
    "hopeless",
    [
        Answer(status=429, error={"message": "You exceeded your current quota", "code": "insufficient_quota"}),
        Answer(status=401, error={"message": "bad key"}),
        Answer(status=503, error={"message": "closed for the day"}, headers={"Retry-After": "86400"}),
    ],
)
async def test_what_waiting_cannot_help_fails_at_once(hopeless: Answer) -> None:
    async with serve(hopeless) as server:
        outcome, seen = await turn(server, Patience())
    assert (outcome.status, seen) == ("error", [])


async def test_a_wait_for_the_model_can_be_interrupted() -> None:
    s = stage(fails(ModelUnavailableError("gone")), patience=Patience())
    waiting = asyncio.Event()

    def see() -> None:
        if s.events[-1].data["status"] == "retrying":
            waiting.set()

    s.on("processing", see)
    task = asyncio.create_task(s.agent.run_turn("go"))
    await waiting.wait()
    await interrupt(s, task)


async def test_a_silence_can_be_interrupted_and_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    s = stage(says("Once", hangs=True), patience=PATIENT)
    s.on("processing", lambda: s.events[-1].data["status"] == "waiting" and s.agent.interrupt())
    assert (await s.agent.run_turn("go")).status == "interrupted"
    assert s.model.streaming == 0
    assert [m.role for m in s.agent.conversation.messages] == ["user", "assistant"]
    assert asyncio.all_tasks() == before


async def test_an_event_that_cannot_be_stored_in_a_silence_ends_the_turn() -> None:
    s = stage(says("Once", hangs=True), patience=PATIENT)

    def fail() -> None:
        if s.events[-1].data["status"] == "waiting":
            raise OSError("disk full")

    s.on("processing", fail)
    async with asyncio.timeout(60):
        outcome = await s.agent.run_turn("go")
    assert (outcome.status, outcome.message) == ("error", "OSError: disk full")
