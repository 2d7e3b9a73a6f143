from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent.approval import ApprovalDecision, Rule
from agent.budget import Budget
from agent.conversation import Conversation
from agent.messages import Message, Usage
from agent.model.answer import ModelChunk
from agent.testing import ScriptedModel, calls, says
from agent.tools.tool import Tool, ToolError, parameters
from support.agent.stage import Stage, stage
from support.agent.validity import check_request

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
            "parent": None,
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


async def test_edited_arguments_are_checked_and_judged_again() -> None:
    ran: list[str] = []
    rules = (Rule("bash", "deny", {"command": "sudo *"}, "no sudo"), ASK_RM)
    s = stage(calls(bash("rm a"), bash("rm b"), bash("rm c")), says("done"), tools=(shell(ran),), rules=rules)
    await s.agent.run_turn("go")
    edits: list[dict[str, Any]] = [{"command": "sudo rm a"}, {"comand": "rm b"}, {"command": "rm -r c"}]
    await s.agent.decide([ApprovalDecision(f"call_1_{n}", True, arguments=edit) for n, edit in enumerate(edits)])
    assert ran == ["rm -r c"]  # what a person wants is not asked about again
    assert results(s)[0] == "This call is not allowed: no sudo. It was not run."
    assert "do not fit bash" in results(s)[1]
    assert [d["arguments"] for d in s.data("tool_call")] == edits


async def test_secrets_in_a_decision_are_masked() -> None:
    secret = "hf_abcdefghijklmnop"
    s = stage(calls(bash("rm a"), bash("rm b")), says("ok"), tools=(shell([]),), rules=(ASK_RM,), secrets=(secret,))
    await s.agent.run_turn("go")
    edited = ApprovalDecision("call_1_0", True, arguments={"command": f"rm {secret}"})
    await s.agent.decide([edited, ApprovalDecision("call_1_1", False, feedback=f"not {secret}")])
    assert secret not in repr(s.events) + s.agent.conversation.to_json()
    assert "not [REDACTED]" in results(s)[1]


async def test_nobody_is_asked_about_a_call_that_cannot_run() -> None:
    s = stage(calls(("bash", {}), ("basch", {})), says("oh"), tools=(shell([]),), rules=(Rule("*", "ask"),))
    assert (await s.agent.run_turn("go")).message == "oh"
    assert "do not fit bash" in results(s)[0]
    assert "no tool named" in results(s)[1]


def paid(ran: list[float], **options: Any) -> Tool:
    """A tool whose calls cost what they say; without `usd`, nobody knows."""

    async def call(arguments: dict[str, Any]) -> str:
        ran.append(arguments.get("usd", 0.0))
        return "bought"

    return Tool(
        "buy",
        "",
        parameters(usd={"type": "number"}),
        call,
        needs_consent=lambda arguments: "it costs money",
        price=lambda arguments: arguments.get("usd"),
        **options,
    )


def buy(usd: float) -> tuple[str, dict[str, float]]:
    return "buy", {"usd": usd}


@pytest.mark.parametrize("read_only", [False, True])
async def test_priced_calls_run_without_a_question_up_to_the_cap(read_only: bool) -> None:
    ran: list[float] = []
    s = stage(
        calls(buy(2), buy(2), buy(2), usage=Usage(cost_usd=0.5)),
        says("done", usage=Usage(cost_usd=0.25)),
        tools=(paid(ran, read_only=read_only),),
        auto_approve_usd=5.0,
    )
    assert (await s.agent.run_turn("go")).status == "awaiting_approval"
    assert ran == [2, 2]  # 0.5 + 2 + 2 is within the cap, and 2 more would not be
    assert [p.tool_call_id for p in s.agent.pending_approvals] == ["call_1_2"]
    await s.agent.decide([ApprovalDecision("call_1_2", True)])
    assert ran == [2, 2, 2]
    assert (s.agent.usage.tool_cost_usd, s.agent.usage.spent_usd) == (6.0, 6.75)
    assert s.data("usage")[-1]["tool_cost_usd"] == 6.0
    assert Budget(cost_usd=6.75).exhausted_by(s.agent.usage) is not None
    assert Budget(cost_usd=6.76).exhausted_by(s.agent.usage) is None


async def test_the_cap_reaches_no_further_than_the_budget() -> None:
    s = stage(calls(buy(2)), tools=(paid([]),), auto_approve_usd=5.0, budget=Budget(cost_usd=1.5))
    assert (await s.agent.run_turn("go")).status == "awaiting_approval"


