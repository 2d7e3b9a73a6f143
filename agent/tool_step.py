"""The tools' half of a turn: every call gets a result, unless a person has to be asked first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from agent.approval import ApprovalDecision, Rule, Verdict, denial, judge, refusal
from agent.calls import parse
from agent.conversation import PendingApproval
from agent.interrupt import GRACE
from agent.messages import ToolCall, Usage
from agent.model_step import tell_call, tell_result
from agent.plan import PLAN_TOOL
from agent.run_context import RunContext
from agent.tools.router import ToolRouter
from agent.tools.tool import ToolResult, cut_output


class ToolStep:
    """Runs the open calls of the conversation."""

    def __init__(self, run: RunContext, tools: ToolRouter, rules: Sequence[Rule]) -> None:
        self._run = run
        self._tools = tools
        self._rules = tuple(rules)

    async def run_calls(self, decisions: Mapping[str, ApprovalDecision] | None = None) -> bool:
        """Run the open calls in order; neighbours that only read run at the same time.

        Stops before the first call that needs a person's consent, so that nothing overtakes the question, and then
        returns False: all calls that need consent are pending. `decisions` are those of the last time.
        """
        decisions = decisions or {}
        verdicts = {call.id: self._verdict(call, decisions) for call in self._run.conversation.open_calls}
        batches = groupby(enumerate(self._run.conversation.open_calls), lambda item: self._batch(item[0], item[1], verdicts))
        for _, items in batches:
            batch = [call for _, call in items]
            if verdicts[batch[0].id].action == "ask":
                await self._ask(verdicts)
                return False
            await self._run_batch(batch, verdicts, decisions)
        return True

    def _verdict(self, call: ToolCall, decisions: Mapping[str, ApprovalDecision]) -> Verdict:
        decision = decisions.get(call.id)
        if decision is not None:
            return Verdict("allow") if decision.approved else Verdict("deny", denial(decision.feedback))
        verdict = judge(self._rules, call.name, self._tools.get(call.name), parse(call))
        return replace(verdict, reason=refusal(verdict.reason)) if verdict.action == "deny" else verdict

    def _batch(self, at: int, call: ToolCall, verdicts: Mapping[str, Verdict]) -> int:
        """The same for neighbours that may run at the same time; its own for every other call."""
        tool = self._tools.get(call.name)
        return -1 if tool is not None and tool.read_only and verdicts[call.id].action == "allow" else at

    async def _ask(self, verdicts: Mapping[str, Verdict]) -> None:
        pending = tuple(
            PendingApproval(call.id, call.name, parse(call), verdicts[call.id].reason)
            for call in self._run.conversation.open_calls
            if verdicts[call.id].action == "ask"
        )
        self._run.conversation = replace(self._run.conversation, pending=pending)
        approvals = [
            {"tool_call_id": p.tool_call_id, "tool": p.tool, "arguments": p.arguments, "reason": p.reason} for p in pending
        ]
        await self._run.emit("approval_required", approvals=approvals)

    async def _run_batch(
        self, calls: Sequence[ToolCall], verdicts: Mapping[str, Verdict], decisions: Mapping[str, ApprovalDecision]
    ) -> None:
        running: dict[asyncio.Task[ToolResult], ToolCall] = {}
        try:
            for call in calls:
                arguments, note = _arguments(call, decisions.get(call.id))
                self._run.conversation = self._run.conversation.with_started(call.id)
                await tell_call(self._run, call, arguments)
                if verdicts[call.id].action == "deny":
                    await self._finish(call, ToolResult(verdicts[call.id].reason, False), ran=False)
                else:
                    running[asyncio.create_task(self._call(call.name, arguments, note))] = call
            while running:
                done, _ = await self._run.interruptible(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                for task in [task for task in running if task in done]:  # those that ended together, in order
                    await self._finish(running.pop(task), task.result())
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=GRACE)

    async def _call(self, name: str, arguments: dict[str, Any], note: str) -> ToolResult:
        result = await self._tools.call(name, arguments)
        return replace(result, output=note + result.output)

    async def _finish(self, call: ToolCall, result: ToolResult, ran: bool = True) -> None:
        # Masked before it is cut: the cut could go through a secret and leave a part of it.
        result = replace(result, output=cut_output(self._run.redactor.text(result.output)))
        conversation = self._run.conversation.with_result(call.id, result.output)
        usage = conversation.usage + Usage(tool_calls=int(ran))
        self._run.conversation = replace(conversation, usage=usage)
        await tell_result(self._run, call, result)
        if call.name == PLAN_TOOL and result.success:
            self._run.conversation = replace(self._run.conversation, plan=tuple(parse(call)["plan"]))
            await self._run.emit("plan_update", plan=list(self._run.conversation.plan))


def _arguments(call: ToolCall, decision: ApprovalDecision | None) -> tuple[dict[str, Any], str]:
    """The arguments to run a call with, and what to tell the model when a person has changed them."""
    if decision is None or decision.arguments is None:
        return parse(call), ""
    edited = json.dumps(decision.arguments, ensure_ascii=False)
    return decision.arguments, f"[A person changed the arguments to {edited}]\n"
