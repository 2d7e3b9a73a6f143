from __future__ import annotations

from typing import Any

import pytest

from agent.approval import ApprovalDecision, Rule, Verdict, judge
from agent.conversation import Conversation
from agent.testing import calls, says
from agent.tools.tool import Tool, parameters
from unit.agent.stage import Stage, stage
from unit.agent.validity import check_request

pytestmark = pytest.mark.anyio

ASK_RM = Rule("bash", "ask", {"command": "*rm *"}, "it deletes files")


def shell(ran: list[str]) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        ran.append(arguments["command"])
        return f"ran {arguments['command']}"

    return Tool("bash", "", parameters("command", command={"type": "string"}), call)


def results(s: Stage) -> list[str]:
    return [m.content for m in s.agent.conversation.messages if m.role == "tool"]


def bash(command: str) -> tuple[str, dict[str, str]]:
    return "bash", {"command": command}


def test_the_first_matching_rule_decides_and_then_the_tool_itself() -> None:
    rules = (Rule("bash", "allow", {"command": "ls*"}), Rule("ba*", "deny", {"command": "*"}, "no shell"))
    assert judge(rules, "bash", None, {"command": "ls -l"}).action == "allow"
    assert judge(rules, "bash", None, {"command": "rm x"}) == Verdict("deny", "no shell")
    assert judge(rules, "bash", None, {}).action == "allow"  # a missing argument matches no glob
    assert judge((Rule("t", "ask", {"n": "[12]"}),), "t", None, {"n": 2}).action == "ask"
    consent = Tool("t", "", {}, shell([]).call, needs_consent=lambda a: "it costs" if a.get("gpu") else None)
    assert judge((), "t", consent, {"gpu": True}) == Verdict("ask", "it costs")
    assert judge((), "t", consent, {}) == Verdict("allow")
    assert judge((Rule("*", "allow"),), "t", consent, {"gpu": True}).action == "allow"


async def test_a_turn_waits_for_consent_and_nothing_overtakes_the_question() -> None:
    ran: list[str] = []
    s = stage(calls(bash("ls"), bash("rm a"), bash("pwd"), bash("rm b")), says("done"), tools=(shell(ran),), rules=(ASK_RM,))
    outcome = await s.agent.run_turn("clean up")
    assert outcome.status == "awaiting_approval"
    assert ran == ["ls"]
    assert s.events[-1].type == "approval_required"
    assert s.events[-1].data["approvals"] == [
        {
            "tool_call_id": f"call_1_{n}",
            "tool": "bash",
            "arguments": {"command": command},
            "reason": "it deletes files",
        }
        for n, command in ((1, "rm a"), (3, "rm b"))
    ]
    outcome = await s.agent.decide(
        [
            ApprovalDecision("call_1_1", True, arguments={"command": "rm -i a"}),
            ApprovalDecision("call_1_3", False, feedback="b is precious"),
        ]
    )
    assert outcome.message == "done"
    assert ran == ["ls", "rm -i a", "pwd"]
    assert results(s)[1] == '[A person changed the arguments to {"command": "rm -i a"}]\nran rm -i a'
    assert "They said: b is precious" in results(s)[3]
    check_request(s.model.requests[-1])


async def test_a_missing_decision_is_a_denial() -> None:
    ran: list[str] = []
    s = stage(calls(bash("rm a"), bash("rm b")), says("done"), tools=(shell(ran),), rules=(ASK_RM,))
    await s.agent.run_turn("go")
    await s.agent.decide([ApprovalDecision("call_1_1", True)])
    assert ran == ["rm b"]
    assert "denied" in results(s)[0]
    assert (await s.agent.decide([])).status == "error"  # nothing is pending any more


async def test_a_forbidden_call_is_answered_without_a_question() -> None:
    ran: list[str] = []
    s = stage(calls(bash("rm a")), says("done"), tools=(shell(ran),), rules=(Rule("bash", "deny", reason="no shell"),))
    assert (await s.agent.run_turn("go")).status == "complete"
    assert ran == []
    assert results(s) == ["This call is not allowed: no shell. It was not run."]
    assert [d["success"] for d in s.data("tool_output")] == [False]


async def test_saying_something_else_abandons_what_is_pending() -> None:
    ran: list[str] = []
    s = stage(calls(bash("rm a"), bash("ls")), says("all right"), tools=(shell(ran),), rules=(ASK_RM,))
    await s.agent.run_turn("go")
    assert (await s.agent.run_turn("leave it")).message == "all right"
    assert ran == []
    assert all("said something else" in result for result in results(s))
    assert s.agent.pending_approvals == ()
    check_request(s.model.requests[-1])


async def test_undo_and_abandon_clear_what_is_pending() -> None:
    s = stage(calls(bash("rm a")), calls(bash("rm b")), tools=(shell([]),), rules=(ASK_RM,))
    await s.agent.run_turn("go")
    assert (await s.agent.compact()).status == "error"
    assert len(s.agent.pending_approvals) == 1  # compaction has not touched it
    await s.agent.undo()
    assert s.agent.conversation == Conversation(usage=s.agent.usage)
    await s.agent.run_turn("go")
    await s.agent.abandon("nobody answered")
    assert s.events[-1].type == "interrupted"
    assert results(s) == ["[not run: nobody answered]"]
    assert not s.agent.conversation.in_turn


async def test_a_pending_approval_survives_a_restart() -> None:
    ran: list[str] = []
    first = stage(calls(bash("rm a")), tools=(shell(ran),), rules=(ASK_RM,))
    await first.agent.run_turn("go")
    stored = Conversation.from_json(first.agent.conversation.to_json())
    second = stage(says("done"), tools=(shell(ran),), rules=(ASK_RM,), conversation=stored)
    assert await second.agent.resume() is None
    assert (await second.agent.decide([ApprovalDecision("call_1_0", True)])).message == "done"
    assert ran == ["rm a"]
