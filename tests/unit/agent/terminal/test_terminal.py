"""The chat, with a pipe for a keyboard; and `python -m agent` as a process."""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.approval import Rule
from agent.config import AgentConfig
from agent.terminal.session_file import SessionFile
from agent.terminal.terminal import Terminal
from agent.testing import Reply, ScriptedModel, calls, says
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, parameters
from support.agent.asking import SEAT, asking_tool

pytestmark = pytest.mark.anyio


async def shout(arguments: dict[str, Any]) -> str:
    return str(arguments["text"]).upper()


SHOUT = Tool("shout", "Say it loud. And clear.", parameters("text", text={"type": "string"}), shout)


async def chat(typed: str, *replies: Reply, editor: str | None = None, tools: tuple[Tool, ...] = (), **settings: Any) -> str:
    """What the screen shows when this is typed."""
    keyboard, hand = os.pipe()
    os.write(hand, typed.encode())
    os.close(hand)
    screen = io.StringIO()
    model = ScriptedModel(*replies)
    config, router = AgentConfig("scripted", **settings), ToolRouter((SHOUT, *tools))
    terminal = Terminal(config, lambda name: model, router, source=keyboard, screen=screen, editor=editor)
    try:
        assert await terminal.chat() == 0
    finally:
        os.close(keyboard)
    return screen.getvalue()


async def test_a_chat_with_commands() -> None:
    screen = await chat(
        "hello\n/usage\n/tools\n/undo\n/undo\n/compact\n/model\n/what\n\n/quit\nnever read\n",
        calls(("shout", {"text": "hi\nthere"})),
        says("I have shouted."),
    )
    for expected in (
        "* shout hi⏎there",
        "  | HI\n  | THERE",
        "I have shouted.",
        "llm_calls  2",
        "shout  Say it loud",
        "[taken back: hello]",
        "[there is nothing to undo]",
        "[error: The conversation cannot be made any shorter.",
        "the model is scripted",
        "there is no command /what; /help lists them",
    ):
        assert expected in screen
    assert "never read" not in screen


async def test_consent_is_asked_for_and_a_refusal_tells_why() -> None:
    ask = (Rule("shout", "ask", reason="it is late"),)
    twice = calls(("shout", {"text": "a"}), ("shout", {"text": "b"}))
    screen = await chat("go\ny\nn the neighbours sleep\n", twice, says("done"), rules=ask)
    assert "it is late" in screen
    assert "  | A\n" in screen
    assert "They said: the neighbours sleep" in screen


