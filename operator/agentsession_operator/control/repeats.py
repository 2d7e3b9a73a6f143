"""An error that repeats is logged once: the log has no line without news."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Repeats(Generic[K]):
    """The last error of each key."""

    def __init__(self) -> None:
        self._last: dict[K, str] = {}

    def is_news(self, key: K, error: Exception) -> bool:
        """Whether the error differs from the key's last one."""
        text = str(error)
        if self._last.get(key) == text:
            return False
        self._last[key] = text
        return True

    def forget(self, key: K) -> None:
        """The key had a success, or is gone: its next error is news."""
        self._last.pop(key, None)
