"""The agent: messages to the model, its calls to the tools, their results to the model, until it calls nothing more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agent.approval import ApprovalDecision
from agent.compactor import Compactor
from agent.config import AgentConfig
from agent.conversation import Conversation, PendingApproval
from agent.doom_loop import calls_of_turn, find_loop, warning
from agent.events import Emit, EventType
from agent.interrupt import Interrupted, InterruptSignal
from agent.messages import Message, Usage
from agent.model import Model
from agent.model_step import INTERRUPTED, ModelStep, tell_result
from agent.plan import continuation
from agent.redaction import Redactor
from agent.retry import ContextOverflowError, ModelError
from agent.run_context import ConsentNeeded, RunContext, TurnFailed
from agent.tool_step import ToolStep
from agent.tools.router import ToolRouter
from agent.tools.tool import ToolResult

logger = logging.getLogger(__name__)

CUT_OFF = "[not finished: the agent was stopped; whether the call had any effect is unknown]"
ABANDONED = "[not run: the person did not decide about it and said something else]"
IN_FLIGHT = "[no result: the agent was restarted while this call was under way; find out what it has done before you repeat it]"


@dataclass(frozen=True)
class TurnOutcome:
    """How a turn ended. `message` is the model's last words, or what went wrong."""

    status: Literal["complete", "interrupted", "error", "awaiting_approval"]
    message: str | None = None


