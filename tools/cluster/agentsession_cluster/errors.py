"""The one exception that reaches a person: what went wrong, and what helps."""

from __future__ import annotations


class ClusterError(Exception):
    """Something a person can act on; `remedy` says how. Exit code 1, or 2 for a wrong call."""

    def __init__(self, message: str, remedy: str = "", *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message