async def test_arguments_are_edited_in_the_persons_editor(tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/soft/loud/' \"$2\"\n")
    editor.chmod(0o755)
    ask = (Rule("shout", "ask"),)
    screen = await chat("go\ne\n", calls(("shout", {"text": "soft"})), says("done"), editor=f"{editor} -w", rules=ask)
    assert "  | LOUD\n" in screen


@pytest.mark.parametrize("editor", ["/no/such/editor", "false", "sh -c 'echo nonsense >\"$0\"'", "sh -c 'echo [] >\"$0\"'"])
async def test_an_editor_that_fails_costs_nothing(editor: str) -> None:
    ask = (Rule("shout", "ask"),)
    screen = await chat("go\ne\ny\n", calls(("shout", {"text": "soft"})), says("done"), editor=editor, rules=ask)
    assert "failed: " in screen or "that is not" in screen
    assert "  | SOFT\n" in screen


async def test_who_consents_sees_all_of_a_call_and_nothing_hides_in_it() -> None:
    hidden = "echo fine" + " " * 5000 + "; rm -rf ~\r\x1b[2K\u202e echo fine"
    screen = await chat("go\nn\n\n", calls(("shout", {"text": hidden})), says("ok"), rules=(Rule("shout", "ask"),))
    assert "; rm -rf ~\\u000d\\u001b[2K\\u202e echo fine" in screen


async def test_the_reason_for_a_question_hides_nothing() -> None:
    rules = (Rule("shout", "ask", reason="the server says\r\x1b[2K fine"),)
    screen = await chat("go\nn\n\n", calls(("shout", {"text": "a"})), says("ok"), rules=rules)
    assert "? shout: the server says\\u000d\\u001b[2K fine\n  text: a\n" in screen


async def test_nothing_that_is_shown_gives_orders_to_the_terminal() -> None:
    orders = "\x1b]52;c;c3VkbyBybQ==\x07\x9b2J"
    screen = await chat("go\n", calls(("shout", {"text": orders})), says(f"so {orders}"))
    assert "so \\u001b]52;c;c3VkbyBybQ==\\u0007\\u009b2J" in screen
    assert not re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", screen)


async def test_a_servers_question_is_put_to_the_person_in_the_call() -> None:
    screen = await chat("go\n1\nnext\n", calls(("book", {"to": "Rome"})), says("done"), says("ok"), tools=(asking_tool(),))
    assert "? travel asks, for book: Which seat?\n" in screen
    assert "    1. window\n    2. aisle\n  seat [aisle]: " in screen
    assert "  | accept {'seat': 'window'}\n" in screen
    assert "done" in screen


async def test_a_servers_questions_come_one_after_the_other() -> None:
    twice = calls(("book", {"to": "Rome"}), ("book", {"to": "Oslo"}))
    screen = await chat("go\n1\n2\n", twice, says("done"), tools=(asking_tool(read_only=True),))
    assert "  | accept {'seat': 'window'}\n" in screen
    assert "  | accept {'seat': 'aisle'}\n" in screen


async def test_a_servers_question_gives_no_orders_to_the_terminal() -> None:
    evil = replace(SEAT, message="sure?\r\x1b[2K fine", form={"properties": {"a": {"type": "string", "title": "b\x1b[2K"}}})
    screen = await chat("go\n/decline\n", calls(("book", {"to": "Rome"})), says("done"), tools=(asking_tool(evil),))
    assert "sure?\\u000d\\u001b[2K fine" in screen
    assert "b\\u001b[2K: " in screen
    assert "  | decline None\n" in screen


async def test_the_end_of_the_input_dismisses_a_servers_question() -> None:
    screen = await chat("go\n", calls(("book", {"to": "Rome"})), says("done"), tools=(asking_tool(),))
    assert "  | cancel None\n" in screen


async def test_without_a_person_a_servers_question_is_declined() -> None:
    screen = io.StringIO()
    model = ScriptedModel(calls(("book", {"to": "Rome"})), says("so be it"))
    config = AgentConfig("scripted", somebody_answers=False)
    terminal = Terminal(config, lambda name: model, ToolRouter((asking_tool(),)), screen=screen)
    assert await terminal.one_turn("go") == 0
    assert "[travel asks: Which seat?; declined, as nobody answers questions in this session]" in screen.getvalue()
    assert "  | decline None\n" in screen.getvalue()


async def test_a_session_file_brings_the_conversation_back(tmp_path: Path) -> None:
    screen = io.StringIO()
    model = ScriptedModel(says("hello"))
    file = SessionFile(tmp_path / "session")
    terminal = Terminal(AgentConfig("scripted"), lambda name: model, ToolRouter(()), save=file.save, screen=screen)
    assert await terminal.one_turn("hi") == 0
    assert (tmp_path / "session").stat().st_mode & 0o777 == 0o600
    conversation = file.load()
    assert conversation is not None
    assert conversation.last_message == "hello"
    assert SessionFile(tmp_path / "none").load() is None


async def test_a_prompt_that_fails_or_needs_consent_has_its_exit_status() -> None:
    screen = io.StringIO()
    model = ScriptedModel(calls(("shout", {"text": "a"})), says("so be it"))
    config = AgentConfig("scripted", rules=(Rule("shout", "ask"),))
    terminal = Terminal(config, lambda name: model, ToolRouter((SHOUT,)), screen=screen)
    assert await terminal.one_turn("go") == 0
    assert "A person denied this call" in screen.getvalue()
    assert await terminal.one_turn("go") == 1
    assert "[error: the script has no more replies]" in screen.getvalue()
