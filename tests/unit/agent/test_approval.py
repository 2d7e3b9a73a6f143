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


def test_globs_match_what_json_escapes() -> None:
    value = {"paths": ["/daten/Gehälter.xlsx", 'a\nb\t"c"', "C:\\Löhne"]}
    for glob in ("*Gehälter*", r"*Geh\u00e4lter*", "*a\nb*", r"*a\nb*", '*b\t\\"c*', r"*C:\\L*"):
        for action in ("allow", "ask", "deny"):
            assert Rule("t", action, {"paths": glob}).matches("t", value), (glob, action)
    for glob in ('*"c"*', "*C:\\Löhne*"):
        assert Rule("t", "deny", {"paths": glob}).matches("t", value)
        assert not Rule("t", "allow", {"paths": glob}).matches("t", value)


def test_an_allowed_list_is_no_other_list() -> None:
    rule = Rule("t", "allow", {"paths": '?"a", "b"?'})
    assert rule.matches("t", {"paths": ["a", "b"]})
    assert not rule.matches("t", {"paths": ['a", "b']})
