"""The state as a value: written, read back, and read from what earlier runtimes wrote."""

from __future__ import annotations

import json

import pytest

from agent.conversation import Conversation, PendingApproval
from agent.messages import Message, ToolCall, Usage

VERSION_1 = """{
  "messages": [
    {"role": "user", "content": "clean up", "tool_calls": [], "tool_call_id": null, "origin": "said"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "name": "bash", "arguments": "{}"}],
     "tool_call_id": null, "origin": "said"}
  ],
  "usage": {"input_tokens": 10, "output_tokens": 5, "cached_tokens": 2, "cost_usd": 0.5, "llm_calls": 1, "tool_calls": 0},
  "pending": [{"tool_call_id": "c1", "tool": "bash", "arguments": {"command": "rm x"}, "reason": "it deletes"}],
  "started": [], "in_turn": true, "iterations": 1, "plan": [], "continued": 0, "loop": null, "measured": [2, 15],
  "version": 1
}"""
"""What a runtime wrote that knew no decisions and no priced calls."""


def test_what_an_earlier_runtime_wrote_is_read() -> None:
    assert Conversation.from_json(VERSION_1) == Conversation(
        messages=(Message("user", "clean up"), Message("assistant", "", (ToolCall("c1", "bash", "{}"),))),
        usage=Usage(input_tokens=10, output_tokens=5, cached_tokens=2, cost_usd=0.5, llm_calls=1),
        pending=(PendingApproval("c1", "bash", {"command": "rm x"}, "it deletes"),),
        in_turn=True,
        iterations=1,
        measured=(2, 15),
    )


def test_it_is_written_in_the_newest_version() -> None:
    read = Conversation.from_json(VERSION_1)
    assert json.loads(read.to_json())["version"] == 2
    assert Conversation.from_json(read.to_json()) == read


@pytest.mark.parametrize("text", ["[]", "{}", '{"version": 0}', '{"version": 3}', '{"version": "1"}'])
def test_what_no_runtime_wrote_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="version"):
        Conversation.from_json(text)


OPEN = Conversation((Message("assistant", "", (ToolCall("a", "bash", "{}"),)),))


def test_a_message_waits_for_the_results_of_open_calls() -> None:
    with pytest.raises(ValueError, match="a tool call has no result yet"):
        OPEN.with_message(Message("user", "next"))


@pytest.mark.parametrize("conversation", [OPEN, Conversation(), OPEN.with_result("a", "done")])
def test_only_an_open_call_takes_a_result(conversation: Conversation) -> None:
    with pytest.raises(ValueError, match="no open tool call b"):
        conversation.with_result("b", "late")


def test_undo_needs_something_that_a_person_said() -> None:
    assert Conversation().without_last_turn() is None
    assert Conversation((Message("user", "be brief", origin="note"),)).without_last_turn() is None
