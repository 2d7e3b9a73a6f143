"""One operator writes at a time: a Lease is held before anything is written, and its age is checked before every write.

Peering as kopf has it is not leader election: two operators can believe to be alone. A Lease is compared and swapped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from agentsession_operator import metrics
from agentsession_operator.cluster.kube import ApiError, KubeApi, lease_path

NAME: Final = "agentsession-operator"
DURATION_SECONDS: Final = 15
"""For so long nobody else takes a lease that was renewed."""
RENEW_SECONDS: Final = 4.0
MARGIN_SECONDS: Final = 5.0
"""Writing stops so long before the lease runs out. A write under way ends within kube.WRITE_SECONDS, here and at the server."""

log = logging.getLogger(__name__)


def boottime() -> float:
    """Seconds since boot. Unlike `time.monotonic` it goes on while the machine is suspended, as the others' clocks do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class NotLeader(Exception):
    """This operator does not hold the lease, or cannot be sure of it."""


class LeaseLost(Exception):
    """Another operator holds the lease that this one held: the process must end and begin anew as a follower."""


class Lease:
    """The operator's Lease. The time of others is never compared with ours: only whether their lease still changes."""

    def __init__(self, api: KubeApi, namespace: str, identity: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._namespace, self._identity, self._clock = api, namespace, identity, clock
        self._renewed: float | None = None
        self._held: dict[str, Any] | None = None

    def check(self) -> None:
        """Raises NotLeader unless the lease is held with a margin. Local: no request is made."""
        if self._renewed is None or self._clock() - self._renewed > DURATION_SECONDS - MARGIN_SECONDS:
            raise NotLeader("the lease is not held; nothing is written until it is")

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        seen: tuple[str, float] | None = None
        told = False
        while True:
            try:
                current = await self._read()
                if current is None or self._free(current) or self._expired(current, seen):
                    await self._take(current)
                    metrics.LEADING.set(1)
                    log.info("holding lease %s/%s as %s", self._namespace, NAME, self._identity)
                    return
                version = current["metadata"]["resourceVersion"]
                if seen is None or seen[0] != version:
                    seen = (version, self._clock())
                if not told:
                    log.info("waiting for the lease: %s holds it", current.get("spec", {}).get("holderIdentity"))
                    told = True
            except ApiError as error:
                log.warning("cannot get the lease yet: %s", error)
            await asyncio.sleep(1.0)

    async def keep(self) -> None:
        """Renew the lease for as long as it lasts. Raises LeaseLost when somebody else has it."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._take(self._held)
            except ApiError as error:
                if error.conflict:
                    await self._recover()
                    continue
                log.warning("cannot renew the lease: %s", error)
                if error.gone:
                    self._held = None  # somebody deleted it: it is made anew, or found to be another's

    async def _recover(self) -> None:
        """After a conflict: either our own earlier write came through unanswered, or somebody else took over."""
        try:
            current = await self._read()
        except ApiError as error:
            log.warning("cannot read the lease: %s", error)
            return
        if current is not None and current.get("spec", {}).get("holderIdentity") != self._identity:
            self._renewed = None
            metrics.LEADING.set(0)
            raise LeaseLost(f"the lease is now held by {current['spec'].get('holderIdentity')}")
        self._held = current

    async def release(self) -> None:
        """Let the next operator begin at once."""
        if self._renewed is None or self._held is None:
            return
        self._renewed = None
        metrics.LEADING.set(0)
        body = {**self._held, "spec": {**self._held["spec"], "holderIdentity": ""}}
        with contextlib.suppress(ApiError):
            await self._api.replace(lease_path(self._namespace, NAME), body)

    def _free(self, current: dict[str, Any]) -> bool:
        # Our own name: the kubelet runs one instance of a container at a time, so the process that wrote it is dead.
        return current.get("spec", {}).get("holderIdentity") in (None, "", self._identity)

    def _expired(self, current: dict[str, Any], seen: tuple[str, float] | None) -> bool:
        duration = current.get("spec", {}).get("leaseDurationSeconds", DURATION_SECONDS)
        return seen is not None and seen[0] == current["metadata"]["resourceVersion"] and self._clock() - seen[1] > duration

    async def _read(self) -> dict[str, Any] | None:
        try:
            return await self._api.get(lease_path(self._namespace, NAME), timeout=RENEW_SECONDS)
        except ApiError as error:
            if error.gone:
                return None
            raise

    async def _take(self, current: dict[str, Any] | None) -> None:
        asked = self._clock()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._identity, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now}
        if current is None:
            meta = {"name": NAME, "namespace": self._namespace}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
            self._held = await self._api.create_ungated(lease_path(self._namespace), body)
        else:
            body = {**current, "spec": {**current.get("spec", {}), **spec}}
            self._held = await self._api.replace(lease_path(self._namespace, NAME), body)
        # Counted from before the request: the server may have written it at any time since.
        self._renewed = asked
