"""Who gets a slot, on an API server in memory: the pod is the reservation, and a pass ends when each of its creations has."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from agentsession_operator.api.meta import SESSIONS
from agentsession_operator.api.objects import SessionUID
from agentsession_operator.cluster.kube import ApiError, path_of
from agentsession_operator.cluster.landing import LANDING_SECONDS
from agentsession_operator.cluster.lease import NotLeader
from support.control_plane.apiserver import UNREACHABLE
from support.control_plane.builders import JSON, quota
from support.control_plane.stage import PODS, SESSION, UID, Stage, persistent_stage
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


async def passes(stage: Stage, seconds: float = 5.0) -> None:
    """Let the admitter run for a while."""
    admitting = asyncio.create_task(stage.admitter.run())
    stage.wake()
    await asyncio.sleep(seconds)
    assert not admitting.done()
    admitting.cancel()
    await asyncio.wait([admitting])


def pods(stage: Stage) -> int:
    return len([path for path in stage.server.objects if path.startswith(f"{PODS}/")])


def capped(sessions: int, *, waiting: int) -> Stage:
    stage = Stage()
    stage.cache.quotas.put(quota(maxSessions=sessions, maxSessionsPerUser=50))
    for number in range(waiting):
        stage.put_session(f"s{number}", created=f"2026-05-04T10:00:{number:02}Z")
    return stage


async def test_the_first_write_for_a_session_is_its_pod() -> None:
    stage = Stage()
    stage.put_session()
    await passes(stage)
    assert stage.writes() == [("POST", PODS)]
    assert stage.books.admission.ledger.held == 1


async def test_no_session_is_admitted_before_the_cache_is_complete() -> None:
    stage = Stage(complete=False)
    stage.put_session()
    await passes(stage)
    assert stage.writes() == []


async def test_an_unreadable_quota_admits_no_session_and_reports_why() -> None:
    stage = Stage()
    stage.cache.quotas.put(quota(maxSessions="many"))
    stage.put_session()
    await passes(stage)
    await stage.reconciler.reconcile(UID)
    assert stage.reasons()["Admitted"] == "QuotaHeld"


@pytest.mark.parametrize("code", [403, 409, 422, 429])
async def test_a_refused_creation_gives_its_slot_to_the_next_at_once(code: int) -> None:
    stage = capped(1, waiting=2)

    def refuse_the_first(verb: str, path: str) -> None:
        if (verb, path) == ("POST", PODS) and not refused:
            refused.append(path)
            raise ApiError(code, "Refused", "not this one")

    refused: list[str] = []
    stage.server.answer = refuse_the_first
    await passes(stage, 0.5)
    assert pods(stage) == 1
    assert stage.objects.backs_off(SessionUID("uid-of-s0"))
    assert stage.cache.pod_of(SessionUID("uid-of-s1")) is not None


async def test_a_session_that_is_always_refused_blocks_nobody_and_backs_off() -> None:
    stage = capped(50, waiting=3)

    def refuse(verb: str, path: str) -> None:
        if (verb, path) == ("POST", PODS):
            tried.append(path)
            raise ApiError(403, "Forbidden", "exceeded quota")

    tried: list[str] = []
    await passes(stage, 1)
    assert pods(stage) == 3
    stage.put_session("late")
    stage.server.answer = refuse
    await passes(stage, 600)
    assert 5 <= len(tried) <= 15, "1, 2, 4 ... 300 s"


@pytest.mark.parametrize("others", [1, 3])
async def test_a_pass_counts_its_slow_creations_when_one_is_refused(others: int) -> None:
    """The pass ends when each of its writes has ended, so that the next one counts them all."""
    stage = capped(others + 1, waiting=2 * (others + 1))
    slow = stage.server.request
    posts = 0

    async def request(method: str, path: str, *args: object, **options: object) -> dict[str, object]:
        nonlocal posts
        if (method, path) == ("POST", PODS):
            posts += 1
            if posts == 1:
                raise ApiError(429, "TooManyRequests", "slow down", 1)
            await asyncio.sleep(2.5)
        return await slow(method, path, *args, **options)  # type: ignore[arg-type]

    stage.server.request = request  # type: ignore[method-assign]
    admitting = asyncio.create_task(stage.admitter.run())
    for _ in range(100):
        stage.wake()
        await asyncio.sleep(0.1)
        assert pods(stage) + stage.objects.in_doubt <= 2 * (others + 1)
        assert pods(stage) <= others + 1
    assert pods(stage) == others + 1
    admitting.cancel()


async def test_nothing_is_counted_of_a_creation_that_the_lease_forbade() -> None:
    stage = capped(1, waiting=1)

    def shut(verb: str, path: str) -> None:
        if verb == "POST":
            raise NotLeader("shut")

    stage.server.answer = shut
    await passes(stage, 5)
    assert stage.objects.in_doubt == 0
    stage.server.answer = lambda _verb, _path: None
    await passes(stage, 5)
    assert pods(stage) == 1


async def test_a_creation_without_an_answer_holds_its_slot_until_it_has_landed() -> None:
    stage = capped(1, waiting=2)

    def away(verb: str, path: str) -> None:
        if (verb, path) == ("POST", PODS):
            posted.append(asyncio.get_running_loop().time())
            raise UNREACHABLE

    posted: list[float] = []
    stage.server.answer = away
    admitting = asyncio.create_task(stage.admitter.run())
    stage.wake()
    await asyncio.sleep(LANDING_SECONDS - 0.5)
    assert len(posted) == 1
    assert stage.objects.is_creating(SessionUID("uid-of-s0"))
    stage.server.answer = lambda _verb, _path: None
    await asyncio.sleep(5)
    assert stage.objects.in_doubt == 0
    assert pods(stage) == 1
    admitting.cancel()


async def test_the_cap_holds_with_stale_caches_and_lost_answers() -> None:
    stage = capped(2, waiting=6)
    stale = path_of(SESSIONS, "team", "s0")
    stage.server.put(stale, stage.server.objects[stale])
    stage.server.lost_answers.add(("POST", PODS))
    admitting = asyncio.create_task(stage.admitter.run())
    for _ in range(200):
        stage.wake()
        await asyncio.sleep(0.1)
        assert pods(stage) <= 2
    assert pods(stage) == 2
    admitting.cancel()


async def test_a_session_deleted_before_the_watches_began_gets_no_pod() -> None:
    """Between the first list and kopf's a deletion goes unseen."""
    stage = Stage()
    stage.put_session()
    del stage.server.objects[SESSION]
    stage.admitter.distrust_the_watches()
    await passes(stage)
    assert stage.writes() == []
    assert stage.cache.sessions.get(UID) is None


