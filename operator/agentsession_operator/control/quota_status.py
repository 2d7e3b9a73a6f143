"""How full the quotas are, written to their status every few seconds if it has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from agentsession_operator.api.conditions import ConditionType
from agentsession_operator.api.meta import QUOTAS
from agentsession_operator.api.objects import Quota, readable_conditions
from agentsession_operator.api.quota import SessionQuotaStatus
from agentsession_operator.api.times import rfc3339
from agentsession_operator.cluster.cache import Cache
from agentsession_operator.cluster.kube import ApiError, KubeApi, path_of
from agentsession_operator.cluster.lease import NotLeader
from agentsession_operator.control.admitter import Admitter, Counts
from agentsession_operator.control.repeats import Repeats
from agentsession_operator.decisions.condition_set import ConditionSet
from agentsession_operator.decisions.patch import merge_patch

INTERVAL_SECONDS: Final = 5.0
LEFTOVERS_SHOWN: Final = 10

log = logging.getLogger(__name__)


class QuotaStatus:
    """Writes the status of every quota: all count the same sessions, each against its own caps."""

    def __init__(self, api: KubeApi, cache: Cache, admitter: Admitter) -> None:
        self._api, self._cache, self._admitter = api, cache, admitter
        self._errors: Repeats[str] = Repeats()
        self._leftovers: Sequence[str] = ()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            self._report_leftovers(self._admitter.counts.leftovers)
            for quota in self._cache.quotas.all():
                try:
                    await self._write(quota)
                except (ApiError, NotLeader) as error:
                    level = logging.INFO if self._errors.is_news(quota.meta.uid, error) else logging.DEBUG
                    log.log(level, "quota %s: its status was not written, trying again: %s", quota.meta.name, error)
                else:
                    self._errors.forget(quota.meta.uid)

    def _report_leftovers(self, now: Sequence[str]) -> None:
        if now != self._leftovers:
            self._leftovers = now
            log.warning("pods that hold a slot without their session: %s", ", ".join(now[:LEFTOVERS_SHOWN]) or "none any more")

    async def _write(self, quota: Quota) -> None:
        now = rfc3339(datetime.now(UTC))
        counts = self._admitter.counts
        desired = quota_status(quota, counts=counts, now=now)
        patch = merge_patch(dict(quota.status), desired)
        if patch:
            path = path_of(QUOTAS, name=quota.meta.name)
            answer = await self._api.patch_status(path, quota.meta.uid, quota.meta.version, patch)
            self._cache.quotas.put(Quota.of(answer))


def quota_status(quota: Quota, *, counts: Counts, now: str) -> dict[str, Any]:
    """The status that a quota should have."""
    current = readable_conditions(quota.status.get("conditions"))
    conditions = ConditionSet(current, generation=quota.meta.generation, now=now)
    if quota.spec is None:
        conditions.set(
            ConditionType.READY,
            "False",
            "Unreadable",
            "The spec cannot be read. No session is admitted until the quota is fixed or deleted.",
        )
    else:
        conditions.set(ConditionType.READY, "True", "Enforced", "New sessions start only within these caps.")
    status = SessionQuotaStatus(
        used=counts.held,
        queued=counts.waiting,
        pods_without_session=list(counts.leftovers[:LEFTOVERS_SHOWN]),
        observed_generation=quota.meta.generation,
        conditions=conditions.as_list(),
    )
    return status.to_wire()
