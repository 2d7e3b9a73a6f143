"""The agent of a session: takes what a person says and decides, and ends each turn with one event and a valid state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from agent.approval import ApprovalDecision
from agent.config import AgentConfig
from agent.conversation import BegunCall, Conversation, PendingApproval
from agent.events import Emit, EventType, tool_output
from agent.loop.interrupt import Interrupted, InterruptSignal
from agent.loop.model_step import INTERRUPTED
from agent.loop.questions import Questions
from agent.loop.run_context import ConsentNeeded, RunContext, TurnFailed
from agent.loop.subagents import SubAgents
from agent.loop.turn import Turn
from agent.messages import Message, Usage
from agent.model.failure import ModelError, cut
from agent.model.model import Model
from agent.prompt import system_prompt
from agent.question import OpenQuestion, QuestionAnswer
from agent.redaction import MASK, Redactor, UnclearMask, without_surrogates
from agent.tools.router import ToolRouter

logger = logging.getLogger(__name__)

CUT_OFF = "[not finished: the agent was stopped; whether the call had any effect is unknown]"
ABANDONED = "[not done: the person did not decide about it and said something else]"
UNDONE = "[taken back by the person]"
IN_FLIGHT = "[no result: the agent was restarted while this call was under way; find out what it has done before you repeat it]"

MAX_MESSAGE = 4_000
"""Characters of an error's message."""


@dataclass(frozen=True)
class TurnOutcome:
    """How a turn ended. `message` is the model's last words, or what went wrong."""

    status: Literal["complete", "interrupted", "error", "awaiting_approval"]
    message: str | None = None