class Agent:
    """One session's agent. Its methods run one at a time; `interrupt` may be called while another one runs.

    The conversation is changed before the event that tells of it is emitted, so that whoever stores
    `agent.conversation` inside `emit` stores exactly what the events so far have told. A conversation stored that way
    can be given to a new agent after a crash, at any point: `resume` goes on with the turn that was cut off.
    Cancelling a method is like a crash: no event tells of it, and the turn can be resumed.
    """

    def __init__(
        self,
        config: AgentConfig,
        model: Model,
        tools: ToolRouter,
        emit: Emit,
        conversation: Conversation | None = None,
    ) -> None:
        self._config = config
        redactor = Redactor((*config.secrets, *([config.api_key] if config.api_key else [])))
        self._run = RunContext(conversation or Conversation(), emit, redactor)
        self._model_step = ModelStep(self._run, config, model, tools)
        self._tool_step = ToolStep(self._run, config, tools)
        self._compactor = Compactor(self._run, self._model_step)
        self._busy = asyncio.Lock()

    @property
    def conversation(self) -> Conversation:
        return self._run.conversation

    @property
    def usage(self) -> Usage:
        return self._run.conversation.usage

    @property
    def pending_approvals(self) -> tuple[PendingApproval, ...]:
        return self._run.conversation.pending

    @property
    def last_message(self) -> str | None:
        return self._run.conversation.last_message

    @property
    def is_processing(self) -> bool:
        """Something is being worked on right now; False while a turn waits for approval."""
        return self._run.signal is not None

    @property
    def model(self) -> Model:
        """The model that is asked; it can be changed between turns."""
        return self._model_step.model

    @model.setter
    def model(self, model: Model) -> None:
        self._model_step.model = model

    async def run_turn(self, text: str) -> TurnOutcome:
        """Work on what the user said until the model has nothing more to do. Never raises but for a cancellation.

        Calls that wait for approval are abandoned: the user has said something else instead.
        """

        async def turn() -> TurnOutcome:
            said = self._run.redactor.text(text)
            conversation = self.conversation.closed(ABANDONED if self.pending_approvals else CUT_OFF)
            self._run.conversation = replace(conversation.with_message(Message("user", said)), in_turn=True)
            await self._run.emit("processing", status="started", text=said)
            return await self._go_on()

        return await self._guarded(turn)

    async def decide(self, decisions: Sequence[ApprovalDecision]) -> TurnOutcome:
        """Go on with a turn that waits for approval. A pending call without a decision is denied."""

        async def turn() -> TurnOutcome:
            if not self.pending_approvals:
                raise TurnFailed("nothing_pending", "no call waits for approval")
            self._run.conversation = self.conversation.with_decisions(map(self._masked, decisions))
            await self._run.emit("processing", status="resumed")
            return await self._go_on()

        return await self._guarded(turn)

    async def resume(self) -> TurnOutcome | None:
        """Go on with a turn that was cut off by a crash; None when there is none, or it waits for approval.

        No call is run again that had begun: the model is told that its outcome is unknown.
        """
        if not self.conversation.in_turn or self.pending_approvals:
            return None

        async def turn() -> TurnOutcome:
            for call in self.conversation.open_calls:
                if call.id in self.conversation.started:
                    self._run.conversation = self.conversation.with_result(call.id, IN_FLIGHT)
                    await tell_result(self._run, call, ToolResult(IN_FLIGHT, False))
            await self._run.emit("processing", status="resumed")
            return await self._go_on()

        return await self._guarded(turn)

    async def abandon(self, reason: str) -> None:
        """End a turn that waits for approval, with no answer of the model."""
        async with self._busy:
            if self.pending_approvals:
                self._run.conversation = self.conversation.closed(f"[not run: {reason}]")
                await self._run.emit("interrupted", reason=reason)

    async def undo(self) -> bool:
        """Take back the last thing the user said and all that came of it in the conversation, not in the world.

        False when there is nothing to take back: nothing was said, or it has been compacted away.
        """
        async with self._busy:
            before = self.conversation
            shorter = before.without_last_turn()
            if shorter is None:
                await self._run.emit("undo_complete", removed_messages=0, text=None)
                return False
            self._run.conversation = shorter
            removed = before.messages[len(shorter.messages) :]
            await self._run.emit("undo_complete", removed_messages=len(removed), text=removed[0].content)
            return True

    async def compact(self) -> TurnOutcome:
        """Shorten the conversation now. Not while calls wait for approval: they would be lost."""
        if self.pending_approvals:
            message = "a call waits for approval; decide about it first"
            await self._run.emit("error", kind="compaction", message=message)
            return TurnOutcome("error", message)

        async def turn() -> TurnOutcome:
            await self._compactor.compact()
            return TurnOutcome("complete")

        return await self._guarded(turn)

    def interrupt(self) -> bool:
        """End what is being worked on, within 100 ms. False when that is nothing."""
        if self._run.signal is None:
            return False
        self._run.signal.set()
        return True

    # -- one turn --------------------------------------------------------------------------------------------------

    async def _guarded(self, turn: Callable[[], Awaitable[TurnOutcome]]) -> TurnOutcome:
        """Run a turn so that it ends with one event and a valid conversation, whatever happens in it."""
        async with self._busy:
            self._run.signal = InterruptSignal()
            try:
                return await turn()
            except Interrupted:
                await self._cut_short(INTERRUPTED, "interrupted", reason="by the user")
                return TurnOutcome("interrupted")
            except (TurnFailed, ModelError) as failure:
                return await self._fail(failure.kind, str(failure))
            except Exception as error:
                logger.exception("the turn failed")
                return await self._fail("internal", f"{type(error).__name__}: {error}")
            finally:
                self._run.signal = None

    def _masked(self, decision: ApprovalDecision) -> ApprovalDecision:
        """The decision with every secret in it masked, as in all that a person says."""
        feedback, arguments = map(self._run.redactor.value, (decision.feedback, decision.arguments))
        return replace(decision, feedback=feedback, arguments=arguments)

    async def _go_on(self) -> TurnOutcome:
        """From wherever the conversation is: run the open calls, ask the model, and so on until the turn is over."""
        while True:
            try:
                await self._tool_step.run_calls()
            except ConsentNeeded as question:
                return await self._ask(question.pending)
            if self._answered() and not self._continue_plan():
                return await self._complete(self.conversation.messages[-1])
            self._warn_of_loop()
            self._count_iteration()
            await self._compactor.make_room()
            answer = await self._answer()
            if not answer.content and not answer.tool_calls:
                return await self._complete(answer)

    async def _answer(self) -> Message:
        try:
            return await self._model_step.answer()
        except ContextOverflowError:
            # The window is smaller than the price table says, or unknown. Once: a second overflow is an error.
            await self._compactor.compact()
            return await self._model_step.answer()

    def _answered(self) -> bool:
        last = self.conversation.messages[-1]
        return last.role == "assistant" and not last.tool_calls

    def _continue_plan(self) -> bool:
        """Send the model back to a plan that it has left unfinished; False when there is none, or enough is enough."""
        note = continuation(self.conversation.plan, self.conversation.continued)
        if note is None:
            return False
        self._run.conversation = replace(self.conversation.with_note(note), continued=self.conversation.continued + 1)
        return True

    def _warn_of_loop(self) -> None:
        """Tell the model that it goes in circles: once for each loop, not at each step of it."""
        loop = find_loop(calls_of_turn(self.conversation.messages))
        if loop is not None and loop != self.conversation.loop:
            self._run.conversation = self.conversation.with_note(warning(loop))
        self._run.conversation = replace(self.conversation, loop=loop)

    def _count_iteration(self) -> None:
        limit = self._config.max_iterations
        if self.conversation.iterations >= limit:
            raise TurnFailed("iteration_limit", f"the turn was ended after {limit} model calls; say “go on” to go on")
        self._run.conversation = replace(self.conversation, iterations=self.conversation.iterations + 1)

    async def _ask(self, pending: tuple[PendingApproval, ...]) -> TurnOutcome:
        self._run.conversation = replace(self.conversation, pending=pending)
        approvals = [
            {"tool_call_id": p.tool_call_id, "tool": p.tool, "arguments": p.arguments, "reason": p.reason} for p in pending
        ]
        await self._run.emit("approval_required", approvals=approvals)
        return TurnOutcome("awaiting_approval")

    async def _complete(self, answer: Message) -> TurnOutcome:
        self._run.conversation = self.conversation.closed("")
        await self._run.emit("turn_complete", message=answer.content or None)
        return TurnOutcome("complete", answer.content or None)

    async def _fail(self, kind: str, message: str) -> TurnOutcome:
        message = self._run.redactor.text(message)
        await self._cut_short(CUT_OFF, "error", kind=kind, message=message)
        return TurnOutcome("error", message)

    async def _cut_short(self, result: str, event: EventType, **data: object) -> None:
        """End a turn early, with `result` for every open call. Never raises: there is nobody left to tell."""
        begun = [call for call in self.conversation.open_calls if call.id in self.conversation.started]
        self._run.conversation = self.conversation.closed(result)
        try:
            for call in begun:
                await tell_result(self._run, call, ToolResult(result, False))
            await self._run.emit(event, **data)
        except Exception:
            logger.exception("the event %s could not be emitted", event)
