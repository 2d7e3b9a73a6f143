"""Sub-agents: what they see and may do, what they cost, what they ask, and what is left of them in every case."""

from __future__ import annotations

from typing import Any

import pytest

from agent.approval import ApprovalDecision, Rule
from agent.budget import Budget
from agent.messages import Usage
from agent.model.failure import ContextOverflowError, ModelError
from agent.testing import calls, fails, says
from agent.tools.research import RESEARCH_TOOL
from support.agent.stage import stage
from support.agent.subagents import ASK_B, at, by_task, check_at_rest, pending, research, results, tools
from support.agent.validity import check_request

pytestmark = pytest.mark.anyio


async def test_it_has_its_own_context_and_its_answer_is_the_result() -> None:
    ran: list[str] = []
    s = stage(
        calls(research("find x")),
        calls(at("a"), ("write", {}), research("more"), text="Let me look."),
        says("x is at a"),
        says("done"),
        tools=tools(ran),
        instructions="Speak like a pirate.",
    )
    assert (await s.agent.run_turn("where is x?")).message == "done"
    assert s.model.tools == [["look", "write", "research"], ["look"], ["look"], ["look", "write", "research"]]
    assert [m.content for m in s.model.requests[1][1:]] == ["find x"]
    assert "pirate" in s.model.requests[0][0].content
    assert "pirate" not in s.model.requests[1][0].content
    sub_results = [m.content for m in s.model.requests[2] if m.role == "tool"]
    assert sub_results[0] == "saw a"
    assert all("no tool named" in result for result in sub_results[1:])
    assert ran == ["a"]
    assert results(s.agent.conversation) == ["x is at a"]
    for request in s.model.requests:
        check_request(request)
    check_at_rest(s)


async def test_its_events_name_the_parent_call_and_its_words_stay_inside() -> None:
    s = stage(
        calls(research("find x"), text="I ask."),
        calls(at("a"), text="Let me look.", ids=("call_1_0",)),
        says("x is at a"),
        says("done"),
        tools=tools([]),
    )
    await s.agent.run_turn("where is x?")
    events = [(e.type, e.data.get("tool"), e.data.get("parent")) for e in s.events if e.type.startswith("tool_")]
    assert events == [
        ("tool_call", "research", None),
        ("tool_call", "look", "call_1_0"),
        ("tool_output", "look", "call_1_0"),
        ("tool_output", "research", None),
    ]
    assert s.data("tool_call")[1]["tool_call_id"] != "call_1_0"  # unique, even if the model repeats its own
    assert "".join(d["text"] for d in s.data("assistant_chunk")) == "I ask.done"
    assert [d["text"] for d in s.data("assistant_message")] == ["I ask.", "done"]
    assert [d.get("parent") for d in s.data("usage")] == [None, "call_1_0", "call_1_0", None]


async def test_globs_decide_which_of_the_tools_that_read_it_has() -> None:
    s = stage(calls(research("x")), says("y"), says("z"), tools=tools([]), research_tools=("web_*",))
    await s.agent.run_turn("go")
    assert s.model.tools[1] == []


async def test_what_it_uses_is_its_parents_and_so_is_the_budget() -> None:
    script = (calls(research("x")), calls(at("a")), calls(at("c")), says("y"), says("z"))
    s = stage(*script, tools=tools([]))
    await s.agent.run_turn("go")
    usage = s.agent.usage
    assert (usage.input_tokens, usage.output_tokens, usage.llm_calls, usage.tool_calls) == (50, 25, 5, 3)
    assert usage.cost_usd == pytest.approx(0.005)
    assert [d["llm_calls"] for d in s.data("usage")] == [1, 2, 3, 4, 5]
    s = stage(*script, tools=tools([]), budget=Budget(tokens=30))
    assert (await s.agent.run_turn("go")).status == "error"
    assert len(s.model.requests) == 2
    assert "budget of 30 tokens is used up" in s.data("tool_output")[-1]["output"]
    assert s.data("error")[0]["kind"] == "budget"
    check_at_rest(s)


async def test_it_asks_like_its_parent_and_goes_on_where_it_was() -> None:
    ran: list[str] = []
    s = stage(
        calls(research("x"), ("write", {})),
        calls(at("a"), at("b1"), at("b2"), at("b3")),
        says("found"),
        says("done"),
        tools=tools(ran),
        rules=ASK_B,
    )
    assert (await s.agent.run_turn("go")).status == "awaiting_approval"
    assert ran == ["a"]  # nothing overtakes the question, in the parent neither
    asked = s.data("approval_required")[0]["approvals"]
    assert [(a["tool"], a["arguments"]["at"], a["reason"], a["parent"]) for a in asked] == [
        ("look", place, "b is private", "call_1_0") for place in ("b1", "b2", "b3")
    ]
    assert s.types().count("approval_required") == 1
    ids = pending(s)
    decisions = [
        ApprovalDecision(ids["b1"], True, arguments={"at": "b9"}),
        ApprovalDecision(ids["b2"], False, feedback="never b2"),
    ]
    assert (await s.agent.decide(decisions)).message == "done"
    assert ran == ["a", "b9", "write"]
    sub_results = [m.content for m in s.model.requests[2] if m.role == "tool"]
    assert sub_results[0] == "saw a"
    assert sub_results[1] == '[A person changed the arguments to {"at": "b9"}]\nsaw b9'
    assert "never b2" in sub_results[2]
    assert "denied" in sub_results[3]  # a missing decision
    assert [d["tool"] for d in s.data("tool_call")].count("research") == 1
    check_at_rest(s)


