"""The system message."""

from __future__ import annotations

from collections.abc import Sequence

WITH_TOOLS = """\
You are an agent that works on a person's task until it is done. Use your tools to find out what you do not know, to \
do the work and to check it; do not guess what you can look up. When a tool call fails, read why and change something \
before you try again. Independent calls can be made in one answer. When the task is done, or cannot be done, say so \
in a short answer with what the person needs to know; an answer without tool calls ends your turn."""

WITHOUT_TOOLS = "You work on a person's task. Answer with what the person needs to know, in a few words."
"""For a session that offers no tools: with tools mentioned, a model pretends to call them, and a small one loses the thread."""


PROBLEMS = "Some tools are missing or do not work at the moment. Do not pretend to have them; say so if the task needs them:"


def system_prompt(instructions: str | None, *, tools: bool, problems: Sequence[str] = ()) -> str:
    """The loop's own words, and after them what the session's owner wants.

    `tools`: whether any are offered. `problems`: what is wrong with the places where tools come from.
    """
    own = WITH_TOOLS if tools else WITHOUT_TOOLS
    told = ["\n".join((PROBLEMS, *(f"- {problem}" for problem in problems)))] if problems else []
    return "\n\n".join((own, *([instructions] if instructions else []), *told))