async def test_a_session_with_long_texts_is_read_before_its_pod_is_created() -> None:
    """The cache left its texts out; its pod has them."""
    stage = Stage()
    stage.put_session(prompt="x" * 5_000)
    assert (known := stage.cache.sessions.get(UID)) is not None
    assert known.spec.prompt is None
    await passes(stage)
    (body,) = [body for path, body in stage.server.objects.items() if path.startswith(f"{PODS}/")]
    assert "x" * 5_000 in json.dumps(body)


async def test_one_users_thousand_sessions_do_not_delay_anothers_first() -> None:
    stage = Stage()
    stage.cache.quotas.put(quota(maxSessions=4, maxSessionsPerUser=3))
    for number in range(30):
        stage.put_session(f"a{number}", user="ada", created="2026-05-04T10:00:00Z")
    stage.put_session("b", user="bob", created="2026-05-04T11:00:00Z")
    await passes(stage)
    assert Counter(pod.user for pod in stage.cache.pods.all()) == {"ada": 3, "bob": 1}


async def test_a_persistent_session_gets_its_claim_before_its_pod() -> None:
    stage = persistent_stage()
    await passes(stage)
    assert [path.rsplit("/", 1)[1] for _, path in stage.writes()] == ["persistentvolumeclaims", "pods"]
    (pod,) = stage.cache.pods.all()
    assert pod.workspace is not None


async def test_a_session_that_is_never_answered_keeps_no_slot_from_the_next() -> None:
    stage = Stage()
    stage.cache.quotas.put(quota(maxSessions=1))
    stage.put_session("first", prompt="odd")
    stage.put_session("second", created="2026-05-04T10:00:01Z")
    inner, sent = stage.server.request, 0

    async def request(method: str, path: str, body: JSON | None = None, **options: Any) -> JSON:
        nonlocal sent
        if method == "POST" and body is not None and body["metadata"]["name"].startswith("first-"):
            sent += 1
            raise ApiError(500, "InternalError", "etcdserver: request is too large")
        return await inner(method, path, body, **options)

    stage.server.request = request  # type: ignore[method-assign]
    await passes(stage, 3 * LANDING_SECONDS)
    assert stage.cache.pod_of(SessionUID("uid-of-second")) is not None
    assert sent == 1