async def test_sub_agents_work_at_the_same_time_and_are_asked_for_together() -> None:
    ran: list[str] = []
    scripts = {
        "go": [calls(research("one"), research("two"), research("three"), ("write", {})), says("done")],
        "one": [calls(at("b one")), calls(at("b one more")), says("1")],
        "two": [calls(at("a two")), says("2")],
        "three": [calls(at("b three")), says("3")],
    }
    s = by_task(ran, scripts, rules=(*ASK_B, Rule("write", "ask")))
    await s.agent.run_turn("go")
    assert set(pending(s)) == {"b one", "b three", "write"}
    assert ran == ["a two"]
    await s.agent.decide([ApprovalDecision(call_id, True) for call_id in pending(s).values()])
    assert set(pending(s)) == {"b one more"}  # what was decided is not asked again, though it has not run yet
    assert ran == ["a two", "b one", "b three"]
    outcome = await s.agent.decide([ApprovalDecision(pending(s)["b one more"], True)])
    assert outcome.message == "done"
    assert ran == ["a two", "b one", "b three", "b one more", "write"]
    assert results(s.agent.conversation) == ["1", "2", "3", "wrote"]
    check_at_rest(s)


async def test_a_research_call_can_need_consent_and_be_changed() -> None:
    s = stage(
        calls(research("x")),
        calls(at("b")),
        says("found"),
        says("done"),
        tools=tools([]),
        rules=(Rule(RESEARCH_TOOL, "ask"), *ASK_B),
    )
    await s.agent.run_turn("go")
    assert s.agent.pending_approvals[0].tool == RESEARCH_TOOL
    await s.agent.decide([ApprovalDecision("call_1_0", True, arguments={"task": "y"})])
    assert s.model.requests[1][1].content == "y"
    await s.agent.decide([ApprovalDecision(pending(s)["b"], True)])
    assert results(s.agent.conversation) == ['[A person changed the arguments to {"task": "y"}]\nfound']


@pytest.mark.parametrize("arguments", [{}, {"task": ""}, {"task": 1}])
async def test_a_call_with_wrong_arguments_starts_none(arguments: dict[str, Any]) -> None:
    s = stage(calls((RESEARCH_TOOL, arguments)), says("oh"), tools=tools([]))
    assert (await s.agent.run_turn("go")).message == "oh"
    assert "do not fit research" in results(s.agent.conversation)[0]
    check_at_rest(s)


async def test_a_forbidden_call_starts_none() -> None:
    s = stage(calls(research("x")), says("oh"), tools=tools([]), rules=(Rule(RESEARCH_TOOL, "deny", reason="no"),))
    assert (await s.agent.run_turn("go")).message == "oh"
    assert results(s.agent.conversation) == ["This call is not allowed: no. It was not run."]


async def test_one_that_fails_is_a_failed_call_and_the_parent_goes_on() -> None:
    s = stage(
        calls(research("x")),
        calls(at("a"), text="It may be at a."),
        fails(ModelError("no such model")),
        says("done"),
        tools=tools([]),
    )
    assert (await s.agent.run_turn("go")).message == "done"
    result = s.data("tool_output")[-1]
    assert not result["success"]
    assert result["output"] == "The sub-agent did not finish: no such model.\nIts last words were: It may be at a."


async def test_it_has_an_iteration_limit_of_its_own() -> None:
    s = stage(
        calls(research("x")), *[calls(at(str(n))) for n in range(3)], says("done"), tools=tools([]), research_iterations=3
    )
    assert (await s.agent.run_turn("go")).message == "done"
    assert "ended after 3 model calls" in s.data("tool_output")[-1]["output"]


async def test_its_context_is_compacted_like_its_parents() -> None:
    places = ["x" * 2000 + str(n) for n in range(4)]
    s = stage(
        calls(research("find x")),
        *[calls(at(place), usage=Usage()) for place in places],
        fails(ContextOverflowError("too long")),
        says("SUMMARY"),
        says("found"),
        says("done"),
        tools=tools([]),
    )
    assert (await s.agent.run_turn("go")).message == "done"
    assert results(s.agent.conversation) == ["found"]
    (compacted,) = s.data("compacted")
    assert compacted["parent"] == "call_1_0"
    assert compacted["tokens_after"] < compacted["tokens_before"]
    assert s.model.requests[7][1].content == "find x"
