"""The log lines: one for each event, and nothing in them that could steer a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.events import EventType
from session_runtime.reporting import transcript
from session_runtime.session.events import Draft

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

CALL = {"tool_call_id": "c", "tool": "bash", "arguments": {"command": "ls"}}

QUESTION: dict[str, Any] = {"tool": "docs__book", "server": "docs", "message": "Which\nseat?", "form": {}, "url": None}

EVENTS: dict[str, tuple[dict[str, Any], str | None]] = {
    "ready": ({"model": "m", "tools": [], "problems": ["no search"]}, "ready     model m, tools: none; no search"),
    "tools_changed": ({"tools": ["bash"], "problems": ["docs: away"]}, "tools     bash; docs: away"),
    "processing": ({"status": "started", "text": " Do\n it. "}, "user      Do ⏎ it."),
    "assistant_chunk": ({"message_id": "1", "text": "a"}, None),
    "assistant_message": ({"message_id": "1", "text": "Done."}, "assistant Done."),
    "tool_call": (CALL, 'call      bash {"command": "ls"}'),
    "tool_output": (CALL | {"output": "no", "success": False}, "output    (failed) no"),
    "approval_required": (
        {"approvals": [CALL | {"reason": "it lists"}]},
        'approval  a person must decide on: bash {"command": "ls"} (it lists)',
    ),
    "question": (QUESTION, "question  docs asks, for docs__book: Which ⏎ seat?"),
    "question_closed": ({"question_id": "q", "tool_call_id": "c", "action": "decline"}, "answer    decline"),
    "turn_complete": ({"message": "Done."}, "done      the turn is complete"),
    "interrupted": ({"reason": "by the user"}, "stopped   by the user"),
    "error": ({"kind": "model", "message": "bad key"}, "error     bad key"),
    "compacted": (
        {"tokens_before": 9, "tokens_after": 3, "messages_before": 8, "messages_after": 4},
        "compacted 8 messages to 4",
    ),
    "undo_complete": ({"removed_messages": 2, "text": "x"}, "undo      2 messages taken back"),
    "plan_update": ({"plan": [{"step": "look", "status": "done"}]}, "plan      [done] look"),
    "usage": ({"input_tokens": 1}, None),
    "shutdown": ({"reason": "over"}, "end       over"),
}


@pytest.mark.parametrize("type_", get_args(EventType))
def test_each_type_of_event_has_its_line_or_none(type_: str) -> None:
    data, expected = EVENTS[type_]
    line = transcript.line(Draft(type_, data, NOW))
    assert line == (None if expected is None else f"2026-01-02T03:04:05.000Z {expected}")


def test_a_question_has_its_address_and_why_nobody_is_asked() -> None:
    line = transcript.line(Draft("question", QUESTION | {"url": "https://pay.example", "declined": "nobody is there"}, NOW))
    assert line is not None
    assert line.endswith("Which ⏎ seat? https://pay.example (declined: nobody is there)")


def test_what_a_sub_agent_does_is_set_off() -> None:
    line = transcript.line(Draft("tool_call", CALL | {"parent": "p"}, NOW))
    assert line == '2026-01-02T03:04:05.000Z call      | bash {"command": "ls"}'


def test_a_retry_says_when_and_why() -> None:
    data = {"status": "retrying", "attempt": 2, "wait_seconds": 5.0, "reason": "overloaded"}
    line = transcript.line(Draft("processing", data, NOW))
    assert line == "2026-01-02T03:04:05.000Z retry     in 5.0 s: overloaded"
    assert transcript.line(Draft("processing", {"status": "resumed"}, NOW)) is None
    notice = transcript.line(Draft("processing", {"status": "notice", "reason": "no price"}, NOW))
    assert notice == "2026-01-02T03:04:05.000Z notice    no price"


@given(st.text(st.characters()), st.integers(1, 100))
def test_a_line_is_one_printable_line(text: str, limit: int) -> None:
    line = transcript.flat(text, limit)
    assert len(line) <= limit + len(f" ({len(text) * 3} characters)")
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) <= 0xDFFF for c in line)
    assert len(f"x{line}x".splitlines()) == 1
    assert "\n" not in transcript.printable(text.replace("\n", ""))
    line.encode()


def test_a_long_row_of_spaces_is_one_line_at_once() -> None:
    """With the square of the time, this would take hours, in which the session stands still."""
    assert transcript.flat(f"a{' ' * 1_000_000}b\n \n  c\n", 100) == f"a{' ' * 98}… (1000006 characters)"
    assert transcript.flat("a \n\n \t b", 100) == "a ⏎ b"
