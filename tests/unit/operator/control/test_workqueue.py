"""The work queue, on a clock of its own."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.control.workqueue import FIRST_BACKOFF, LONGEST_BACKOFF, SHORTEST_WAIT, WorkQueue, backoff
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


def now() -> float:
    return asyncio.get_running_loop().time()


async def nothing_comes(queue: WorkQueue[str], within: float = 1000.0) -> bool:
    try:
        async with asyncio.timeout(within):
            await queue.get()
    except TimeoutError:
        return True
    return False


async def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abc":
        queue.add(key)
    assert [await queue.get() for _ in "abc"] == ["a", "b", "c"]


async def test_a_key_that_is_added_twice_comes_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    queue.done(await queue.get(), failed=False)
    assert await nothing_comes(queue)


async def test_a_key_added_during_its_work_comes_again_once_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")
    assert await nothing_comes(queue)
    queue.done(key, failed=False)
    queue.done(await queue.get(), failed=False)
    assert await nothing_comes(queue)


async def test_a_worker_that_waits_is_woken() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    queue.add("a")
    assert await waiting == "a"


async def test_a_failure_comes_again_later_each_time_and_without_end() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    pauses, last = [], 0.0
    for _ in range(20):
        key = await queue.get()
        pauses.append(now() - last)
        last = now()
        queue.done(key, failed=True)
    assert pauses[0] == 0
    for failures, pause in enumerate(pauses[1:]):
        assert backoff(failures, 0) <= pause <= backoff(failures, 1)


async def test_a_success_ends_the_backoff() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    for _ in range(8):
        queue.done(await queue.get(), failed=True)
    queue.done(await queue.get(), failed=False)
    queue.add("a")
    queue.done(await queue.get(), failed=True)
    began = now()
    await queue.get()
    assert now() - began <= backoff(0, 1)


async def test_news_during_work_that_fails_is_worked_on_at_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    for _ in range(8):
        queue.done(await queue.get(), failed=True)
    key = await queue.get()
    queue.add("a")
    began = now()
    queue.done(key, failed=True)
    await queue.get()
    assert now() == began


async def test_one_keys_failures_do_not_hold_up_another() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("bad")
    queue.done(await queue.get(), failed=True)
    began = now()
    queue.add("good")
    assert (await queue.get(), now()) == ("good", began)


async def test_an_appointment_is_kept() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 30)
    assert await queue.get() == "a"
    assert now() == pytest.approx(30)


@pytest.mark.parametrize("times", [(30, 10), (10, 30)])
async def test_of_two_appointments_the_earlier_stands(times: tuple[float, float]) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for seconds in times:
        queue.add_after("a", seconds)
    queue.done(await queue.get(), failed=False)
    assert now() == pytest.approx(10)
    assert await nothing_comes(queue)


async def test_an_appointment_in_the_past_is_due_now() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", -5)
    assert await queue.get() == "a"
    assert now() == pytest.approx(SHORTEST_WAIT)


async def test_a_wait_that_rounding_leaves_lets_time_pass() -> None:
    """A pace whose wait ends in 1e-14 s made an appointment for the same moment, without end."""
    queue: WorkQueue[str] = WorkQueue()
    await asyncio.sleep(20)
    queue.add_after("a", 3.5e-14)
    began = now()
    await queue.get()
    assert now() > began


async def test_an_appointment_that_falls_into_the_work_comes_after_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add_after("a", 5)
    await asyncio.sleep(10)
    queue.done(key, failed=False)
    assert await queue.get() == "a"
    assert now() == pytest.approx(10)


@given(
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from("abc")), max_size=30),
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=1, max_size=10),
    st.integers(1, 4),
)
async def test_no_news_is_lost_and_no_key_has_two_workers(
    news: list[tuple[float, str]], works: list[tuple[float, bool]], workers: int
) -> None:
    """After every addition some work on that key starts, whether work succeeds, fails, or takes long."""
    begun: dict[str, float] = {}
    busy: set[str] = set()

    async def work(queue: WorkQueue[str], number: int) -> None:
        turn = number
        while True:
            key = await queue.get()
            assert key not in busy
            busy.add(key)
            begun[key] = now()
            takes, fails = works[turn % len(works)]
            turn += 1
            await asyncio.sleep(takes)
            busy.discard(key)
            queue.done(key, failed=fails and now() < 60)

    queue: WorkQueue[str] = WorkQueue()
    tasks = [asyncio.create_task(work(queue, number)) for number in range(workers)]
    added: dict[str, float] = {}
    for at, key in sorted(news):
        await asyncio.sleep(at - now())
        added[key] = now()
        queue.add(key)
    await asyncio.sleep(1000)
    assert not [task for task in tasks if task.done()]
    assert begun.keys() == added.keys()
    assert all(begun[key] >= at for key, at in added.items())
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_backoff_has_bounds(failures: int, chance: float) -> None:
    assert FIRST_BACKOFF * 0.75 <= backoff(failures, chance) <= LONGEST_BACKOFF * 1.25


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_a_backoff_does_not_shrink_with_further_failures(failures: int, chance: float) -> None:
    assert backoff(failures, chance) <= backoff(failures + 1, chance)


async def test_keys_that_need_no_request_do_not_keep_others_from_running() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for number in range(100):
        queue.add(str(number))
    asked: list[int] = []

    async def lease() -> None:
        while not asked or asked[-1] < 100:
            asked.append(worked)
            await asyncio.sleep(0)

    keeping, worked = asyncio.create_task(lease()), 0
    while worked < 100:
        queue.done(await queue.get(), failed=False)
        worked += 1
    await keeping
    assert len(asked) > 50
