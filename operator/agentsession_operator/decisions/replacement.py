"""Pods that are lost and replaced: how many in a row, and how long to wait before the next one.

The count is in the session's status, so it survives the operator.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from agentsession_operator.api.workspace import LostPods

TOLERATED: Final = 7
"""Pods in a row that are replaced: with the waits between them, five minutes of trying. The next loss fails the session."""

IN_A_ROW: Final = timedelta(minutes=10)
"""Losses that are further apart have nothing to do with each other, and the count begins anew. Longer than the longest wait,
and as long as a container must run before the kubelet forgets its crashes."""

FIRST_WAIT: Final = timedelta(seconds=5)
"""Before the second replacement; doubled with each further one. The first comes at once: a drained node is nobody's fault."""


def one_more(before: LostPods | None, now: datetime) -> LostPods:
    """The count after a loss."""
    follows = before is not None and now - _time(before) < IN_A_ROW
    return LostPods(count=before.count + 1 if before and follows else 1, last_time=now.strftime("%Y-%m-%dT%H:%M:%SZ"))


def wait_for_next(lost: LostPods, now: datetime) -> timedelta:
    """How long to wait before the pod that was lost last is replaced; not positive when it is time."""
    wait = FIRST_WAIT * 2 ** (lost.count - 2) if lost.count > 1 else timedelta(0)
    return _time(lost) + wait - now


def _time(lost: LostPods) -> datetime:
    return datetime.fromisoformat(lost.last_time)
