"""The event stream over real connections: every client sees the exact sequence, with any number of others connected."""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.testing import calls, says
from support.runtime.harness import DEADLINE, RuntimeProcess, eventually, runtime, runtime_process
from support.runtime.sse import Follower, StuckFollower

pytestmark = pytest.mark.anyio

FOLLOWERS = 900
STUCK = 100

STEPS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=4)
"""Steps of a turn: characters of text, and calls."""

CONNECTIONS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3000)), max_size=5)
"""Connections of one client: after how many events of the turn it is made, and after how many bytes it breaks."""


@settings(max_examples=20, deadline=None)
@given(steps=STEPS, clients=st.lists(st.tuples(st.booleans(), CONNECTIONS), min_size=1, max_size=5))
async def test_every_client_sees_the_exact_sequence(
    steps: list[tuple[int, int]], clients: list[tuple[bool, list[tuple[int, int]]]]
) -> None:
    script = [calls(*[("bash", {"command": "echo x"})] * n, text="x" * size, piece=4, delay=0.002) for size, n in steps if n]
    script.append(says("the end", piece=2, delay=0.002))

    with tempfile.TemporaryDirectory(prefix="as-") as name:
        folder = Path(name)
        async with runtime(folder, *script) as run:
            leader = Follower(run.url, "turn")
            await run.submit("user_input", text="go", id="turn")
            leading = asyncio.create_task(leader.follow())

            def has_come_to(moment: int) -> bool:
                return len(leader.bodies) >= moment or leading.done()

            async def client(only_the_turn: bool, connections: list[tuple[int, int]]) -> Follower:
                follower = Follower(run.url, "turn" if only_the_turn else None)
                for moment, size in connections:
                    await eventually(partial(has_come_to, moment))
                    await follower.follow(until="turn_complete", limit=size)
                await follower.follow(until="turn_complete")
                return follower

            async with asyncio.timeout(DEADLINE):
                followers = await asyncio.gather(*(client(*one) for one in clients))
                await leading
            everything = _stored(folder)
            turn = [body for body in everything if json.loads(body)["submission_id"] == "turn"]
            assert leader.bodies == turn
            for (only_the_turn, _), follower in zip(clients, followers, strict=True):
                assert follower.bodies == (turn if only_the_turn else everything)


def _stored(folder: Path) -> list[bytes]:
    """The bodies of all events, by the database."""
    database = sqlite3.connect(folder / "state" / "session.db")
    bodies = [body.encode() for (body,) in database.execute("SELECT body FROM events ORDER BY seq")]
    database.close()
    assert [json.loads(body)["seq"] for body in bodies] == list(range(1, len(bodies) + 1))
    return bodies


@pytest.fixture
def many_files() -> Iterator[None]:
    """A thousand connections are a thousand files; the process's limit is often just that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * (FOLLOWERS + STUCK)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def outputs(steps: int, each: int) -> list[dict[str, Any]]:
    """A script with so many steps, each with so many outputs of 24 kB."""
    call = ["bash", {"command": "head -c 24000 /dev/zero | tr '\\0' x"}]
    return [{"calls": [call] * each, "piece": 1000} for _ in range(steps)] + [{"text": "that was it"}]


async def test_a_thousand_followers_see_everything_and_stuck_ones_resume(short_path: Path, many_files: None) -> None:
    environment = {"STUCK_MILLISECONDS": "3000"}
    async with runtime_process(short_path, *outputs(3, 8), environment=environment) as run:
        await run.until("ready")
        before = run.memory()
        followers = [Follower(run.url) for _ in range(FOLLOWERS)]
        following = [asyncio.create_task(follower.follow(until="turn_complete")) for follower in followers]
        stuck = [StuckFollower(run.url) for _ in range(STUCK)]
        await eventually(lambda: _follow(run, FOLLOWERS + STUCK))
        async with run.client() as client:
            await client.submit("user_input", text="go")
        async with asyncio.timeout(6 * DEADLINE):
            await asyncio.gather(*following)
        assert run.memory() - before < (FOLLOWERS + STUCK) * 100_000
        everything = _stored(short_path)
        assert all(follower.bodies == everything for follower in followers)
        await eventually(lambda: _follow(run, 0))
        for one in stuck:
            one.take_what_came()
            assert len(one.bodies) < len(everything)
            await one.follow(until="turn_complete")
            assert one.bodies == everything


async def test_what_waits_for_stuck_followers_is_bounded(short_path: Path, many_files: None) -> None:
    """10 MB of events: for a hundred followers that is 1 GB, if all of it waited for them."""
    patient = {"STUCK_MILLISECONDS": "600000"}  # the turn takes longer than a minute on a busy machine
    async with runtime_process(short_path, *outputs(4, 100), environment=patient) as run, run.client() as client:
        await run.until("ready")
        stuck = [StuckFollower(run.url) for _ in range(STUCK)]
        await eventually(lambda: _follow(run, STUCK))
        before = run.memory()
        async with asyncio.timeout(6 * DEADLINE):
            assert (await client.run("go")).type == "turn_complete"
        assert sum(map(len, _stored(short_path))) > 9_500_000
        assert await _follow(run, STUCK)  # they are all still there
        assert run.memory() - before < 60_000_000
        for one in stuck:
            one.close()


async def test_followers_share_one_long_event(short_path: Path, many_files: None) -> None:
    """100,000 emoji are 1.2 MB of JSON: for 300 clients that take nothing, 360 MB, if each had its own."""
    async with runtime_process(short_path, {"text": "done"}) as run, run.client() as client:
        await run.until("ready")
        stuck = [StuckFollower(run.url) for _ in range(3 * STUCK)]
        await eventually(lambda: _follow(run, 3 * STUCK))
        before = run.memory()
        async with asyncio.timeout(6 * DEADLINE):
            assert (await client.run("\N{FOX FACE}" * 100_000)).type == "turn_complete"
        assert await _follow(run, 3 * STUCK)  # they are all still there
        assert run.memory() - before < 3 * STUCK * 250_000
        for one in stuck:
            one.close()


async def _follow(run: RuntimeProcess, count: int) -> bool:
    """Whether so many clients follow the events."""
    lines = (await run.get("/metrics")).text.splitlines()
    return f"agentsession_event_subscribers {float(count)}" in lines
