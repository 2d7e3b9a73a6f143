"""The ledger kept up to date: from what changed in the cluster to what each session claims now.

The wakeups note which sessions have news; before a pass each of them is counted again, and no other one. Once a minute the
claims of all are compared with the ledger: a difference is a mistake of ours, is logged, and is corrected.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from agentsession_operator import metrics
from agentsession_operator.api.objects import SessionUID
from agentsession_operator.api.times import rfc3339
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.control.paces import utc_now
from agentsession_operator.control.session_objects import SessionObjects
from agentsession_operator.control.wakeups import Wakeups
from agentsession_operator.decisions.displacement import says_idle
from agentsession_operator.decisions.quotas.admission import Admission
from agentsession_operator.decisions.quotas.claims import Claim, Offers, claim_of, claim_of_leftovers
from agentsession_operator.reports.desk import ReportStore

CHECK_SECONDS: Final = 60.0

log = logging.getLogger(__name__)


class Books:
    """See the module's docstring."""

    def __init__(
        self,
        cache: Cache,
        objects: SessionObjects,
        reports: ReportStore,
        wakeups: Wakeups,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`clock` gives seconds and only goes forward; `now` is the time of day, in UTC."""
        self._cache, self._objects, self._reports, self._news = cache, objects, reports, wakeups.news
        self._clock, self._now = clock, now
        self._checked = clock()
        self._offers = Offers({})
        self.admission = Admission()

    def bring_up_to_date(self) -> None:
        """Take in all news. It does not await, so that the ledger is of one moment."""
        news = self._news
        for name, namespace in news.namespaces.items():
            self.admission.set_namespace(name, namespace.labels if namespace is not None else None)
        news.namespaces.clear()
        if news.quotas:
            self.admission.set_quotas(self._cache.quotas.all())
            news.quotas = False
        if news.classes:
            # Each session may have another class, or another priority.
            self._offers = Offers(self._cache.classes_by_name())
            news.sessions.update(dict.fromkeys(session.meta.uid for session in self._cache.sessions.all()))
            news.classes = False
        self.recount((*news.sessions, *self._objects.take_changed()))
        news.sessions.clear()
        if self._clock() - self._checked >= CHECK_SECONDS:
            self._check()

    def recount(self, uids: Iterable[str]) -> None:
        """Count these sessions by what is known of them now."""
        for uid in uids:
            self.admission.put(uid, self._claim(SessionUID(uid)))

    def _claim(self, uid: SessionUID) -> Claim | None:
        session, pods = self._cache.sessions.get(uid), self._cache.pods_of(uid)
        creating = self._objects.is_creating(uid)
        if session is None:
            before = self.admission.ledger.entries.get(uid)
            return claim_of_leftovers(pods, before.claim if before is not None else None, creating=creating)
        return claim_of(
            session,
            pods,
            self._offers(session),
            creating=creating,
            backs_off=self._objects.backs_off(uid),
            idle_since=self._idle_since(uid),
        )

    def _idle_since(self, uid: SessionUID) -> str | None:
        """By the newest report, while it is fresh. A restarted operator knows nothing before the session's next one."""
        received = self._reports.get(uid)
        if received is None or not says_idle(received, self._now()):
            return None
        return rfc3339(received.report.last_activity_time or received.received)

    def _check(self) -> None:
        self._checked = self._clock()
        mistakes = list(self.admission.ledger.miscounts())
        known = {session.meta.uid for session in self._cache.sessions.all()} | {
            pod.session_uid for pod in self._cache.pods.all()
        }
        for uid in known | {SessionUID(uid) for uid in self.admission.ledger.entries}:
            entry, claim = self.admission.ledger.entries.get(uid), self._claim(uid)
            before = entry.claim if entry is not None else None
            if before != claim:
                # A wait after a refusal may have ended a moment ago, and a report may have become old: those are no mistakes.
                aged = before is not None and replace(before, idle_since=None) == claim
                if self._objects.refusal(uid) is None and not aged:
                    mistakes.append(f"session {uid}")
                self.admission.put(uid, claim)
        if mistakes:
            metrics.LEDGER_MISTAKES.inc(len(mistakes))
            log.error("the ledger was wrong, and is corrected: %s", "; ".join(mistakes[:10]))
