"""The agent: messages to the model, its calls to the tools, their results to the model, until it calls nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, Literal, TypeVar

from agent.calls import call_ids, parse, usable_calls, with_advice
from agent.config import AgentConfig
from agent.conversation import Conversation, PendingApproval
from agent.events import Emit, Event, EventType
from agent.interrupt import GRACE, Interrupted, InterruptSignal
from agent.messages import Answer, Message, ModelChunk, ToolCall, Usage
from agent.model import Model
from agent.prompt import system_prompt
from agent.redaction import Redactor
from agent.retry import ModelError, retry_wait
from agent.tools.router import ToolRouter
from agent.tools.tool import ToolResult, cut_output

logger = logging.getLogger(__name__)

T = TypeVar("T")

INTERRUPTED = "[interrupted by the user]"
CUT_OFF = "[not finished: the agent was stopped; whether the call had any effect is unknown]"


@dataclass(frozen=True)
class TurnOutcome:
    """How a turn ended. `message` is the model's last words, or what went wrong."""

    status: Literal["complete", "interrupted", "error", "awaiting_approval"]
    message: str | None = None


class TurnFailed(Exception):
    """Ends the turn with an `error` event."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Agent:
    """One session's agent. Its methods run one at a time; `interrupt` may be called while another one runs.

    The conversation is changed before the event that tells of it is emitted, so that whoever stores
    `agent.conversation` inside `emit` stores exactly what the events so far have told.
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
        self._model = model
        self._tools = tools
        self._emit_event = emit
        self._conversation = conversation or Conversation()
        self._redactor = Redactor((*config.secrets, *([config.api_key] if config.api_key else [])))
        self._busy = asyncio.Lock()
        self._signal: InterruptSignal | None = None

    @property
    def conversation(self) -> Conversation:
        return self._conversation

    @property
    def usage(self) -> Usage:
        return self._conversation.usage

    @property
    def pending_approvals(self) -> tuple[PendingApproval, ...]:
        return self._conversation.pending

    @property
    def last_message(self) -> str | None:
        return self._conversation.last_message

    @property
    def is_processing(self) -> bool:
        """A turn is being worked on right now; False while it waits for approval."""
        return self._signal is not None

    async def run_turn(self, text: str) -> TurnOutcome:
        """Work on what the user said until the model has nothing more to do. Never raises but for a cancellation."""

        async def turn() -> TurnOutcome:
            said = self._redactor.text(text)
            conversation = self._conversation.closed(CUT_OFF)
            self._conversation = replace(conversation.with_message(Message("user", said)), in_turn=True)
            await self._emit("processing", status="started", text=said)
            return await self._iterate()

        return await self._guarded(turn)

    def interrupt(self) -> bool:
        """End the turn that is being worked on, within 100 ms. False when there is none."""
        if self._signal is None:
            return False
        self._signal.set()
        return True

    # -- a turn ----------------------------------------------------------------------------------------------------

    async def _guarded(self, turn: Callable[[], Awaitable[TurnOutcome]]) -> TurnOutcome:
        """Run a turn so that it ends with one event and a valid conversation, whatever happens in it."""
        async with self._busy:
            self._signal = InterruptSignal()
            try:
                return await turn()
            except Interrupted:
                event = Event("interrupted", {"reason": "by the user"})
                return await self._end(TurnOutcome("interrupted"), event, INTERRUPTED)
            except TurnFailed as failure:
                return await self._fail(failure.kind, str(failure))
            except ModelError as error:
                return await self._fail(error.kind, str(error))
            except Exception as error:
                logger.exception("the turn failed")
                return await self._fail("internal", f"{type(error).__name__}: {error}")
            finally:
                self._signal = None

    async def _iterate(self) -> TurnOutcome:
        for _ in range(self._config.max_iterations):
            answer = await self._ask_model()
            if not answer.tool_calls:
                self._conversation = replace(self._conversation, in_turn=False)
                await self._emit("turn_complete", message=answer.content or None)
                return TurnOutcome("complete", answer.content or None)
            await self._run_calls(self._conversation.open_calls)
        limit = self._config.max_iterations
        raise TurnFailed("iteration_limit", f"the turn was ended after {limit} model calls; say “go on” to go on")

    async def undo(self) -> bool:
        """Take back the last thing the user said and all that came of it in the conversation, not in the world.

        False when the user has said nothing yet.
        """
        async with self._busy:
            messages = self._conversation.messages
            at = last_user_message(messages)
            if at is not None:
                self._conversation = replace(self._conversation, messages=messages[:at], pending=(), started=(), in_turn=False)
            removed = 0 if at is None else len(messages) - at
            await self._emit("undo_complete", removed_messages=removed, text=None if at is None else messages[at].content)
            return at is not None

    async def _end(self, outcome: TurnOutcome, event: Event, result: str) -> TurnOutcome:
        """End a turn early, with `result` for every open call. Never raises: there is nobody left to tell."""
        begun = [call for call in self._conversation.open_calls if call.id in self._conversation.started]
        self._conversation = self._conversation.closed(result)
        try:
            for call in begun:
                await self._tell_result(call, ToolResult(result, False))
            await self._emit_event(event)
        except Exception:
            logger.exception("the event %s could not be emitted", event.type)
        return outcome

    async def _fail(self, kind: str, message: str) -> TurnOutcome:
        message = self._redactor.text(message)
        event = Event("error", {"kind": kind, "message": message})
        return await self._end(TurnOutcome("error", message), event, CUT_OFF)

    # -- the model -------------------------------------------------------------------------------------------------

    async def _ask_model(self) -> Message:
        """One answer of the model, tried again as the kind of failure allows; it is added to the conversation."""
        failures = 0
        while True:
            message_id = uuid.uuid4().hex
            try:
                return await self._stream_answer(message_id)
            except ModelError as error:
                failures += 1
                wait = retry_wait(error, failures)
                if wait is None:
                    raise
                reason = self._redactor.text(str(error))
                await self._emit("processing", status="retrying", attempt=failures + 1, wait_seconds=wait, reason=reason)
                await self._interruptible(asyncio.sleep(wait))

    async def _stream_answer(self, message_id: str) -> Message:
        system = Message("system", system_prompt(self._config.instructions))
        messages = (system, *self._conversation.messages)
        stream = self._model.stream(messages, [tool.definition() for tool in self._tools.tools])
        answer, shown = Answer(), self._redactor.stream()
        try:
            while (chunk := await self._interruptible(_next(stream))) is not None:
                answer.add(chunk)
                await self._emit_chunk(message_id, shown.feed(chunk.text))
            await self._emit_chunk(message_id, shown.flush())
        except Interrupted:
            self._keep_partial(answer)
            raise
        except ModelError:
            self._count(answer)
            if answer.text:
                await self._emit("assistant_chunk", message_id=message_id, superseded=True)
            raise
        finally:
            await _close(stream)
        return await self._accept(message_id, answer)

    def _keep_partial(self, answer: Answer) -> None:
        """What was shown before the interrupt stays in the conversation, marked as what it is."""
        self._count(answer)
        if answer.text:
            text = f"{self._redactor.text(answer.text)}\n{INTERRUPTED}"
            self._conversation = self._conversation.with_message(Message("assistant", text))

    def _count(self, answer: Answer) -> None:
        used = replace(answer.usage, llm_calls=1)
        self._conversation = replace(self._conversation, usage=self._conversation.usage + used)

    async def _accept(self, message_id: str, answer: Answer) -> Message:
        """Take a whole answer into the conversation, together with the results of the calls that cannot be run."""
        self._count(answer)
        redacted = [replace(call, arguments=self._redactor.text(call.arguments)) for call in answer.tool_calls]
        calls, problems = usable_calls(redacted, call_ids(self._conversation.messages), _new_call_id)
        message = Message("assistant", self._redactor.text(answer.text), calls)
        refused: list[tuple[ToolCall, ToolResult]] = []
        if message.content or calls:
            before = self._conversation
            self._conversation = before.with_message(message)
            for call in calls:
                if call.id in problems:
                    result = ToolResult(with_advice(problems[call.id], before, call), False)
                    refused.append((call, result))
                    self._conversation = self._conversation.with_result(call.id, result.output)
        if message.content:
            await self._emit("assistant_message", message_id=message_id, text=message.content)
        await self._emit("usage", **asdict(self.usage))
        for call, result in refused:
            await self._tell_call(call)
            await self._tell_result(call, result)
        return message

    # -- the tools -------------------------------------------------------------------------------------------------

    async def _run_calls(self, calls: Sequence[ToolCall]) -> None:
        """Run calls in order; neighbours that only read run at the same time."""
        for read_only, neighbours in groupby(calls, self._is_read_only):
            group = list(neighbours)
            for together in [group] if read_only else [[call] for call in group]:
                await self._run_together(together)

    async def _run_together(self, calls: Sequence[ToolCall]) -> None:
        running: dict[asyncio.Task[ToolResult], ToolCall] = {}
        for call in calls:
            self._conversation = replace(self._conversation, started=(*self._conversation.started, call.id))
            await self._tell_call(call)
        for call in calls:
            running[asyncio.create_task(self._tools.call(call.name, parse(call)))] = call
        try:
            while running:
                done, _ = await self._interruptible(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                for task in [task for task in running if task in done]:  # those that ended together, in order
                    await self._finish(running.pop(task), task.result())
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=GRACE)

    async def _finish(self, call: ToolCall, result: ToolResult) -> None:
        result = replace(result, output=cut_output(self._redactor.text(result.output)))  # in this order: see cut_output
        conversation = self._conversation.with_result(call.id, result.output)
        self._conversation = replace(conversation, usage=conversation.usage + Usage(tool_calls=1))
        await self._tell_result(call, result)

    def _is_read_only(self, call: ToolCall) -> bool:
        tool = self._tools.get(call.name)
        return tool is not None and tool.read_only

    # -- events ----------------------------------------------------------------------------------------------------

    async def _emit(self, event: EventType, **data: object) -> None:
        await self._emit_event(Event(event, data))

    async def _emit_chunk(self, message_id: str, text: str) -> None:
        if text:
            await self._emit("assistant_chunk", message_id=message_id, text=text)

    async def _tell_call(self, call: ToolCall) -> None:
        await self._emit("tool_call", tool_call_id=call.id, tool=call.name, arguments=parse(call))

    async def _tell_result(self, call: ToolCall, result: ToolResult) -> None:
        await self._emit("tool_output", tool_call_id=call.id, tool=call.name, output=result.output, success=result.success)

    async def _interruptible(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._signal is not None  # noqa: S101 - only used inside a turn
        return await self._signal.guard(work)


def last_user_message(messages: Sequence[Message]) -> int | None:
    """Where the last message is that a person wrote."""
    return next((at for at in reversed(range(len(messages))) if _from_person(messages[at])), None)


def _from_person(message: Message) -> bool:
    return message.role == "user" and not message.synthetic


def _new_call_id() -> str:
    return f"call_{uuid.uuid4().hex}"


async def _next(stream: AsyncIterator[ModelChunk]) -> ModelChunk | None:
    return await anext(stream, None)


async def _close(stream: AsyncIterator[ModelChunk]) -> None:
    """End the request behind a stream that was not read to its end."""
    if isinstance(stream, AsyncGenerator):
        # A stream that did not end within the grace time after an interrupt is still running.
        with contextlib.suppress(RuntimeError):
            await stream.aclose()
