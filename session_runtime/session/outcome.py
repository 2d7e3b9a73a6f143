"""How a session ends. Each message says what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from session_runtime.wire import Mode, Outcome

CUT_OFF: Final = (
    "The session's container exited repeatedly while this was in progress. Work that was finished is kept. "
    "To continue, send it again."
)

REMEDIES: Final[Mapping[str, str]] = {
    "unavailable": "When the model's server is available, start the session again",
    "rate_limited": "The provider limits this key. Start the session again later, or use another key",
    "auth": "The key comes from the Secret in spec.credentials.secretName",
    "context_overflow": "The conversation is longer than the model accepts. Use a model with a larger context window",
}
"""What to do about an `error` event, by its `kind`, where its message does not say that."""

ABOUT_MODEL: Final = frozenset({*REMEDIES, "model", "refused", "quota", "content_filter", "no_answer"})


class Ending(NamedTuple):
    """How the session ends."""

    outcome: Outcome
    message: str


ON_REQUEST: Final = Ending("Completed", "The session was ended on request.")
SHUT_DOWN_EARLY: Final = Ending("Failed", "The session was shut down before its task was done.")


def after_turn(mode: Mode, model: str, event_type: str, data: Mapping[str, Any]) -> Ending | None:
    """What the last event of a turn means for the session; None when the session continues.

    A Task is over with its first turn, unless that waits for a person's approval.
    """
    if mode != "Task" or event_type == "approval_required":
        return None
    if event_type == "turn_complete":
        return Ending("Completed", "The task's turn is complete.")
    if event_type == "interrupted":
        return Ending("Failed", f"The task's turn was interrupted: {data.get('reason', 'no reason given')}.")
    if data.get("kind") == "budget":
        return Ending(
            "BudgetExceeded", f"{data['message']}. To finish the task, start a new session with a larger spec.budget."
        )
    return Ending("Failed", explained(model, data))


def explained(model: str, error: Mapping[str, Any]) -> str:
    """An `error` event's data in words, with the model's name and what to do where that is known."""
    message = str(error.get("message", "unknown error"))
    kind = str(error.get("kind"))
    if kind not in ABOUT_MODEL:
        return message
    remedy = f" {REMEDIES[kind]}." if kind in REMEDIES else ""
    return f"Model {model}: {message.rstrip('. ')}.{remedy}"
