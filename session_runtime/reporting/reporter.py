"""Keeps the operator up to date: sends the latest snapshot, until it gets through, and never holds up the session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import h11

from session_runtime.reporting import report as reports
from session_runtime.wire import SessionReport

logger = logging.getLogger(__name__)

INTERVAL: Final = 60.0
"""Seconds after which a report is sent though nothing has changed."""

REFUSED_INTERVAL: Final = 10.0
"""The same after a refusal: the operator may only not know this pod yet."""

COALESCE: Final = 1.0
"""Least seconds between two reports."""

BACKOFF: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the next try; the last one is repeated for as long as it takes."""

REQUEST_TIMEOUT: Final = 5.0
"""Seconds for a whole request and its answer."""

FINAL_SECONDS: Final = 5.0
"""How long the process waits at its end for the operator to take the last report."""


class Refused(Exception):
    """The operator will not take this report, however often it is sent."""


async def put(url: str, token_path: Path, body: bytes, timeout: float) -> None:
    """Send a report. Raises Refused, or OSError when it may get through later, which is after every other failure: something
    that does not speak HTTP may hold the operator's address for a while.

    `timeout` is in seconds and for all of it, so that an answer that comes a byte at a time does not hold the next report up.
    """
    try:
        async with asyncio.timeout(timeout):
            status, reason = await _exchange(url, token_path, body)
    except TimeoutError as error:
        raise OSError(f"no complete answer within {timeout:g} s") from error
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"the answer is not valid HTTP: {type(error).__name__}: {error}") from error
    if 400 <= status < 500 and status not in (408, 429):
        raise Refused(f"{status} {reason}")
    if not 200 <= status < 300:
        raise OSError(f"{status} {reason}")


async def _exchange(url: str, token_path: Path, body: bytes) -> tuple[int, str]:
    """Send the request on a connection of its own; returns the answer's status and reason. Redirects are not followed, and
    the environment's proxies, which are for traffic that leaves the cluster, are not used."""
    address = urlsplit(url)
    secure = address.scheme == "https"
    headers = [("Host", address.netloc), *_authorization(token_path), ("Connection", "close")]
    headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    port = address.port or (443 if secure else 80)
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method="PUT", target=address.path or "/", headers=headers)
    sent = [connection.send(event) or b"" for event in (request, h11.Data(body), h11.EndOfMessage())]
    reader, writer = await asyncio.open_connection(address.hostname, port, ssl=secure or None)
    try:
        writer.writelines(sent)
        while True:
            answer = connection.next_event()
            if isinstance(answer, h11.Response):
                return answer.status_code, answer.reason.decode("ascii", "replace")
            if isinstance(answer, h11.ConnectionClosed):
                raise ConnectionResetError("the connection was closed without an answer")
            if answer is h11.NEED_DATA:
                connection.receive_data(await reader.read(4096))
    finally:
        writer.transport.abort()


def _authorization(token_path: Path) -> list[tuple[str, str]]:
    """The header with the token, which is read again each time, because the kubelet replaces it."""
    return [("Authorization", f"Bearer {token_path.read_text().strip()}")] if token_path.exists() else []


Send = Callable[[bytes, float], Awaitable[None]]
"""Sends a report within so many seconds. Raises Refused, or OSError when it may get through later."""


def sender(url: str, token_path: Path) -> Send:
    """Sends to the operator at this URL."""
    return lambda body, timeout: put(url, token_path, body, timeout)


class Reporter:
    """Sends reports of what `build` says. `next_sequence` makes a sequence number durable and returns it."""

    def __init__(
        self,
        send: Send,
        build: Callable[[int], SessionReport],
        changed: Callable[[], Awaitable[None]],
        next_sequence: Callable[[], Awaitable[int]],
    ) -> None:
        self._send = send
        self._build = build
        self._changed = changed
        self._next_sequence = next_sequence
        self._refusal: str | None = None

    async def run(self) -> None:
        """Report at once, on each change, and every `INTERVAL` seconds, until cancelled."""
        while True:
            sent = await self._deliver()
            await asyncio.sleep(COALESCE)
            interval = INTERVAL if self._refusal is None else REFUSED_INTERVAL
            try:
                async with asyncio.timeout(interval - COALESCE):
                    while not reports.differs(sent, self._build(0)):
                        await self._changed()
                        await asyncio.sleep(COALESCE)
            except TimeoutError:
                pass

    async def finish(self) -> bool:
        """Send the last report; False when it did not get through within `FINAL_SECONDS`."""
        try:
            async with asyncio.timeout(FINAL_SECONDS):
                await self._deliver(REQUEST_TIMEOUT / 4)
        except TimeoutError:
            logger.warning("the operator did not accept the last report; the termination message also contains it")
            return False
        return True

    async def _deliver(self, timeout: float = REQUEST_TIMEOUT) -> SessionReport:
        """Send the state of the moment until the operator has answered; each try says what is true by then."""
        failures = 0
        while True:
            report = self._build(await self._next_sequence())
            try:
                await self._send(report.model_dump_json().encode(), timeout)
            except Refused as refusal:
                self._log_refusal(str(refusal))
            except OSError as error:
                wait = BACKOFF[min(failures, len(BACKOFF) - 1)]
                failures += 1
                log = logger.warning if failures == 1 else logger.debug
                log("the operator did not accept a report: %s; retrying", error)
                await asyncio.sleep(wait)
                continue
            else:
                self._refusal = None
            return report

    def _log_refusal(self, refusal: str) -> None:
        if refusal != self._refusal:
            logger.error("the operator rejects the reports: %s", refusal)
        self._refusal = refusal
