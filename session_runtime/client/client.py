"""The client of a session's API: submit, follow the events without losing any, wait for a result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx

SILENCE_SECONDS: Final = 40.0
"""A stream that says nothing for so long is taken for dead; the server sends a comment every 15 s."""

RETRY_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Waits before the tries to connect again; the last one is repeated."""


AWAY: Final = (502, 503, 504)
"""Statuses that a gateway answers with while the session's container is away."""


class SessionError(Exception):
    """The session refused a request; the message says why and what to do."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))
        self.status = status
        self.problem = dict(problem)


@dataclass(frozen=True)
class ReceivedEvent:
    """One event of a session."""

    seq: int
    type: str
    time: str
    submission_id: str | None
    data: dict[str, Any]


class SessionClient:
    """Talks to one session. Use it as an async context manager. Raises ValueError when `url` is not an http(s) address.

    Retries for `patience` seconds when the connection breaks or a gateway reports that the session is away, for instance while
    the pod's container restarts, and calls `on_trouble` when retries begin. After that it raises the last error, an
    httpx.TransportError or a ConnectionError. A request that the session refuses raises SessionError at once.
    """

    def __init__(
        self, url: str, token: str, *, patience: float = 60.0, on_trouble: Callable[[Exception], None] = lambda _: None
    ) -> None:
        self._patience = patience
        self._on_trouble = on_trouble
        self._http = httpx.AsyncClient(
            base_url=_address(url),
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(10.0, read=SILENCE_SECONDS),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def submit(self, type_: str, **fields: Any) -> str:
        """Submit something and return its id. A try whose answer was lost is repeated under the same id.

        The types and their fields are those of `session_runtime.session.submissions`.
        """
        body = {"id": f"sub_{uuid.uuid4().hex}", "type": type_, **fields}
        receipt = await self._ask("POST", "/v1/submissions", json=body)
        return str(receipt["id"])

    async def info(self) -> dict[str, Any]:
        """The session's state (`GET /v1/session`)."""
        return await self._ask("GET", "/v1/session")

    async def messages(self) -> list[dict[str, Any]]:
        """The conversation as it stands (`GET /v1/messages`)."""
        messages: list[dict[str, Any]] = (await self._ask("GET", "/v1/messages"))["messages"]
        return messages

    async def events(self, after: int = 0, submission: str | None = None) -> AsyncIterator[ReceivedEvent]:
        """Every event behind number `after`, and then each new one; with `submission`, only those of that submission.

        Connections that break are taken up where they broke. Ends when the session has finished, or with the
        submission's last event. An event of type `gap` stands for those that were deleted meanwhile.
        """
        failures = _Failures(self._patience, self._on_trouble)
        query = {} if submission is None else {"submission": submission}
        while True:
            headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
            try:
                async with self._http.stream("GET", "/v1/events", params=query, headers=headers) as response:
                    if response.is_error:
                        await response.aread()
                    _raise_for_problem(response)
                    async for event in _parse(response.aiter_lines()):
                        failures.forget()
                        after = event.seq
                        yield event
                        if event.type == "shutdown":
                            return
                if submission is not None or not (await self.info())["is_active"]:
                    return
                raise ConnectionError("the stream ended before the session did")
            except (httpx.TransportError, ConnectionError) as error:
                await failures.wait(error)

    async def result(self, submission: str) -> ReceivedEvent:
        """Wait for a submission's last event: `turn_complete`, `approval_required`, `undo_complete`, `error` and so on.

        Raises ValueError when it has none: an interrupt has no event of its own, the turn that it ends has.
        """
        last = None
        async for event in self.events(submission=submission):
            last = event
        if last is None:
            raise ValueError(f"submission {submission} has no events")
        return last

    async def run(self, text: str) -> ReceivedEvent:
        """Say something and wait for the turn's last event."""
        return await self.result(await self.submit("user_input", text=text))

    async def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        failures = _Failures(self._patience, self._on_trouble)
        while True:
            try:
                response = await self._http.request(method, path, **options)
                _raise_for_problem(response)
                return _object(response)
            except (httpx.TransportError, ConnectionError) as error:
                await failures.wait(error)


class _Failures:
    """Waits longer after each failure, and gives up after a time."""

    def __init__(self, patience: float, on_trouble: Callable[[Exception], None]) -> None:
        self._patience = patience
        self._on_trouble = on_trouble
        self.forget()

    def forget(self) -> None:
        self._count = 0
        self._since: float | None = None

    async def wait(self, error: Exception) -> None:
        """Wait before the next try; raises `error` when it has been tried for long enough."""
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = now
            self._on_trouble(error)
        if now - self._since >= self._patience:
            raise error
        await asyncio.sleep(RETRY_SECONDS[min(self._count, len(RETRY_SECONDS) - 1)])
        self._count += 1


async def _parse(lines: AsyncIterator[str]) -> AsyncIterator[ReceivedEvent]:
    """Events of a stream. The server puts each on one `data:` line, and repeats its number in it."""
    async for line in lines:
        if line.startswith("data:"):
            body = json.loads(line.removeprefix("data:"))
            yield ReceivedEvent(body["seq"], body["type"], body["time"], body["submission_id"], body["data"])


def _address(url: str) -> str:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is not a valid address: {error}") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise ValueError(f"{url!r} is not a session's address. Use one like http://127.0.0.1:8080")
    return url.rstrip("/")


def _object(response: httpx.Response) -> dict[str, Any]:
    """The JSON object that a session answers with. Raises SessionError for anything else, which others answer with."""
    with contextlib.suppress(ValueError):
        answer: object = response.json()
        if isinstance(answer, dict):
            return answer
    said = f"HTTP {response.status_code} {response.reason_phrase}"
    raise SessionError(
        response.status_code, {"detail": f"{response.url} is not the API of a session ({said}). Check the address"}
    )


def _raise_for_problem(response: httpx.Response) -> None:
    """Raises SessionError, or ConnectionError when a gateway says that the session is away."""
    if response.status_code in AWAY:
        raise ConnectionError(f"HTTP {response.status_code} {response.reason_phrase}")
    if response.is_error:
        raise SessionError(response.status_code, _object(response))
