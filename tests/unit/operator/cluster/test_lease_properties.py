"""Two or three operators with one lease: a network that delays, loses and cuts off; processes that die."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.cluster.kube import ApiError
from agentsession_operator.cluster.landing import WRITE_SECONDS
from agentsession_operator.cluster.lease import (
    DURATION_SECONDS,
    RENEW_SECONDS,
    Lease,
    LeaseLost,
)
from support.control_plane.apiserver import UNREACHABLE, ApiServer
from support.control_plane.leases import holds, lease_of, now
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


@dataclass
class Network:
    """The way of one operator to the API server. A call takes `there` and `back`; after its deadline it has no answer."""

    server: ApiServer
    delays: Iterator[tuple[float, float]]
    cut_off: tuple[float, float] = (0, 0)
    """From when to when nothing gets through, in seconds of this network's life."""
    born: float = field(default_factory=now)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Any = None,
        content_type: str = "application/json",
        timeout: float = 15.0,
    ) -> Any:
        deadline = timeout if method == "GET" else WRITE_SECONDS
        there, back = next(self.delays)
        if self.cut_off[0] <= now() - self.born < self.cut_off[1]:
            await asyncio.sleep(deadline)
            raise UNREACHABLE
        # The server ends what takes longer than the deadline; an answer may come too late all the same.
        carried_out = asyncio.create_task(self._carry_out(there, method, path, body))
        try:
            async with asyncio.timeout(deadline):
                answer = await asyncio.shield(carried_out)
                await asyncio.sleep(back)
                return answer
        except TimeoutError:
            raise UNREACHABLE from None
        finally:
            carried_out.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _carry_out(self, there: float, method: str, path: str, body: Any) -> Any:
        await asyncio.sleep(there)
        return await self.server.request(method, path, body)


@dataclass
class Process:
    """An operator, as far as its lease goes: it follows, leads, dies, and comes back."""

    identity: str
    network: Network
    begins: float
    dies: Iterator[float]
    """How long each of its lives lasts."""
    lease: Lease | None = None
    last_held: float = field(default=float("-inf"))

    async def run(self) -> None:
        await asyncio.sleep(self.begins)
        for life in self.dies:
            self.lease = Lease(self.network, "system", self.identity, clock=now)
            try:
                async with asyncio.timeout(life):
                    await self.lease.acquire()
                    await self.lease.keep()
            except (TimeoutError, LeaseLost):
                self.lease = None
            await asyncio.sleep(2)


fast = st.tuples(st.sampled_from([0.0, 0.01]), st.just(0.0))
slow = st.tuples(st.sampled_from([0.0, 1.0, 3.9, 4.9]), st.sampled_from([0.0, 2.0, 4.5, 6.0]))
ways = st.lists(fast, min_size=1, max_size=1) | st.lists(fast | slow, min_size=1, max_size=8)


@st.composite
def processes(draw: st.DrawFn) -> list[dict[str, Any]]:
    return [
        {
            "identity": identity,
            "delays": draw(ways),
            "cut_off": (start := draw(st.integers(0, 60)), start + draw(st.sampled_from([0, 10, 30, 60]))),
            "begins": draw(st.sampled_from([0, 0.5, 3, 20])),
            "dies": draw(st.lists(st.sampled_from([5, 21.7, 1000]), min_size=1, max_size=5)),
        }
        for identity in "abc"[: draw(st.integers(2, 3))]
    ]


@given(processes())
async def test_two_operators_never_write_at_the_same_time(
    plans: list[dict[str, Any]],
) -> None:
    server = ApiServer()
    all_ = [
        Process(
            plan["identity"],
            Network(server, cycle(plan["delays"]), plan["cut_off"]),
            plan["begins"],
            iter(plan["dies"]),
        )
        for plan in plans
    ]
    tasks = [asyncio.create_task(process.run()) for process in all_]
    began = now()
    while now() - began < 150:
        await asyncio.sleep(0.24)
        leaders = [process for process in all_ if process.lease is not None and holds(process.lease)]
        assert len(leaders) <= 1
        for leader in leaders:
            others = [process.last_held for process in all_ if process is not leader]
            assert now() - max(others) > WRITE_SECONDS - 0.5
            leader.last_held = now()
    for task in tasks:
        assert not task.done() or task.exception() is None
        task.cancel()
    await asyncio.wait(tasks)


@given(st.lists((fast | slow).filter(lambda way: sum(way) < RENEW_SECONDS), min_size=1, max_size=8), st.floats(0, 30))
async def test_another_operator_leads_soon_after_the_leader_died(way: list[tuple[float, float]], life: float) -> None:
    server = ApiServer()
    first = Process("a", Network(server, cycle(way)), 0, iter([30 + life, 1e9]))
    second = Process("b", Network(server, cycle(way)), 1, iter([1e9]))
    tasks = [asyncio.create_task(process.run()) for process in (first, second)]
    await asyncio.sleep(30 + life + DURATION_SECONDS + 20)
    assert [process for process in (first, second) if process.lease is not None and holds(process.lease)]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_errors_of_the_api_server_never_end_the_wait() -> None:
    server = ApiServer()
    tries = 0

    def failing(_verb: str, _path: str) -> None:
        nonlocal tries
        tries += 1
        if tries <= 10:
            raise (UNREACHABLE, ApiError(403, "Forbidden", "no"), ApiError(500, "InternalError", "x"))[tries % 3]

    server.answer = failing
    lease = lease_of(server, "a")
    await lease.acquire()
    assert holds(lease)
