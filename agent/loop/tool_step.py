"""The tools' half of a turn: every call gets a result, unless a person has to be asked first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Protocol

from agent.approval import Verdict, denial, judge, refusal, within_cap
from agent.config import AgentConfig
from agent.conversation import Conversation, PendingApproval
from agent.events import tool_output
from agent.loop.calls import parse
from agent.loop.images import shown, with_room
from agent.loop.interrupt import GRACE, Interrupted, retrieve
from agent.loop.run_context import ConsentNeeded, RunContext
from agent.messages import ToolCall, Usage
from agent.plan import PLAN_TOOL
from agent.tools.router import ToolRouter, argument_problem
from agent.tools.tool import ToolResult, cut_output

LOST = (
    "The agent was restarted before this call ran. Its arguments held a credential, which is never stored, so the call was not "
    "run. Call again if it is still needed."
)

MAX_PARALLEL = 8
"""Calls that run at the same time, at most."""


@dataclass(frozen=True)
class _Prepared:
    """An open call, looked at before it is run."""

    call: ToolCall
    arguments: dict[str, Any]
    """As the model wrote them, or a person changed them: nothing in them is masked."""
    verdict: Verdict
    price: float | None = None
    read_only: bool = False
    note: str = ""
    """For the model, before the output."""
    delegate: Delegate | None = None
    """Works on it, instead of the tool itself."""

    @property
    def denied(self) -> bool:
        return self.verdict.action == "deny"


class Delegate(Protocol):
    """Has calls worked on by sub-agents."""

    def takes(self, tool: str) -> bool: ...

    def begin(self, arguments: Mapping[str, Any]) -> Conversation: ...

    async def work(self, call_id: str) -> ToolResult: ...


class ToolStep:
    """Runs the open calls of the conversation."""

    def __init__(self, run: RunContext, config: AgentConfig, tools: ToolRouter, delegate: Delegate | None = None) -> None:
        self._run = run
        self._config = config
        self._tools = tools
        self._delegate = delegate
        self._cap = config.auto_approve_usd
        if self._cap is not None and config.budget.cost_usd is not None:
            self._cap = min(self._cap, config.budget.cost_usd)  # only a person may overrun the budget

    async def run_calls(self) -> None:
        """Run the open calls in order; neighbours that only read run at the same time, up to `MAX_PARALLEL` of them.

        Stops before the first call that needs a person's consent, or behind one whose sub-agent does, so that nothing
        overtakes the question, and raises ConsentNeeded with all calls that need it.
        """
        prepared = {call.id: self._prepare(call) for call in self._run.conversation.open_calls}
        while calls := [prepared[call.id] for call in self._run.conversation.open_calls]:
            if self._must_ask(calls[0]):
                raise ConsentNeeded(self._questions(calls))
            together = list(takewhile(self._can_run_beside_others, calls[:MAX_PARALLEL]))
            waiting = await self._run_batch(together or calls[:1])
            if waiting:
                raise ConsentNeeded((*waiting, *self._questions(calls)))

    def _prepare(self, call: ToolCall) -> _Prepared:
        tool, decision = self._tools.get(call.name), self._run.conversation.decision_about(call.id)
        arguments, note = parse(call), ""
        if decision is not None and decision.arguments is not None:
            arguments = decision.arguments
            note = f"[A person changed the arguments to {json.dumps(arguments, ensure_ascii=False)}]\n"
        arguments = self._run.own_arguments.get(call.id, arguments)
        if call.id in self._run.conversation.unusable:
            return _Prepared(call, arguments, Verdict("deny", self._run.conversation.unusable[call.id]))
        if decision is not None and not decision.approved:
            return _Prepared(call, arguments, Verdict("deny", denial(decision.feedback)))
        if call.id in self._run.conversation.masked and call.id not in self._run.own_arguments:
            return _Prepared(call, arguments, Verdict("deny", LOST))
        if tool is None or argument_problem(tool, arguments) is not None:
            # Nobody needs to be asked about what the router will refuse.
            return _Prepared(call, arguments, Verdict("allow"), note=note)
        verdict = judge(self._config.rules, call.name, arguments, tool.needs_consent)
        if verdict.action == "deny":
            verdict = replace(verdict, reason=refusal(verdict.reason))
        elif decision is not None or call.id in self._run.conversation.subagents:
            verdict = Verdict("allow")
        delegate = self._delegate if self._delegate is not None and self._delegate.takes(call.name) else None
        return _Prepared(call, arguments, verdict, tool.price(arguments), tool.read_only, note, delegate)

    def _must_ask(self, prepared: _Prepared) -> bool:
        return prepared.verdict.action == "ask" and not within_cap(prepared.price, self._run.usage.spent_usd, self._cap)

    def _can_run_beside_others(self, prepared: _Prepared) -> bool:
        """A call with a price runs alone, so that what it costs is counted before another one is judged by it."""
        return prepared.read_only and prepared.verdict.action == "allow" and prepared.price is None

    def _questions(self, calls: Sequence[_Prepared]) -> tuple[PendingApproval, ...]:
        return tuple(
            PendingApproval(
                p.call.id,
                p.call.name,
                self._run.redactor.value(p.arguments),
                self._run.redactor.text(p.verdict.reason),
                self._run.parent,
            )
            for p in calls
            if self._must_ask(p)
        )

    async def _run_batch(self, calls: Sequence[_Prepared]) -> list[PendingApproval]:
        """Run calls at the same time; returns the calls of their sub-agents that need consent."""
        running: dict[asyncio.Task[ToolResult], _Prepared] = {}
        waiting: list[PendingApproval] = []
        try:
            for prepared in calls:
                await self._begin(prepared)
                if prepared.denied:
                    await self._finish(prepared, ToolResult(prepared.verdict.reason, False))
                else:
                    task = asyncio.create_task(self._call(prepared))
                    task.add_done_callback(retrieve)
                    running[task] = prepared
            while running:
                done, _ = await self._run.interruptible(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                for task in [task for task in running if task in done]:  # those that ended together, in order
                    prepared = running.pop(task)
                    try:
                        result = task.result()
                    except ConsentNeeded as question:
                        waiting.extend(question.pending)
                        continue
                    except asyncio.CancelledError:  # not ours: that would come out of the wait above
                        result = ToolResult(f"{prepared.call.name} failed: it was cancelled, and nobody asked for that.", False)
                    await self._finish(prepared, result)
        except Interrupted:
            await _cancel(running)
            for task, prepared in running.items():
                if task.done() and not task.cancelled() and task.exception() is None:  # what it has so far
                    await self._finish(prepared, task.result())
            raise
        except BaseException:
            await _cancel(running)
            raise
        return waiting

    async def _begin(self, prepared: _Prepared) -> None:
        call, arguments = prepared.call, self._run.redactor.value(prepared.arguments)
        if call.id in self._run.conversation.subagents:
            return  # it continues
        if prepared.price is not None and not prepared.denied:
            # Now, and not when it has ended: what a call has cost that is cut off, nobody knows.
            self._run.count(Usage(tool_cost_usd=prepared.price))
        conversation = self._run.conversation.with_started(call.id)
        if prepared.delegate is not None and not prepared.denied:
            conversation = conversation.with_subagent(call.id, prepared.delegate.begin(arguments))
        self._run.conversation = conversation
        await self._run.emit("tool_call", tool_call_id=call.id, tool=call.name, arguments=arguments)

    async def _call(self, prepared: _Prepared) -> ToolResult:
        call = prepared.call
        if prepared.delegate is not None:
            result = await prepared.delegate.work(call.id)
        else:
            run = self._run
            ask = run.questions.of_call(run, call.id, call.name, lambda: run.redactor.value(prepared.arguments))
            result = await self._tools.call(call.name, prepared.arguments, ask)
        return replace(result, output=prepared.note + result.output)

    async def _finish(self, prepared: _Prepared, result: ToolResult) -> None:
        call = prepared.call
        # Masked before it is cut: the cut could go through a secret and leave a part of it.
        output = cut_output(self._run.redactor.text(result.output))
        takes_images = bool(result.images) and await self._run.takes_images()
        output, images = shown(output, result.images, takes_images)
        conversation = with_room(self._run.conversation.with_result(call.id, output, images))
        planned = call.name == PLAN_TOOL and result.success
        if planned:
            conversation = replace(conversation, plan=tuple(self._run.redactor.value(prepared.arguments["plan"])))
        self._run.conversation = conversation
        self._run.own_arguments.pop(call.id, None)
        self._run.count(Usage(tool_calls=int(not prepared.denied)))
        await self._run.emit("tool_output", **tool_output(call, output, result.success))
        if planned:
            await self._run.emit("plan_update", plan=list(conversation.plan))


async def _cancel(tasks: Collection[asyncio.Task[ToolResult]]) -> None:
    """Cancel calls, and give them the time to clean up that an interrupt has."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=GRACE)