@pytest.mark.parametrize(
    ("cap", "arguments", "rules"),
    [
        (None, {"usd": 1}, ()),
        (5.0, {}, ()),  # no price is known
        (5.0, {"usd": 5.01}, ()),
        (5.0, {"usd": 1}, (Rule("buy", "deny"),)),
    ],
)
async def test_what_the_cap_does_not_allow(cap: float | None, arguments: dict[str, Any], rules: tuple[Rule, ...]) -> None:
    ran: list[float] = []
    s = stage(calls(("buy", arguments)), says("well"), tools=(paid(ran),), auto_approve_usd=cap, rules=rules)
    await s.agent.run_turn("go")
    assert ran == []
    assert s.agent.usage.tool_cost_usd == 0


async def test_what_a_call_costs_is_counted_when_it_begins() -> None:
    async def fail(arguments: dict[str, Any]) -> str:
        raise ToolError("out of stock")

    tool = replace(paid([]), call=fail)
    s = stage(calls(buy(2)), says("well"), tools=(tool,), auto_approve_usd=5.0)
    at_start: list[float] = []
    s.on("tool_call", lambda: at_start.append(s.agent.usage.tool_cost_usd))
    await s.agent.run_turn("go")
    assert at_start == [2.0]
    assert s.agent.usage.tool_cost_usd == 2.0  # who knows what a failed call has cost


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
    assert results(s) == ["[not done: nobody answered]"]
    assert not s.agent.conversation.in_turn


async def test_a_decision_survives_a_crash() -> None:
    """The process dies when the first of the decided calls has its result."""
    ran: list[str] = []
    first = stage(calls(bash("rm a"), bash("rm b"), bash("rm c")), tools=(shell(ran),), rules=(ASK_RM,))
    await first.agent.run_turn("go")
    stored: list[str] = []

    def die() -> None:
        stored.append(first.agent.conversation.to_json())
        raise asyncio.CancelledError

    first.on("tool_output", die)
    decided = [ApprovalDecision("call_1_1", True), ApprovalDecision("call_1_2", False, feedback="c is precious")]
    with contextlib.suppress(asyncio.CancelledError):
        await first.agent.decide(decided)
    second = stage(says("done"), tools=(shell(ran),), rules=(ASK_RM,), conversation=Conversation.from_json(stored[0]))
    assert (await second.agent.resume()) is not None
    assert ran == ["rm b"]
    assert ["denied" in result for result in results(second)] == [True, False, True]
    assert "c is precious" in results(second)[2]
    assert second.agent.conversation.decisions == ()


async def test_a_pending_approval_survives_a_restart() -> None:
    ran: list[str] = []
    first = stage(calls(bash("rm a")), tools=(shell(ran),), rules=(ASK_RM,))
    await first.agent.run_turn("go")
    stored = Conversation.from_json(first.agent.conversation.to_json())
    second = stage(says("done"), tools=(shell(ran),), rules=(ASK_RM,), conversation=stored)
    assert await second.agent.resume() is None
    assert (await second.agent.decide([ApprovalDecision("call_1_0", True)])).message == "done"
    assert ran == ["rm a"]


async def test_a_cancellation_that_nobody_asked_for_is_that_calls_error() -> None:
    async def raises(_: dict[str, Any]) -> str:
        raise asyncio.CancelledError

    async def cancels_its_task(_: dict[str, Any]) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(30)
        return "never"

    async def awaits_a_cancelled_future(_: dict[str, Any]) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        future.cancel()
        return await future

    async def works(_: dict[str, Any]) -> str:
        return "worked"

    bodies = raises, cancels_its_task, awaits_a_cancelled_future, works
    tools = tuple(Tool(body.__name__, "", parameters(), body, read_only=True) for body in bodies)
    s = stage(calls(*((tool.name, {}) for tool in tools)), says("done"), tools=tools)
    assert (await s.agent.run_turn("go")).status == "complete"
    assert [data["success"] for data in s.data("tool_output")].count(False) == 3
    assert results(s)[:1] == ["raises failed: it was cancelled, and nobody asked for that."]
    assert results(s)[3] == "worked"


async def test_a_cancellation_inside_the_model_ends_the_turn_and_not_the_process() -> None:
    class Cancelled(ScriptedModel):
        async def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
            yield ModelChunk(text="one")
            raise asyncio.CancelledError

    s = stage()
    s.agent.model = Cancelled()
    assert (await s.agent.run_turn("go")).status == "error"
    assert s.events[-1].data["kind"] == "internal"
