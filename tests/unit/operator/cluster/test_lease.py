"""One operator writes at a time: leases against an API server that compares and swaps, on a clock of their own."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from agentsession_operator.cluster.kube import lease_path
from agentsession_operator.cluster.landing import LANDING_SECONDS
from agentsession_operator.cluster.lease import (
    DURATION_SECONDS,
    HELD_SECONDS,
    LONGEST_DURATION_SECONDS,
    NAME,
    RENEW_SECONDS,
    Lease,
    LeaseLost,
)
from support.control_plane.apiserver import UNREACHABLE, ApiServer
from support.control_plane.leases import PATH, holder, holds, lease_of, now
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


async def test_nothing_may_be_written_before_the_lease_is_held() -> None:
    server = ApiServer()
    lease = lease_of(server, "a")
    assert not holds(lease)
    await lease.acquire()
    assert holds(lease)
    assert (holder(server), now()) == ("a", 0)


async def test_without_renewal_writing_stops_before_another_operator_may_start() -> None:
    lease = lease_of(ApiServer(), "a")
    await lease.acquire()
    await asyncio.sleep(HELD_SECONDS)
    assert holds(lease)
    await asyncio.sleep(0.01)
    assert not holds(lease)


async def test_a_kept_lease_is_held_for_as_long_as_it_is_kept() -> None:
    lease = lease_of(ApiServer(), "a")
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    for _ in range(1000):
        await asyncio.sleep(0.5)
        assert holds(lease)
    keeping.cancel()


async def test_a_follower_waits_for_as_long_as_the_lease_is_renewed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="agentsession_operator")
    server = ApiServer()
    first, second = lease_of(server, "a"), lease_of(server, "b")
    await first.acquire()
    keeping, waiting = asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())
    await asyncio.sleep(300)
    assert not waiting.done()
    assert caplog.messages == ["acquired the lease system/agentsession-operator as a", "waiting for the lease: a holds it"]
    keeping.cancel()
    died = now()
    await waiting
    assert DURATION_SECONDS - RENEW_SECONDS < now() - died < DURATION_SECONDS + 3
    assert holder(server) == "b"


async def test_a_released_lease_is_taken_at_once() -> None:
    server = ApiServer()
    first, second = lease_of(server, "a"), lease_of(server, "b")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(5)
    await first.release()
    assert not holds(first)
    released = now()
    await waiting
    assert now() - released <= 1


async def test_releasing_what_is_not_held_writes_nothing() -> None:
    server = ApiServer()
    await lease_of(server, "a").release()
    assert server.calls == []


async def test_releasing_is_a_courtesy_that_may_fail() -> None:
    server = ApiServer()
    lease = lease_of(server, "a")
    await lease.acquire()
    server.remove(PATH)
    await lease.release()
    assert not holds(lease)


async def test_a_container_that_is_started_again_need_not_wait_for_itself() -> None:
    server = ApiServer()
    await lease_of(server, "pod-uid").acquire()
    await lease_of(server, "pod-uid").acquire()
    assert now() == 0


async def test_a_leader_that_finds_another_in_its_place_ends() -> None:
    server = ApiServer()
    lease = lease_of(server, "a")
    await lease.acquire()
    server.objects[PATH]["spec"]["holderIdentity"] = "b"
    server.put(PATH, server.objects[PATH])
    with pytest.raises(LeaseLost, match="held by b"):
        await lease.keep()
    assert not holds(lease)


async def test_a_renewal_that_came_through_unanswered_is_no_loss() -> None:
    server = ApiServer()
    lease = lease_of(server, "a")
    await lease.acquire()
    server.lost_answers.add(("PUT", PATH))
    keeping = asyncio.create_task(lease.keep())
    await asyncio.sleep(60)
    assert holds(lease)
    assert not keeping.done()
    keeping.cancel()


async def test_an_acquisition_that_came_through_unanswered_is_made_sure_of() -> None:
    server = ApiServer()
    server.lost_answers.add(("POST", lease_path("system")))
    lease = lease_of(server, "a")
    await lease.acquire()
    assert holds(lease)
    assert now() < DURATION_SECONDS


async def test_an_unreachable_api_server_stops_writing_but_does_not_lose_the_lease() -> None:
    server = ApiServer()
    lease = lease_of(server, "a")
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())

    def away(_verb: str, _path: str) -> None:
        raise UNREACHABLE

    server.answer = away
    await asyncio.sleep(60)
    assert not holds(lease)
    assert not keeping.done()
    server.answer = lambda _verb, _path: None
    await asyncio.sleep(RENEW_SECONDS + 1)
    assert holds(lease)
    keeping.cancel()


async def test_a_deleted_lease_is_created_again() -> None:
    server = ApiServer()
    lease = lease_of(server, "a")
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    await asyncio.sleep(5)
    server.remove(PATH)
    await asyncio.sleep(60)
    assert not keeping.done()
    assert holds(lease)
    assert holder(server) == "a"
    keeping.cancel()


@pytest.mark.parametrize("spec", [{}, {"holderIdentity": ""}, {"holderIdentity": None}])
async def test_a_lease_without_a_holder_is_free(spec: dict[str, Any]) -> None:
    server = ApiServer()
    server.put(PATH, {"metadata": {"name": NAME}, "spec": spec})
    await lease_of(server, "a").acquire()
    assert holder(server) == "a"


async def test_a_follower_honours_the_duration_that_the_holder_promised() -> None:
    server = ApiServer()
    server.put(PATH, {"metadata": {"name": NAME}, "spec": {"holderIdentity": "z", "leaseDurationSeconds": 30}})
    await lease_of(server, "a").acquire()
    assert 30 < now() < 35


@pytest.mark.parametrize("promised", [1_000_000, 0, -5, "long", None])
async def test_a_dead_holder_keeps_nobody_out_indefinitely(promised: object) -> None:
    server = ApiServer()
    server.put(PATH, {"metadata": {"name": NAME}, "spec": {"holderIdentity": "z", "leaseDurationSeconds": promised}})
    await lease_of(server, "a").acquire()
    assert now() < LONGEST_DURATION_SECONDS + 3


async def test_a_lease_without_a_spec_is_free() -> None:
    server = ApiServer()
    server.put(PATH, {"metadata": {"name": NAME}})
    lease = lease_of(server, "a")
    await lease.acquire()
    assert holder(server) == "a"
    await lease.release()
    assert holder(server) == ""


async def test_a_lease_deleted_and_taken_by_another_ends_the_leader() -> None:
    server = ApiServer()
    lease = lease_of(server, "a")
    await lease.acquire()
    server.remove(PATH)
    server.put(PATH, {"metadata": {"name": NAME}, "spec": {"holderIdentity": "b"}})
    with pytest.raises(LeaseLost, match="held by b"):
        await lease.keep()
    assert not holds(lease)


async def test_a_machine_that_was_suspended_does_not_write_under_an_expired_lease() -> None:
    """Its clock keeps running while it sleeps, as the others' do."""
    slept = 0.0
    lease = Lease(ApiServer(), "system", "a", clock=lambda: now() + slept)
    await lease.acquire()
    assert holds(lease)
    slept = 60.0
    assert not holds(lease)


