"""One operator writes at a time: a Lease is held before anything is written, and its age is checked before every write.

Peering as kopf has it is not leader election: two operators can believe to be alone. A Lease is compared and swapped.

The life of a lease, in seconds after the last renewal that its holder sent:

    0          renewed; the holder may write
    5          HELD_SECONDS: the holder stops writing (DURATION - MARGIN), whether or not it still runs
    10         DURATION_SECONDS: others may take the lease
    13         HELD_SECONDS + LANDING_SECONDS: the holder's last write has landed; the new holder may admit

A holder that exits with no write in doubt releases the lease (an empty holderIdentity): then nobody has to wait.
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
from agentsession_operator.cluster.landing import LANDING_SECONDS

NAME: Final = "agentsession-operator"
DURATION_SECONDS: Final = 10
"""Nobody else takes a lease for this long after its last renewal. A crashed leader is replaced within 15 s."""
RENEW_SECONDS: Final = 2.0
MARGIN_SECONDS: Final = 5.0
"""Writing stops this long before the lease runs out."""
HELD_SECONDS: Final = DURATION_SECONDS - MARGIN_SECONDS
POLL_SECONDS: Final = 1.0
"""Interval between two looks at a lease that another operator holds."""
LONGEST_DURATION_SECONDS: Final = 60.0
"""Limit on what another holder's leaseDurationSeconds may ask for: a dead holder must not keep everybody out."""

log = logging.getLogger(__name__)


def boottime() -> float:
    """Seconds since boot. Unlike `time.monotonic` it keeps running while the machine is suspended, as the others' clocks do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class NotLeader(Exception):
    """This operator does not hold the lease, or cannot be sure of it."""


class LeaseLost(Exception):
    """Another operator holds the lease that this one held: the process must exit and start again as a follower."""


class Lease:
    """The operator's Lease. Others' clocks are never compared with ours: only whether their lease still changes."""

    def __init__(self, transport: Transport, namespace: str, identity: str, clock: Callable[[], float] = boottime) -> None:
        """`clock` gives seconds, and must keep running while the machine is suspended."""
        self._transport, self._namespace, self._identity, self._clock = transport, namespace, identity, clock
        self._renewed: float | None = None
        self._held: dict[str, Any] | None = None
        self.quiet_until = float("inf")
        """When the last write of the previous holder has landed, by `clock`. Set by `acquire`; nobody is admitted before."""

    def check(self) -> None:
        """Raises NotLeader unless the lease is held with a margin. Local: no request is made."""
        if self._renewed is None or self._clock() - self._renewed > HELD_SECONDS:
            raise NotLeader("the lease is not held; nothing is written until it is")

    async def wait_until_quiet(self) -> bool:
        """Wait until no write of a previous holder can land any more. False if there was nothing to wait for."""
        waited = False
        while (left := self.quiet_until - self._clock()) > 0:
            if not waited:
                log.info("admission starts in %.0f s, when the previous leader's last write has landed", left)
            waited = True
            await asyncio.sleep(left)
        return waited

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        seen: tuple[str, float] | None = None
        announced: str | None = None
        while True:
            try:
                current = await self._read()
                if current is None or _holder(current) in ("", self._identity) or self._expired(current, seen):
                    quiet_until = self._quiet_after(current, seen)
                    await self._take(current)
                    self.quiet_until = quiet_until
                    metrics.LEADING.set(1)
                    log.info("acquired the lease %s/%s as %s", self._namespace, NAME, self._identity)
                    return
                version = current["metadata"]["resourceVersion"]
                if seen is None or seen[0] != version:
                    seen = (version, self._clock())
                announced = self._announce(announced, f"waiting for the lease: {_holder(current)} holds it", logging.INFO)
            except ApiError as error:
                announced = self._announce(announced, f"cannot acquire the lease, trying again: {error}", logging.WARNING)
            await asyncio.sleep(POLL_SECONDS)

    def _announce(self, before: str | None, message: str, level: int) -> str:
        """Log what differs from the last time: this is asked every second."""
        log.log(level if message != before else logging.DEBUG, "%s", message)
        return message

    async def keep(self) -> None:
        """Renew the lease indefinitely. Raises LeaseLost when another operator has it."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._take(self._held)
            except ApiError as error:
                if error.conflict or error.already_exists:
                    await self._recover()
                    continue
                log.warning("cannot renew the lease: %s", error)
                if error.gone:
                    self._held = None  # somebody deleted it: create it again, or find that another operator did

    async def _recover(self) -> None:
        """After a conflict: either our own earlier write came through unanswered, or another operator took over."""
        try:
            current = await self._read()
        except ApiError as error:
            log.warning("cannot read the lease: %s", error)
            return
        if current is not None and _holder(current) != self._identity:
            self._renewed = None
            metrics.LEADING.set(0)
            raise LeaseLost(f"the lease is now held by {_holder(current) or 'nobody'}")
        self._held = current

    async def release(self) -> None:
        """Let the next operator start at once. Only for a holder that has no write in doubt."""
        if self._renewed is None or self._held is None:
            return
        self._renewed = None
        metrics.LEADING.set(0)
        body = {**self._held, "spec": {**_spec(self._held), "holderIdentity": ""}}
        with contextlib.suppress(ApiError):
            await self._transport.request("PUT", lease_path(self._namespace, NAME), body)

    def abandon(self) -> None:
        """Stop writing and leave the lease to run out, because a write of ours may still land."""
        self._renewed = None
        metrics.LEADING.set(0)

    def _quiet_after(self, current: dict[str, Any] | None, seen: tuple[str, float] | None) -> float:
        """When the last write of the holder of `current` has landed. `seen` is its last change, and when that was seen."""
        now = self._clock()
        if current is not None and not _holder(current):
            return now  # released: its holder had no write in doubt
        if current is not None and seen is not None and _holder(current) != self._identity:
            return seen[1] + HELD_SECONDS + LANDING_SECONDS
        # Our own name: the kubelet runs one instance of a container at a time, so the process that wrote it is dead, but it may
        # have written until a moment ago. Likewise the unknown holder of a lease that somebody deleted, which may still believe
        # that it holds it.
        return now + LANDING_SECONDS + (HELD_SECONDS if current is None else 0)

    def _expired(self, current: dict[str, Any], seen: tuple[str, float] | None) -> bool:
        if seen is None or seen[0] != current["metadata"]["resourceVersion"]:
            return False
        promised = _spec(current).get("leaseDurationSeconds")
        duration = promised if isinstance(promised, int) and promised > 0 else DURATION_SECONDS
        return self._clock() - seen[1] > min(duration, LONGEST_DURATION_SECONDS)

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
            body = {**current, "spec": {**_spec(current), **spec}}
            self._held = await self._transport.request("PUT", lease_path(self._namespace, NAME), body)
        # Counted from before the request: the server may have written it at any time since.
        self._renewed = asked


def _spec(lease: dict[str, Any]) -> dict[str, Any]:
    """A Lease without a spec is valid: `kubectl create` makes one."""
    return lease.get("spec") or {}


def _holder(lease: dict[str, Any]) -> str:
    return str(_spec(lease).get("holderIdentity") or "")
