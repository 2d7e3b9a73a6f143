"""What the proxy does to a request, to an answer or to an event of a watch, as values that a test can be read by.

Rule(reserves("slow-*"), Hold("slow"))                      # forwarded when the test says so
Rule(reserves("s0"), Answer(429, retry_after=1), times=1)   # refused once, the server never sees it
Rule(reserves("s0"), Reset(), Hold("late"))                 # no answer to the operator, and carried out later
Rule(reserves("s0"), Answer(500, at=ANSWER))                # carried out, and denied
Rule(write(7), Kill(), Drop())                              # SIGKILL before write 7 reaches the server
Rule(write(7), Kill(at=ANSWER))                             # SIGKILL after it
EventRule(event("DELETED", "agentsessions"), Swallow(), times=1)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from support.faults.request import JSON, EventWhen, When

At: TypeAlias = Literal["request", "answer"]
REQUEST: Final = "request"
"""Before the request is forwarded to the server."""
ANSWER: Final = "answer"
"""After the server has carried the request out, before the operator hears of it."""

_REASONS: Final = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait some seconds. Prefer `Hold`: it waits for what the test waits for."""

    seconds: float
    at: At = REQUEST


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait until the test calls `proxy.release(key)`."""

    key: str
    at: At = REQUEST


@dataclass(frozen=True, slots=True)
class Drop:
    """Never answer. At the request: never forward either."""

    at: At = REQUEST


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the operator's connection (RST). The request still reaches the server unless a `Drop` follows."""

    at: At = REQUEST


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer for the server: at the request instead of it, at the answer after it has carried the request out."""

    code: int
    reason: str = ""
    message: str = "a fault that the test asked for"
    retry_after: int | None = None
    """Seconds."""
    body: str | None = None
    """Another body than a Status; any text."""
    at: At = REQUEST

    def text(self) -> str:
        """The body of the answer."""
        return json.dumps(status(self.code, self.reason, self.message)) if self.body is None else self.body


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Forward the request again after its answer, as a retry in the network does. The operator gets the first answer."""

    times: int = 1


@dataclass(frozen=True, slots=True)
class Reorder:
    """Collect requests and forward them in reverse order, each after the answer to the one before."""

    size: int
    within: float = 3.0
    """Seconds after the first of them at which those that came are forwarded all the same."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the operator (the callback that the proxy was given), and continue when it is dead."""

    at: At = REQUEST


Step: TypeAlias = Delay | Hold | Drop | Reset | Answer | Duplicate | Reorder | Kill


class Rule:
    """What happens to the requests that match; of several rules the first that is not used up counts."""

    def __init__(self, when: When, *steps: Step, times: int | None = None, skip: int = 0) -> None:
        """`times`: how often it applies (None: always), after the first `skip` matches."""
        self.when, self.steps, self.times, self.skip = when, steps, times, skip


@dataclass(frozen=True, slots=True)
class Swallow:
    """The operator never sees the event."""


@dataclass(frozen=True, slots=True)
class Replace:
    """The operator sees another event instead: `proxy.error_event(410)`, or any line."""

    line: str


@dataclass(frozen=True, slots=True)
class Alter:
    """The operator sees the object as `change` returns it."""

    change: Callable[[JSON], JSON]


@dataclass(frozen=True, slots=True)
class Close:
    """The watch ends before the event, as when the server closes it."""


EventStep: TypeAlias = Delay | Hold | Swallow | Replace | Alter | Close


class EventRule:
    """What happens to a watch event that matches. A held event holds up those that follow it: the watch lags."""

    def __init__(self, when: EventWhen, step: EventStep, *, times: int | None = None, skip: int = 0) -> None:
        self.when, self.step, self.times, self.skip = when, step, times, skip


def status(code: int, reason: str = "", message: str = "a fault that the test asked for") -> JSON:
    """A Kubernetes Status of a failure."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason or _REASONS.get(code, "InternalError"),
        "code": code,
    }


def error_event(code: int) -> str:
    """The line of a watch that carries an error, as the API server words it."""
    return json.dumps({"type": "ERROR", "object": status(code)})
