from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.approval import Rule, Verdict, judge


def never(arguments: Mapping[str, Any]) -> None:
    """A tool that asks nobody."""


def costs(arguments: Mapping[str, Any]) -> str | None:
    return "it costs" if arguments.get("gpu") else None


def test_the_first_matching_rule_decides_and_then_the_tool_itself() -> None:
    rules = (Rule("bash", "allow", {"command": "ls*"}), Rule("ba*", "deny", {"command": "*"}, "no shell"))
    assert judge(rules, "bash", {"command": "ls -l"}, never).action == "allow"
    assert judge(rules, "bash", {"command": "rm x"}, never) == Verdict("deny", "no shell")
    assert judge(rules, "bash", {}, never).action == "allow"  # a missing argument matches no glob
    assert judge((Rule("t", "ask", {"n": "[12]"}),), "t", {"n": 2}, never).action == "ask"
    assert judge((), "t", {"gpu": True}, costs) == Verdict("ask", "it costs")
    assert judge((), "t", {}, costs) == Verdict("allow")
    assert judge((Rule("*", "allow"),), "t", {"gpu": True}, costs).action == "allow"
