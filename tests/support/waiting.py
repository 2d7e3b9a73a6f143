"""Waiting for a condition, with a deadline and an answer to what was there instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from support.api import JSON, Api, Refused, condition, sessions_path

T = TypeVar("T")


def eventually(look: Callable[[], T | None], *, within: float = 20.0, what: str = "the condition") -> T:
    """The first true value that `look` gives. Fails after `within` seconds.

    An AssertionError of it, or a refusal of the API server, is a "not yet".
    """
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            if found := look():
                return found
            last = found
        except (AssertionError, Refused) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {within:.0f} s; last seen: {last}")
        time.sleep(0.05)


def throughout(check: Callable[[], None], *, seconds: float) -> None:
    """Call `check` again and again for a while; its AssertionError fails the test."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check()
        time.sleep(0.05)


def read(api: Api, body: JSON) -> JSON:
    """A session as it is now."""
    return api.get(sessions_path(body["metadata"]["namespace"], body["metadata"]["name"]))


def wait_for(api: Api, body: JSON, kind: str, status: str, reason: str, within: float = 20) -> JSON:
    """The session, once a condition has this status and reason."""

    def look() -> JSON | None:
        current = read(api, body)
        found = condition(current, kind)
        assert (found.get("status"), found.get("reason")) == (status, reason), current.get("status")
        return current

    return eventually(look, within=within, what=f"{kind}={status} ({reason})")
