"""Tool calls as the model wrote them: made fit for a conversation, and parsed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from agent.conversation import Conversation
from agent.messages import Message, ToolCall
from agent.redaction import Redactor, without_surrogates

MALFORMED = "The arguments are not a JSON object"
"""How the result of a call with malformed arguments begins."""

MAX_DEPTH = 64
"""Levels of arrays and objects in a call's arguments. What handles them is recursive."""

ADVICE = (
    "This is the second call of this tool in a row with malformed arguments. Do it another way: send less text in one "
    "call (write a long file in parts), or use another tool."
)


def usable_calls(
    calls: Sequence[ToolCall], taken: Collection[str], new_id: Callable[[], str]
) -> tuple[tuple[ToolCall, ...], dict[str, str]]:
    """The calls as they can be stored and sent back to a provider, and for those that cannot be run, why.

    Ids become unique in the conversation, where a model left them out or counts from 0 in each answer, and such as all
    providers accept. So do names, without what models put around them. Arguments that are no JSON object become `{}`,
    because providers parse them again with every request.
    """
    usable: list[ToolCall] = []
    problems: dict[str, str] = {}
    ids = set(taken)
    for call in calls:
        call_id = call.id if call.id not in ids and _can_be_sent_back(call.id) else new_id()
        ids.add(call_id)
        name = re.sub(r"[^A-Za-z0-9_-]", "_", _bare(call.name))[:64] or "unnamed"
        problem = malformed(call.arguments)
        if problem is not None:
            problems[call_id] = problem
        usable.append(ToolCall(call_id, name, "{}" if problem or not call.arguments.strip() else call.arguments))
    return tuple(usable), problems


def _can_be_sent_back(call_id: str) -> bool:
    """Whether all providers accept this id: at most 40 characters for OpenAI, of these for Anthropic.

    litellm keeps Gemini's signed thoughts in the ids of calls, and takes them out again.
    """
    return re.fullmatch(r"[A-Za-z0-9_-]{1,40}", call_id) is not None or "__thought__" in call_id


def _bare(name: str) -> str:
    """A tool's name without the namespace, number or channel that some models write with it.

    As in `functions.echo` (OpenAI's), `functions.echo:0` (Kimi K2) and `echo<|channel|>commentary` (gpt-oss).
    """
    name = name.partition("<|")[0].strip()
    return re.sub(r"^(functions?|tools?)[.:]|:\d+$", "", name)


def malformed(arguments: str) -> str | None:
    """What is wrong with the text of a call's arguments, None when it is a JSON object (or empty: no arguments)."""
    if not arguments.strip():
        return None
    try:
        value = read_json(arguments)
    except (ValueError, RecursionError) as error:
        return f"{MALFORMED} ({error}): {_excerpt(arguments)}"
    if _deeper(value, MAX_DEPTH):
        return f"{MALFORMED} that is nested at most {MAX_DEPTH} deep: {_excerpt(arguments)}"
    return None if isinstance(value, dict) else f"{MALFORMED} but {type(value).__name__}: {_excerpt(arguments)}"


def with_advice(problem: str, conversation: Conversation, call: ToolCall) -> str:
    """The problem; with advice on another way when the same tool's last call was malformed too."""
    previous = _last_result(conversation.messages, call)
    return f"{problem}\n{ADVICE}" if previous is not None and previous.content.startswith(MALFORMED) else problem


def masked(call: ToolCall, redactor: Redactor) -> ToolCall:
    """The call as it is stored, shown and sent back: with its arguments redacted, also what JSON has other escapes for than
    Python writes. It runs with its own (`own_arguments`)."""
    if call.arguments.strip() and malformed(call.arguments) is None:
        arguments = parse(call)
        safe = redactor.value(arguments)
        if safe != arguments:
            return replace(call, arguments=json.dumps(safe))
    return replace(call, arguments=redactor.text(call.arguments))


def own_arguments(call: ToolCall, redactor: Redactor) -> dict[str, Any] | None:
    """The arguments to run a call with, if its stored copy has others, because they are masked there; else None."""
    if not call.arguments.strip() or malformed(call.arguments) is not None:
        return None
    arguments: dict[str, Any] = without_surrogates(parse(call))
    return arguments if redactor.value(arguments) != arguments else None


def parse(call: ToolCall) -> dict[str, Any]:
    """The arguments of a stored call."""
    arguments: dict[str, Any] = json.loads(call.arguments)
    return arguments


def call_ids(messages: Sequence[Message]) -> set[str]:
    """The ids of all calls in these messages."""
    return {call.id for message in messages for call in message.tool_calls}


def _last_result(messages: Sequence[Message], before: ToolCall) -> Message | None:
    """The result of the last earlier call of the same tool."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    results = (m for m in reversed(messages) if m.tool_call_id is not None and names[m.tool_call_id] == before.name)
    return next(results, None)


def read_json(text: str) -> Any:
    """A JSON value that can be written as JSON again. Raises ValueError and RecursionError.

    Python reads NaN and Infinity, and makes Infinity of numbers beyond all floats; JSON has neither.
    """
    return json.loads(text, parse_constant=_no_number, parse_float=_finite)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {_excerpt(digits)} is too large")
    return value


def _deeper(value: object, depth: int) -> bool:
    """Whether a JSON value has more levels than that."""
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper(item, depth - 1) for item in items)


def _excerpt(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:100]} … {text[-100:]}"
