"""One operator writes at a time: it acquires a Lease before it writes anything, and checks the lease's age before every write.

kopf's peering is not leader election: two operators can both believe that they are alone. A Lease is compared and swapped.
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
from agentsession_operator.cluster.kube import ApiError, Transport, lease_path

NAME: Final = "agentsession-operator"
DURATION_SECONDS: Final = 15
"""How long other operators wait after the last renewal before they take the lease."""
RENEW_SECONDS: Final = 4.0
MARGIN_SECONDS: Final = 5.0
"""Writing stops this long before the lease expires. A write under way ends in landing.WRITE_SECONDS, here and at the server."""

log = logging.getLogger(__name__)


def boottime() -> float:
    """Seconds since boot. Unlike `time.monotonic`, it also runs while the machine is suspended, as others' clocks do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class NotLeader(Exception):
    """This operator does not hold the lease, or cannot be sure that it does."""


class LeaseLost(Exception):
    """Another operator took the lease from this one. The process must exit and start again as a follower."""


class Lease:
    """The operator's Lease.

    Another operator's clock is never compared with ours. What counts is whether its lease still changes.

    It uses the transport instead of KubeApi: the lease must be written before the gate that it is can open.
    """

    def __init__(
        self, transport: Transport, namespace: str, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._transport, self._namespace, self._identity, self._clock = transport, namespace, identity, clock
        self._renewed: float | None = None
        self._held: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise NotLeader unless the lease is held with a margin. Sends no request."""
        if self._renewed is None or self._clock() - self._renewed > DURATION_SECONDS - MARGIN_SECONDS:
            raise NotLeader("the lease is not held; the operator writes nothing until it is")

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        seen: tuple[str, float] | None = None
        announced: str | None = None
        while True:
            try:
                current = await self._read()
                if current is None or self._free(current) or self._expired(current, seen):
                    await self._take(current)
                    metrics.LEADING.set(1)
                    log.info("acquired the lease %s/%s as %s", self._namespace, NAME, self._identity)
                    return
                version = current["metadata"]["resourceVersion"]
                if seen is None or seen[0] != version:
                    seen = (version, self._clock())
                announced = self._announce(announced, f"waiting for the lease: {_holder(current)} holds it", logging.INFO)
            except ApiError as error:
                announced = self._announce(announced, f"cannot acquire the lease, trying again: {error}", logging.WARNING)
            await asyncio.sleep(1.0)

    def _announce(self, before: str | None, message: str, level: int) -> str:
        """Log what differs from the last time: this is asked every second."""
        log.log(level if message != before else logging.DEBUG, "%s", message)
        return message

    async def keep(self) -> None:
        """Renew the lease indefinitely. Raises LeaseLost when another operator has taken it."""
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
                    self._held = None  # deleted: create it again, or find that another operator did

    async def _recover(self) -> None:
        """After a conflict: either our own earlier write succeeded without an answer, or another operator took over."""
        try:
            current = await self._read()
        except ApiError as error:
            log.warning("cannot read the lease: %s", error)
            return
        if current is not None and _holder(current) != self._identity:
            self._renewed = None
            metrics.LEADING.set(0)
            raise LeaseLost(f"the lease is now held by {_holder(current)}")
        self._held = current

    async def release(self) -> None:
        """Give the lease up, so that the next operator starts at once."""
        if self._renewed is None or self._held is None:
            return
        self._renewed = None
        metrics.LEADING.set(0)
        body = {**self._held, "spec": {**self._held["spec"], "holderIdentity": ""}}
        with contextlib.suppress(ApiError):
            await self._transport.request("PUT", lease_path(self._namespace, NAME), body)

    def _free(self, current: dict[str, Any]) -> bool:
        # Our own identity: the kubelet runs one instance of a container at a time, so the process that wrote it is dead.
        return _holder(current) in (None, "", self._identity)

    def _expired(self, current: dict[str, Any], seen: tuple[str, float] | None) -> bool:
        duration = current.get("spec", {}).get("leaseDurationSeconds", DURATION_SECONDS)
        return seen is not None and seen[0] == current["metadata"]["resourceVersion"] and self._clock() - seen[1] > duration

    async def _read(self) -> dict[str, Any] | None:
        try:
            return await self._transport.request("GET", lease_path(self._namespace, NAME), timeout=RENEW_SECONDS)
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
            self._held = await self._transport.request("POST", lease_path(self._namespace), body)
        else:
            body = {**current, "spec": {**current.get("spec", {}), **spec}}
            self._held = await self._transport.request("PUT", lease_path(self._namespace, NAME), body)
        # Counted from before the request: the server may have written the lease at any time since.
        self._renewed = asked


def _holder(lease: dict[str, Any]) -> str | None:
    holder: str | None = lease.get("spec", {}).get("holderIdentity")
    return holder
