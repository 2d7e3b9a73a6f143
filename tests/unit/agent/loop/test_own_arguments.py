"""Calls run with the arguments that the model or a person gave; copies that are stored, shown or sent are masked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.approval import ApprovalDecision, Rule
from agent.conversation import Conversation
from agent.redaction import Redactor
from agent.testing import calls, says
from agent.tools.plan import plan_tool
from agent.tools.research import research_tool
from agent.tools.tool import Tool, parameters
from agent.tools.workspace import workspace_tools
from agent.workspace.local import LocalWorkspace
from support.agent.stage import Stage, stage

pytestmark = pytest.mark.anyio

SECRET = "hf_abcdefghijklmnop"
OTHER = "hf_qrstuvwxyzabcdef"
ASK = Rule("bash", "ask", {"command": "*"})


def shell(ran: list[str]) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        ran.append(arguments["command"])
        return f"ran {arguments['command']}"

    return Tool("bash", "", parameters("command", command={"type": "string"}), call)


def bash(command: str) -> tuple[str, dict[str, str]]:
    return "bash", {"command": command}


def results(s: Stage) -> list[str]:
    return [m.content for m in s.agent.conversation.messages if m.role == "tool"]


def visible(s: Stage) -> str:
    return repr(s.events) + s.agent.conversation.to_json() + repr(s.model.requests)


async def test_a_call_runs_as_the_model_wrote_it() -> None:
    ran: list[str] = []
    deny = Rule("bash", "deny", {"command": f"*{OTHER}*"}, f"it has {OTHER}")
    s = stage(
        calls(bash(f"echo {SECRET} \ud83d"), bash(f"echo {OTHER}"), bash("echo [REDACTED]")),
        says("done"),
        tools=(shell(ran),),
        rules=(deny,),
        secrets=(SECRET, OTHER),
    )
    await s.agent.run_turn("go")
    assert ran == [f"echo {SECRET} \N{REPLACEMENT CHARACTER}", "echo [REDACTED]"]
    assert results(s)[1] == "This call is not allowed: it has [REDACTED]. It was not run."
    assert SECRET not in visible(s)
    assert OTHER not in visible(s)


async def test_an_approved_call_runs_as_the_model_or_the_person_wrote_it() -> None:
    ran: list[str] = []
    wanted = calls(bash(f"echo {SECRET} > a"), bash(f"echo {SECRET} > b"), bash("c"), bash(f"echo {SECRET}"))
    s = stage(wanted, says("done"), tools=(shell(ran),), rules=(ASK,), secrets=(SECRET, OTHER))
    await s.agent.run_turn("go")
    assert s.data("approval_required")[0]["approvals"][0]["arguments"] == {"command": "echo [REDACTED] > a"}
    edits = {1: "echo [REDACTED] > b.txt", 2: f"echo {OTHER}", 3: "echo"}
    others = [ApprovalDecision(f"call_1_{n}", True, arguments={"command": edit}) for n, edit in edits.items()]
    await s.agent.decide([ApprovalDecision("call_1_0", True), *others])
    assert ran == [f"echo {SECRET} > a", f"echo {SECRET} > b.txt", f"echo {OTHER}", "echo"]
    assert SECRET not in visible(s)
    assert OTHER not in visible(s)


async def test_a_call_whose_own_arguments_a_restart_lost_does_not_run() -> None:
    ran: list[str] = []
    wanted = calls(bash(f"echo {SECRET} > a"), bash(f"echo {SECRET} > b"), bash(f"echo {SECRET} > c"), bash("d"))
    s = stage(wanted, tools=(shell(ran),), rules=(ASK,), secrets=(SECRET,))
    await s.agent.run_turn("go")
    stored = Conversation.from_json(s.agent.conversation.to_json())
    s = stage(says("done"), tools=(shell(ran),), rules=(ASK,), secrets=(SECRET,), conversation=stored)
    edits = {1: "echo [REDACTED] > b.txt", 2: "echo"}
    others = [ApprovalDecision(f"call_1_{n}", True, arguments={"command": edit}) for n, edit in edits.items()]
    await s.agent.decide([ApprovalDecision("call_1_0", True), *others, ApprovalDecision("call_1_3", True)])
    assert ran == ["echo", "d"]
    assert all("restarted before this call ran" in result for result in results(s)[:2])
    assert s.agent.conversation.masked == ()


async def test_a_persons_own_arguments_that_a_restart_lost_do_not_run() -> None:
    ran: list[str] = []
    s = stage(calls(bash("a")), tools=(shell(ran),), rules=(ASK,), secrets=(SECRET,))
    await s.agent.run_turn("go")
    kept: list[Conversation] = []
    s.on("processing", lambda: kept.append(s.agent.conversation))
    await s.agent.decide([ApprovalDecision("call_1_0", True, arguments={"command": f"echo {SECRET}"})])
    assert ran == [f"echo {SECRET}"]
    s = stage(says("done"), tools=(shell(ran),), secrets=(SECRET,), conversation=Conversation.from_json(kept[0].to_json()))
    await s.agent.resume()
    assert len(ran) == 1
    assert "restarted before this call ran" in results(s)[0]


async def test_a_sub_agents_call_runs_as_its_model_wrote_it() -> None:
    ran: list[str] = []
    tools = (research_tool(), replace(shell(ran), read_only=True))
    wanted = (calls(("research", {"task": f"look for {SECRET}"})), calls(bash(f"grep {SECRET}"), bash("ls")), says("it"))
    s = stage(*wanted, says("done"), tools=tools, rules=(ASK,), secrets=(SECRET,))
    await s.agent.run_turn("go")
    first, second = s.agent.pending_approvals
    assert first.arguments == {"command": "grep [REDACTED]"}
    edited = ApprovalDecision(second.tool_call_id, True, arguments={"command": f"ls {SECRET}"})
    await s.agent.decide([ApprovalDecision(first.tool_call_id, True), edited])
    assert ran == [f"grep {SECRET}", f"ls {SECRET}"]
    assert SECRET not in visible(s)


async def test_a_plan_is_stored_masked() -> None:
    steps = [{"step": f"use {SECRET}", "status": "pending"}]
    s = stage(calls(("plan", {"plan": steps})), *[says("done")] * 5, tools=(plan_tool(),), secrets=(SECRET,))
    await s.agent.run_turn("go")
    assert s.data("plan_update")[0]["plan"][0]["step"] == "use [REDACTED]"
    assert SECRET not in visible(s)


# Files that were read with masks in them.


def files(tmp_path: Path, *wanted: tuple[str, dict[str, Any]]) -> Stage:
    redactor = Redactor((SECRET, OTHER))
    tools = workspace_tools(LocalWorkspace(tmp_path), redactor)
    return stage(*map(calls, wanted), says("done"), tools=tools, secrets=(SECRET, OTHER))


async def test_a_file_that_was_read_masked_can_be_edited(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(f"A={SECRET}\r\nB={OTHER}\r\nC=1\r\n".encode())
    s = files(
        tmp_path,
        ("read", {"path": "env"}),
        ("edit", {"path": "env", "old": "A=[REDACTED]\nB=[REDACTED]", "new": "B=[REDACTED]\nX=2\nA=[REDACTED]"}),
        ("edit", {"path": "env", "old": "=[REDACTED]\r\n", "new": "=[REDACTED] # key\r\n"}),
        ("edit", {"path": "env", "old": "=[REDACTED]", "new": " = [REDACTED]", "replace_all": True}),
        ("edit", {"path": "env", "old": "D=[REDACTED]", "new": "D=1"}),
    )
    await s.agent.run_turn("go")
    assert (tmp_path / "env").read_bytes() == f"B = {OTHER}\r\nX=2\r\nA = {SECRET}\r\nC=1\r\n".encode()
    assert "A=[REDACTED]" in results(s)[0]
    assert "occurs 2 times" in results(s)[2]
    assert "does not occur in env" in results(s)[4]
    assert SECRET not in visible(s)


async def test_a_file_that_was_read_masked_can_be_written_back(tmp_path: Path) -> None:
    (tmp_path / "env").write_text(f"A={SECRET}\nB={OTHER}\n")
    s = files(
        tmp_path,
        ("write", {"path": "env", "content": "# two keys\nB=[REDACTED]\nA=[REDACTED]\n"}),
        ("write", {"path": "env", "content": "C=[REDACTED]\n"}),
        ("write", {"path": "doc", "content": "shown as [REDACTED]\n"}),
        ("edit", {"path": "doc", "old": "as [REDACTED]", "new": "as “[REDACTED]”"}),
    )
    await s.agent.run_turn("go")
    assert (tmp_path / "env").read_text() == f"# two keys\nB={OTHER}\nA={SECRET}\n"
    assert "env was not changed: [REDACTED] stands for one of 2 hidden values" in results(s)[1]
    assert (tmp_path / "doc").read_text() == "shown as “[REDACTED]”\n"
