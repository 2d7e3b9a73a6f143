"""The state of a session at one moment, for its API, its metrics and its reports."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent.conversation import PendingApproval
from agent.messages import Message, Usage
from agent.question import OpenQuestion
from session_runtime.session.outcome import Ending
from session_runtime.wire import Activity


@dataclass(frozen=True)
class Snapshot:
    """What can be said of a session at one moment."""

    activity: Activity
    is_processing: bool
    usage: Usage
    messages: tuple[Message, ...]
    last_message: str | None
    pending: tuple[PendingApproval, ...]
    questions: tuple[OpenQuestion, ...]
    """What a person is asked in the call that runs now."""
    problems: tuple[str, ...]
    """What is wrong with the servers that tools come from."""
    queued: int
    ended_turns: int
    created_at: str
    last_activity_time: datetime
    last_seq: int
    ending: Ending | None
