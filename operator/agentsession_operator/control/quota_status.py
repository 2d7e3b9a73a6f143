"""How full each quota is, written to its status every few seconds if it has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
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
from agentsession_operator.control.books import Books
from agentsession_operator.control.repeats import Repeats
from agentsession_operator.decisions.condition_set import ConditionSet
from agentsession_operator.decisions.patch import merge_patch
from agentsession_operator.decisions.quotas.ledger import Ledger

INTERVAL_SECONDS: Final = 5.0
LEFTOVERS_SHOWN: Final = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counts:
    """How full a quota is."""

    held: int = 0
    waiting: int = 0
    oldest_waiting: str | None = None
    leftovers: Sequence[str] = ()
    """Pods that hold a slot though their session is gone, as NAMESPACE/NAME."""


class QuotaStatus:
    """Writes the status of every quota."""

    def __init__(self, api: KubeApi, cache: Cache, books: Books) -> None:
        self._api, self._cache, self._books = api, cache, books
        self._errors: Repeats[str] = Repeats()
        self._leftovers: Sequence[str] = ()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            ledger = self._books.admission.ledger
            self._report_leftovers(ledger.leftovers())
            for quota in self._cache.quotas.all():
                if (counts := counts_of(ledger, quota)) is None:
                    continue
                try:
                    await self._write(quota, counts)
                except (ApiError, NotLeader) as error:
                    level = logging.INFO if self._errors.is_news(quota.meta.uid, error) else logging.DEBUG
                    log.log(level, "quota %s: its status was not written, trying again: %s", quota.meta.name, error)
                else:
                    self._errors.forget(quota.meta.uid)

    def _report_leftovers(self, now: Sequence[str]) -> None:
        if now != self._leftovers:
            self._leftovers = now
            log.warning("pods that hold a slot without their session: %s", ", ".join(now[:LEFTOVERS_SHOWN]) or "none any more")

    async def _write(self, quota: Quota, counts: Counts) -> None:
        desired = quota_status(quota, counts=counts, now=rfc3339(datetime.now(UTC)))
        patch = merge_patch(dict(quota.status), desired)
        if patch:
            path = path_of(QUOTAS, name=quota.meta.name)
            answer = await self._api.patch_status(path, quota.meta.uid, quota.meta.version, patch)
            self._cache.quotas.put(Quota.of(answer))


def counts_of(ledger: Ledger, quota: Quota) -> Counts | None:
    """How full a quota is; None where the ledger does not count by it yet."""
    limit = ledger.limits.get(quota.meta.uid)
    if limit is None:
        return None
    return Counts(limit.held, limit.waiting, ledger.oldest_waiting(limit), ledger.leftovers(limit))


def quota_status(quota: Quota, *, counts: Counts, now: str) -> dict[str, Any]:
    """The status that a quota should have."""
    current = readable_conditions(quota.status.get("conditions"))
    conditions = ConditionSet(current, generation=quota.meta.generation, now=now)
    spec = quota.spec
    if spec is None:
        unreadable = "The spec cannot be read. No session that the quota may count is admitted until it is fixed or deleted."
        conditions.set(ConditionType.READY, "False", "Unreadable", unreadable)
        conditions.set(ConditionType.ADMITTING, "False", "Unreadable", unreadable)
    else:
        conditions.set(ConditionType.READY, "True", "Enforced", "New sessions start only within these limits.")
        if spec.stop_policy != "None":
            conditions.set(ConditionType.ADMITTING, "False", spec.stop_policy, f"spec.stopPolicy is {spec.stop_policy}.")
        elif counts.held >= spec.max_sessions:
            full = f"All {spec.max_sessions} slots are in use."
            conditions.set(ConditionType.ADMITTING, "False", "Full", full)
        else:
            conditions.set(ConditionType.ADMITTING, "True", "HasRoom", "There are free slots.")
    status = SessionQuotaStatus(
        used=counts.held,
        limit=spec.max_sessions if spec is not None else None,
        waiting=counts.waiting,
        oldest_waiting=counts.oldest_waiting,
        pods_without_session=list(counts.leftovers[:LEFTOVERS_SHOWN]),
        observed_generation=quota.meta.generation,
        conditions=conditions.as_list(),
    )
    return status.to_wire()
