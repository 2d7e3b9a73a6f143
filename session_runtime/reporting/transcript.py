"""A session's events as lines for `kubectl logs`: the conversation, readable from top to bottom."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from session_runtime.session.events import Draft, timestamp

MESSAGE_CHARACTERS: Final = 8_000
"""Longest message of the user or the model; a log line of 16 KiB is split by the container runtime."""

OUTPUT_CHARACTERS: Final = 400
ARGUMENT_CHARACTERS: Final = 200

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def line(draft: Draft) -> str | None:
    """One line, without its line break; None for events that add nothing to the reading."""
    render = _RENDERERS.get(draft.type)
    said = None if render is None else render(draft.data)
    if said is None:
        return None
    who, text = said
    text = f"| {text}" if "parent" in draft.data else text  # sets off what a sub-agent does
    return entry(draft.time, who, text)


def entry(time: datetime, who: str, text: str) -> str:
    """A line of the log."""
    return f"{timestamp(time)} {who:<9} {text}"


def flat(text: object, limit: int) -> str:
    """`text` in one line of at most `limit` characters, with nothing in it that could steer a terminal."""
    # Not with a regular expression for what is around a line break: that takes the square of the time for a row of spaces.
    lines = filter(None, map(str.strip, str(text).split("\n")))
    text = _CONTROL.sub(" ", " ⏎ ".join(lines))
    return text if len(text) <= limit else f"{text[: limit - 1]}… ({len(text)} characters)"


def printable(text: str) -> str:
    """`text` with its lines, and with nothing in it that could steer a terminal."""
    return "\n".join(_CONTROL.sub(" ", line) for line in text.split("\n"))


def _processing(data: Mapping[str, Any]) -> tuple[str, str] | None:
    if data.get("status") == "retrying":
        return "retry", f"in {data.get('wait_seconds')} s: {flat(data.get('reason'), OUTPUT_CHARACTERS)}"
    if data.get("status") == "waiting":
        return "waiting", f"the model has sent nothing for {data.get('seconds')} s"
    if data.get("status") == "notice":
        return "notice", flat(data.get("reason"), OUTPUT_CHARACTERS)
    return ("user", flat(data["text"], MESSAGE_CHARACTERS)) if "text" in data else None


def _tool_call(data: Mapping[str, Any]) -> tuple[str, str]:
    arguments = json.dumps(data["arguments"], ensure_ascii=False)
    return "call", f"{data['tool']} {flat(arguments, ARGUMENT_CHARACTERS)}"


def _tool_output(data: Mapping[str, Any]) -> tuple[str, str]:
    mark = "" if data["success"] else "(failed) "
    return "output", f"{mark}{flat(data['output'], OUTPUT_CHARACTERS)}"


def _approval(data: Mapping[str, Any]) -> tuple[str, str]:
    calls = (
        f"{call['tool']} {flat(json.dumps(call['arguments'], ensure_ascii=False), ARGUMENT_CHARACTERS)} "
        f"({flat(call['reason'], OUTPUT_CHARACTERS)})"
        for call in data["approvals"]
    )
    return "approval", f"a person must decide on: {'; '.join(calls)}"


def _question(data: Mapping[str, Any]) -> tuple[str, str]:
    asked = flat(data["message"], OUTPUT_CHARACTERS)
    visit = f" {flat(data['url'], OUTPUT_CHARACTERS)}" if data["url"] else ""
    declined = f" (declined: {data['declined']})" if "declined" in data else ""
    return "question", f"{data['server']} asks, for {data['tool']}: {asked}{visit}{declined}"


def _plan(data: Mapping[str, Any]) -> tuple[str, str]:
    return "plan", flat("; ".join(f"[{step['status']}] {step['step']}" for step in data["plan"]), MESSAGE_CHARACTERS)


def _ready(data: Mapping[str, Any]) -> tuple[str, str]:
    problems = "".join(f"; {flat(problem, OUTPUT_CHARACTERS)}" for problem in data.get("problems", ()))
    return "ready", f"model {data['model']}, tools: {', '.join(data['tools']) or 'none'}{problems}"


def _tools_changed(data: Mapping[str, Any]) -> tuple[str, str]:
    problems = "".join(f"; {flat(problem, OUTPUT_CHARACTERS)}" for problem in data["problems"])
    return "tools", f"{', '.join(data['tools']) or 'none'}{problems}"


_RENDERERS: Final[Mapping[str, Callable[[Mapping[str, Any]], tuple[str, str] | None]]] = {
    "ready": _ready,
    "tools_changed": _tools_changed,
    "processing": _processing,
    "assistant_message": lambda data: ("assistant", flat(data["text"], MESSAGE_CHARACTERS)),
    "tool_call": _tool_call,
    "tool_output": _tool_output,
    "approval_required": _approval,
    "question": _question,
    "question_closed": lambda data: ("answer", data["action"]),
    "turn_complete": lambda data: ("done", "the turn is complete"),
    "interrupted": lambda data: ("stopped", flat(data.get("reason", ""), OUTPUT_CHARACTERS)),
    "error": lambda data: ("error", flat(data["message"], MESSAGE_CHARACTERS)),
    "compacted": lambda data: ("compacted", f"{data['messages_before']} messages to {data['messages_after']}"),
    "undo_complete": lambda data: ("undo", f"{data['removed_messages']} messages taken back"),
    "plan_update": _plan,
    "shutdown": lambda data: ("end", flat(data["reason"], OUTPUT_CHARACTERS)),
}