class Agent:
    """One session's agent. Its methods run one at a time; `interrupt` and `answer` may be called while another one runs.

    The conversation is changed before the event that reports it is emitted, so that the caller who stores
    `agent.conversation` inside `emit` stores exactly what the events so far have told. A conversation stored that way
    can be given to a new agent after a crash, at any point: `resume` continues the turn that was cut off.
    Cancelling a method is like a crash: no event reports it, and the turn can be resumed.
    """

    def __init__(
        self,
        config: AgentConfig,
        model: Model,
        tools: ToolRouter,
        emit: Emit,
        conversation: Conversation | None = None,
    ) -> None:
        redactor = Redactor((*config.secrets, *([config.api_key] if config.api_key else [])))
        questions = Questions(config.somebody_answers)
        self._run = RunContext(conversation or Conversation(), emit, redactor, model, questions)

        def system() -> str:
            problems = [redactor.text(problem) for problem in tools.problems]
            return system_prompt(config.instructions, tools=bool(tools.tools), problems=problems)

        self._turn = Turn(self._run, config, tools, system, SubAgents(self._run, config, tools))
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
    def questions(self) -> tuple[OpenQuestion, ...]:
        """What tools' servers ask the person in the calls that run now."""
        return self._run.questions.open

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
        return self._run.model

    @model.setter
    def model(self, model: Model) -> None:
        self._run.model = model

    async def run_turn(self, text: str) -> TurnOutcome:
        """Work on what the user said until the model has nothing more to do. Never raises but for a cancellation.

        Calls that wait for approval are abandoned: the user has said something else instead.
        """

        async def turn() -> TurnOutcome:
            said = self._run.redactor.text(text)
            begun, result = self.conversation.begun_calls, ABANDONED if self.pending_approvals else CUT_OFF
            self._run.own_arguments.clear()
            self._run.conversation = self.conversation.closed(result).with_said(said)
            await self._tell_end(begun, result)
            await self._run.emit("processing", status="started", text=said)
            return await self._go_on()

        return await self._guarded(turn)

    async def decide(self, decisions: Sequence[ApprovalDecision]) -> TurnOutcome:
        """Go on with a turn that waits for approval. A pending call without a decision is denied."""

        async def turn() -> TurnOutcome:
            if not self.pending_approvals:
                raise TurnFailed("nothing_pending", "no call waits for approval")
            self._run.conversation = self._decided(decisions)
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
            for begun in self.conversation.begun_calls:
                if begun.call.id not in self.conversation.subagents:  # a sub-agent continues, too
                    self._run.conversation = self.conversation.with_result_of(begun, IN_FLIGHT)
                    await self._tell_end((begun,), IN_FLIGHT)
            await self._run.emit("processing", status="resumed")
            return await self._go_on()

        return await self._guarded(turn)

    async def abandon(self, reason: str) -> None:
        """End a turn that waits for approval, with no answer of the model."""
        async with self._busy:
            if self.pending_approvals:
                begun, result = self.conversation.begun_calls, f"[not done: {reason}]"
                self._run.conversation = self.conversation.closed(result)
                await self._tell_end(begun, result)
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
            await self._tell_end(before.begun_calls, UNDONE)
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
            await self._turn.compact()
            return TurnOutcome("complete")

        return await self._guarded(turn)

    def interrupt(self) -> bool:
        """End what is being worked on, within 100 ms. False when that is nothing."""
        if self._run.signal is None:
            return False
        self._run.signal.set()
        return True

    async def answer(self, question_id: str, answer: QuestionAnswer) -> bool:
        """Answer a question; the call that asked continues. False when it is not open. Raises ValueError for an answer that
        does not fit. May be called while a turn runs.
        """
        question = self._run.questions.settle(question_id, answer)
        if question is None:
            return False
        parent = {} if question.parent is None else {"parent": question.parent}
        closed = {"question_id": question.id, "tool_call_id": question.tool_call_id, "action": answer.action}
        await self._run.emit("question_closed", **closed, **parent)
        return True

    # -- one turn --------------------------------------------------------------------------------------------------

    async def _guarded(self, turn: Callable[[], Awaitable[TurnOutcome]]) -> TurnOutcome:
        """Run a turn so that it ends with one event and a valid conversation, no matter what happens in it."""
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
                self._run.questions.dismiss()

    def _decided(self, decisions: Sequence[ApprovalDecision]) -> Conversation:
        """The conversation with these decisions, masked as everything that a person says. Arguments that a person gives are run
        as they are; a mask in them stands for what it hid in the model's."""
        redactor, own = self._run.redactor, self._run.own_arguments
        conversation = self.conversation.with_decisions(ApprovalDecision(**redactor.value(asdict(d))) for d in decisions)
        given = {decision.tool_call_id: decision.arguments for decision in decisions}
        for asked in self.pending_approvals:
            arguments = without_surrogates(given.get(asked.tool_call_id))
            if arguments is None:
                continue
            before = own.pop(asked.tool_call_id, None)
            lost = before is None and conversation.is_masked(asked)
            with contextlib.suppress(UnclearMask):
                arguments = redactor.restored(arguments, before)
            masked = redactor.value(arguments) != arguments
            if masked:
                own[asked.tool_call_id] = arguments
            conversation = conversation.with_masked(asked, masked or (lost and MASK in json.dumps(arguments)))
        return conversation

    async def _go_on(self) -> TurnOutcome:
        try:
            return await self._complete(await self._turn.go_on())
        except ConsentNeeded as question:
            return await self._ask(question.pending)

    async def _ask(self, pending: tuple[PendingApproval, ...]) -> TurnOutcome:
        self._run.conversation = replace(self.conversation, pending=pending)
        await self._run.emit("approval_required", approvals=[asdict(p) for p in pending])
        return TurnOutcome("awaiting_approval")

    async def _complete(self, answer: Message) -> TurnOutcome:
        self._run.conversation = self.conversation.closed("")
        await self._run.emit("turn_complete", message=answer.content or None)
        return TurnOutcome("complete", answer.content or None)

    async def _fail(self, kind: str, message: str) -> TurnOutcome:
        message = cut(self._run.redactor.text(message), MAX_MESSAGE)
        await self._cut_short(CUT_OFF, "error", kind=kind, message=message)
        return TurnOutcome("error", message)

    async def _cut_short(self, result: str, event: EventType, **data: object) -> None:
        """End a turn early, with `result` for every open call. Never raises: there is nobody left to tell."""
        begun = self.conversation.begun_calls
        self._run.conversation = self.conversation.closed(result)
        try:
            await self._tell_end(begun, result)
            await self._run.emit(event, **data)
        except Exception:
            logger.exception("the event %s could not be emitted", event)

    async def _tell_end(self, calls: Iterable[BegunCall], result: str) -> None:
        """Emit a tool_output for each abandoned call."""
        for call, parent in calls:
            await self._run.emit("tool_output", **tool_output(call, result, False, parent))
