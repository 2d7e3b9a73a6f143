"""The facts of a session that are neither an event, nor a submission, nor a message: one typed record for the table `facts`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple

from session_runtime.session.outcome import Ending


class Resumes(NamedTuple):
    """How many times in a row a submission was resumed because the process exited in the middle of it."""

    submission_id: str = ""
    """The submission; empty if there is none."""
    times: int = 0


@dataclass(frozen=True)
class Facts:
    """What is recorded. None means not yet; in a change it means no change: a fact can be replaced, but never removed."""

    created_at: str | None = None
    """RFC 3339, in UTC."""
    last_activity_time: str | None = None
    """RFC 3339, in UTC."""
    resumes: Resumes | None = None
    interrupted: str | None = None
    """Id of the submission that the latest interrupt ends, also when another process works on it by then."""
    outcome: Ending | None = None
    """How the session ends; from then on it takes no submissions."""
    finished: str | None = None
    """When the session's last event was recorded: RFC 3339, in UTC."""
    report_sequence: int | None = None
    """Number of the latest report to the operator."""
    last_seq: int | None = None
    """Number of the latest event, which may be deleted since. The store keeps it."""
    conversation: str | None = None
    """The conversation without its messages, as JSON. The store keeps it."""

    def updated(self, newer: Facts) -> Facts:
        """This record, with the facts that the newer one has."""
        return replace(self, **newer._known())

    def to_rows(self) -> list[tuple[str, str]]:
        """The known facts as names and texts."""
        return [(name, _WRITTEN.get(name, str)(value)) for name, value in self._known().items()]

    @staticmethod
    def from_rows(rows: Iterable[tuple[str, str]]) -> Facts:
        """The inverse of `to_rows`. Names that this version does not know are ignored."""
        known = {field.name for field in fields(Facts)}
        return Facts(**{name: _READ.get(name, str)(text) for name, text in rows if name in known})

    def _known(self) -> dict[str, Any]:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}


NO_FACTS: Final = Facts()

_WRITTEN: Final[dict[str, Callable[[Any], str]]] = {"resumes": json.dumps, "outcome": json.dumps}

_READ: Final[dict[str, Callable[[str], Any]]] = {
    "resumes": lambda text: Resumes(*json.loads(text)),
    "outcome": lambda text: Ending(*json.loads(text)),
    "report_sequence": int,
    "last_seq": int,
}
