"""Which change wakes what."""

from __future__ import annotations

import asyncio

import pytest

from agentsession_operator.api.objects import SessionUID
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.control.wakeups import Wakeup, Wakeups, class_change, pod_change, quota_change, session_change
from agentsession_operator.control.workqueue import WorkQueue
from support.control_plane.builders import READY, admitted, ended, finished, namespace, pod, quota, session, session_class
from support.control_plane.virtual_time import VIRTUAL_TIME, Backend

pytestmark = pytest.mark.anyio

UID = SessionUID("uid-of-demo")
SESSION_ALONE = Wakeup((UID,))
SESSION_AND_ADMISSION = Wakeup((UID,), admission=True)


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


def test_a_session_that_appears_or_is_deleted_wakes_the_admitter() -> None:
    assert session_change(None, session()) == SESSION_AND_ADMISSION
    assert session_change(session(), None) == SESSION_AND_ADMISSION


def test_a_session_whose_claim_on_a_slot_changes_wakes_the_admitter() -> None:
    assert session_change(session(), admitted(version=2)) == SESSION_AND_ADMISSION
    assert session_change(admitted(), finished(version=2)) == SESSION_AND_ADMISSION
    assert session_change(admitted(), admitted(version=2, suspend=True)) == SESSION_AND_ADMISSION
    assert session_change(admitted(suspend=True), admitted(version=2)) == SESSION_AND_ADMISSION


def test_a_session_that_only_works_wakes_itself_alone() -> None:
    assert session_change(admitted(), admitted(version=2, status={"messageCount": 3})) == SESSION_ALONE


def test_a_pod_wakes_its_session_and_its_end_the_admitter() -> None:
    running, over = pod(status=READY), pod(status=ended(), version=101)
    assert pod_change(None, running) == SESSION_ALONE
    assert pod_change(running, over) == SESSION_AND_ADMISSION
    assert pod_change(over, None) == SESSION_AND_ADMISSION


def test_a_pod_whose_label_changes_wakes_both_sessions() -> None:
    assert pod_change(pod(), pod(version=101, session_uid="other")).sessions == (UID, "other")


def test_a_quota_concerns_everybody_when_its_spec_changes() -> None:
    settings, nothing = Wakeup(everybody=True), Wakeup()
    assert quota_change(None, quota(maxSessions=1)) == settings
    assert quota_change(quota(maxSessions=1), quota(maxSessions=1, version=2, status={"used": 1})) == nothing
    assert quota_change(quota(maxSessions=1), quota(maxSessions=2, version=2)) == settings
    assert quota_change(quota(maxSessions=1), None) == settings


def test_a_class_is_a_setting() -> None:
    assert class_change(None, session_class()) == Wakeup(settings=True)


# What a wakeup does.


class Awake:
    """The wakeups of a cache; `queued` takes what is on the queue off it."""

    def __init__(self) -> None:
        self.queue: WorkQueue[SessionUID] = WorkQueue()
        self.wakeups = Wakeups(self.queue)
        self.cache = Cache(self.wakeups)

    async def queued(self) -> list[str]:
        found: list[str] = []
        try:
            async with asyncio.timeout(1):
                while True:
                    uid = await self.queue.get()
                    self.queue.done(uid, failed=False)
                    found.append(uid)
        except TimeoutError:
            return found

    def admission_due(self) -> bool:
        due = self.wakeups.admission.is_set()
        self.wakeups.admission.clear()
        return due


async def test_a_change_reaches_the_queue_and_the_admitter() -> None:
    awake = Awake()
    awake.cache.sessions.put(session())
    assert (await awake.queued(), awake.admission_due()) == ([UID], True)
    awake.cache.sessions.put(session(version=2, status={"messageCount": 3}))
    assert (await awake.queued(), awake.admission_due()) == ([UID], False)


async def test_settings_requeue_the_unfinished_sessions_without_a_pod() -> None:
    awake = Awake()
    awake.cache.mark_complete()
    awake.cache.sessions.put(session("waiting"))
    awake.cache.sessions.put(admitted("running"))
    awake.cache.pods.put(pod("running"))
    awake.cache.sessions.put(finished("over"))
    await awake.queued()
    awake.admission_due()
    awake.cache.classes.put(session_class())
    assert (await awake.queued(), awake.admission_due()) == (["uid-of-waiting"], True)
    awake.cache.quotas.put(quota(stopPolicy="HoldAndDrain"))
    assert (await awake.queued(), awake.admission_due()) == (["uid-of-waiting", "uid-of-running"], True)


async def test_settings_wake_nothing_until_the_first_lists_are_complete() -> None:
    awake = Awake()
    awake.cache.sessions.put(session())
    await awake.queued()
    awake.admission_due()
    awake.cache.classes.put(session_class())
    assert (await awake.queued(), awake.admission_due()) == ([], False)
    awake.cache.mark_complete()
    assert (await awake.queued(), awake.admission_due()) == ([UID], True)


async def test_a_report_wakes_its_session_alone_unless_it_turned_idle() -> None:
    awake = Awake()
    for turned_idle in (False, True):
        awake.wakeups.report_arrived(UID, turned_idle=turned_idle)
        assert (await awake.queued(), awake.admission_due()) == ([UID], turned_idle)


async def test_news_are_kept_for_the_ledger_until_a_pass() -> None:
    awake = Awake()
    awake.cache.mark_complete()
    awake.cache.sessions.put(session())
    awake.cache.namespaces.put(namespace("team", team="a"))
    awake.cache.classes.put(session_class())
    awake.cache.quotas.put(quota(maxSessions=1))
    news = awake.wakeups.news
    assert (list(news.sessions), list(news.namespaces), news.quotas, news.classes) == ([UID], ["team"], True, True)


async def test_a_namespace_wakes_nothing_while_its_labels_are_the_same() -> None:
    awake = Awake()
    awake.cache.mark_complete()
    awake.cache.namespaces.put(namespace("team", team="a"))
    assert awake.admission_due()
    awake.cache.namespaces.put(namespace("team", version=2, team="a"))
    assert not awake.admission_due()
    awake.cache.namespaces.remove("uid-of-team")
    assert awake.admission_due()
    assert awake.wakeups.news.namespaces == {"team": None}
