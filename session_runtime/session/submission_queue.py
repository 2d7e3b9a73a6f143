"""The submissions of a session in memory: which were taken, which wait, which runs, which event ended them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from session_runtime.session.store import Submitted, digest

TURNS = ("user_input", "approval")
"""Types of submissions that a turn works on."""


class SubmissionQueue:
    """Starts from what the database holds; the journal writes every change of it."""

    def __init__(self, submissions: Iterable[Submitted] = ()) -> None:
        self._ended: dict[str, Submitted] = {}
        self._open: dict[str, Submitted] = {}
        self.ended_turns = 0
        """How many inputs and approvals have been worked on."""
        for submitted in submissions:
            self._open[submitted.id] = submitted
            if submitted.ended_by is not None:
                self.end(submitted.id, submitted.ended_by)

    def get(self, submission_id: str) -> Submitted | None:
        return self._open.get(submission_id) or self._ended.get(submission_id)

    def is_open(self, submission_id: str) -> bool:
        """It waits or runs."""
        return submission_id in self._open

    def add(self, submitted: Submitted) -> None:
        self._open[submitted.id] = submitted

    def start(self, submission_id: str) -> None:
        self._open[submission_id] = replace(self._open[submission_id], started=True)

    def end(self, submission_id: str, seq: int) -> None:
        submitted = self._open.pop(submission_id)
        self._ended[submission_id] = replace(submitted, body=digest(submitted.body), started=True, ended_by=seq)
        self.ended_turns += submitted.type in TURNS

    @property
    def running(self) -> Submitted | None:
        """The one that was started and has not ended."""
        return next((s for s in self._open.values() if s.started), None)

    @property
    def open(self) -> Sequence[Submitted]:
        """Those that wait or run."""
        return list(self._open.values())

    @property
    def next(self) -> Submitted | None:
        """The one to work on now: a shutdown before all others, then what the last process was working on."""
        return min(self._open.values(), key=lambda s: (s.type != "shutdown", not s.started), default=None)

    @property
    def queued(self) -> Sequence[Submitted]:
        """Those that wait, in the order in which they will be run: a shutdown goes before all others."""
        return sorted((s for s in self._open.values() if not s.started), key=lambda s: s.type != "shutdown")

    def position(self, submission_id: str) -> int | None:
        """How many are run before this one; None once it has ended."""
        order = [s.id for s in (self.running, *self.queued) if s is not None]
        return order.index(submission_id) if submission_id in order else None