async def test_after_a_release_admission_starts_at_once() -> None:
    server = ApiServer()
    first = lease_of(server, "a")
    await first.acquire()
    await first.release()
    second = lease_of(server, "b")
    await second.acquire()
    assert not await second.wait_until_quiet()


async def test_after_a_crash_admission_waits_until_the_last_write_has_landed() -> None:
    server = ApiServer()
    await lease_of(server, "a").acquire()
    crashed = now()
    second = lease_of(server, "b")
    await second.acquire()
    assert await second.wait_until_quiet()
    assert HELD_SECONDS + LANDING_SECONDS <= now() - crashed < 15


@pytest.mark.parametrize("there", [True, False], ids=["of its own", "deleted"])
async def test_a_lease_whose_holder_did_not_release_it_is_waited_out(there: bool) -> None:
    server = ApiServer()
    if there:
        await lease_of(server, "a").acquire()
    began = now()
    again = lease_of(server, "a")
    await again.acquire()
    assert await again.wait_until_quiet()
    assert now() - began == pytest.approx(LANDING_SECONDS + (0 if there else HELD_SECONDS))


async def test_an_abandoned_lease_expires_and_is_not_released() -> None:
    server = ApiServer()
    lease = lease_of(server, "a")
    await lease.acquire()
    lease.abandon()
    assert not holds(lease)
    await lease.release()
    assert holder(server) == "a"
