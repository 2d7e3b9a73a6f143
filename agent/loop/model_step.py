"""The model's half of a turn: one answer, asked for until it is whole or there is no hope."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from agent.config import AgentConfig
from agent.loop.calls import call_ids, masked, usable_calls, with_advice
from agent.loop.compaction import context_tokens, text_tokens, total_tokens
from agent.loop.interrupt import Interrupted
from agent.loop.run_context import RunContext, TurnFailed
from agent.messages import Message
from agent.model.answer import Answer, ModelChunk
from agent.model.retry import ModelError, NoAnswerError, retry_wait
from agent.tools.router import ToolRouter

T = TypeVar("T")

INTERRUPTED = "[interrupted by the user]"
CUT_OFF = "\nYour answer was cut off: it reached the limit for one answer. Send less at once."


class ModelStep:
    """Asks the model, and takes its answer into the conversation."""

    def __init__(self, run: RunContext, config: AgentConfig, tools: ToolRouter, system: Callable[[], str]) -> None:
        self._run = run
        self._config = config
        self._tools = tools
        self._system = system

    async def answer(self) -> Message:
        """The model's next answer, which is then the conversation's last message.

        Raises ModelError when the model cannot be had, TurnFailed when the budget is used up.
        """
        return await self._persist(self._stream_answer)

    async def complete(self, messages: Sequence[Message]) -> str:
        """An answer in words to other messages, outside of the conversation; its cost is counted all the same.

        Raises NoAnswerError when each try ends with something else: nothing, a part, or a call.
        """
        return await self._persist(lambda: self._complete(messages))

    async def context_window(self) -> int | None:
        """Tokens that the model can take, None when nobody knows."""
        if self._config.context_window is not None:
            return self._config.context_window
        return await self._run.interruptible(self._run.model.context_window())

    def overhead(self) -> int:
        """An estimate of the tokens in a request that are not the conversation's."""
        return text_tokens(self._system()) + text_tokens(json.dumps(self._definitions()))

    # -- trying ----------------------------------------------------------------------------------------------------

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it works, or until the failure's class says that it will not."""
        failures = 0
        while True:
            problem = self._config.budget.exhausted_by(self._run.usage)
            if problem is not None:
                raise TurnFailed("budget", problem)
            try:
                return await attempt()
            except ModelError as error:
                failures += 1
                wait = retry_wait(error, failures)
                if wait is None:
                    raise
                reason = self._run.redactor.text(str(error))
                await self._run.emit("processing", status="retrying", attempt=failures + 1, wait_seconds=wait, reason=reason)
                await self._run.interruptible(asyncio.sleep(wait))

    async def _stream_answer(self) -> Message:
        message_id = uuid.uuid4().hex
        system = Message("system", self._system())
        stream = self._run.model.stream((system, *self._run.conversation.messages), self._definitions())
        answer, shown = Answer(), self._run.redactor.stream()
        try:
            while (chunk := await self._run.interruptible(_next(stream))) is not None:
                answer.add(chunk)
                await self._show(message_id, shown.feed(chunk.text))
            await self._show(message_id, shown.flush())
        except Interrupted:
            self._keep_partial(answer)
            raise
        except ModelError:
            if answer.begun:
                self._count(answer, self._request_tokens())
            if answer.text:
                await self._run.emit("assistant_chunk", message_id=message_id, superseded=True)
            raise
        finally:
            await _close(stream)
        return await self._accept(message_id, answer)

    async def _complete(self, messages: Sequence[Message]) -> str:
        stream = self._run.model.stream(messages, ())
        answer = Answer()
        try:
            while (chunk := await self._run.interruptible(_next(stream))) is not None:
                answer.add(chunk)
        finally:
            await _close(stream)
            if answer.begun:
                self._count(answer, total_tokens(messages))
        await self._run.emit("usage", **asdict(self._run.usage))
        if problem := answer.unusable_as_text():
            raise NoAnswerError(f"The model gave no usable text: {problem}.")
        return self._run.redactor.text(answer.text)

    def _definitions(self) -> list[dict[str, Any]]:
        return [tool.definition() for tool in self._tools.tools]

    # -- taking the answer -----------------------------------------------------------------------------------------

    async def _accept(self, message_id: str, answer: Answer) -> Message:
        """Take a whole answer into the conversation."""
        self._count(answer, self._request_tokens())
        if answer.finish_reason == "content_filter" and not answer.text and not answer.tool_calls:
            raise TurnFailed("content_filter", "the provider's content filter withheld the answer")
        message = self._take(answer)
        if message.content:
            await self._run.emit("assistant_message", message_id=message_id, text=message.content)
        await self._run.emit("usage", **asdict(self._run.usage))
        return message

    def _take(self, answer: Answer) -> Message:
        run = self._run
        wanted = [masked(call, run.redactor) for call in answer.tool_calls]
        if run.parent is not None:
            # Events and decisions name a call by its id alone, so it must differ from those of all other agents.
            wanted = [replace(call, id="") for call in wanted]
        calls, problems = usable_calls(wanted, call_ids(run.conversation.messages), _new_call_id)
        # Anthropic's API refuses blank text when it is sent back.
        message = Message("assistant", run.redactor.text(answer.text) if answer.text.strip() else "", calls)
        if not message.content and not calls:
            return message
        if calls and all(run.redactor.text(thought.text) == thought.text for thought in answer.thoughts):
            # What is signed cannot be masked.
            message = replace(message, thoughts=answer.thoughts)
        before = run.conversation
        conversation = before.with_message(message)
        if answer.usage.input_tokens:
            measured = (len(conversation.messages), answer.usage.input_tokens + answer.usage.output_tokens)
            conversation = replace(conversation, measured=measured)
        cut_off = CUT_OFF if answer.finish_reason == "length" else ""
        unusable = {c.id: with_advice(problems[c.id], before, c) + cut_off for c in calls if c.id in problems}
        run.conversation = replace(conversation, unusable=unusable)
        return message

    def _keep_partial(self, answer: Answer) -> None:
        """What was shown before an interrupt stays in the conversation, marked as what it is."""
        self._count(answer, self._request_tokens())
        redactor = self._run.redactor
        if shown := redactor.text(answer.text[: redactor.safe_length(answer.text)]):
            text = f"{shown}\n{INTERRUPTED}"
            self._run.conversation = self._run.conversation.with_message(Message("assistant", text))

    def _count(self, answer: Answer, request_tokens: int) -> None:
        """Count what an answer used: by the provider's count, and by an estimate where it gave none or the answer broke off."""
        used = answer.usage
        if not used.input_tokens or not used.output_tokens:
            used = replace(
                used,
                input_tokens=used.input_tokens or request_tokens,
                output_tokens=used.output_tokens or (text_tokens(answer.written) if answer.written else 0),
            )
            used = replace(used, cost_usd=used.cost_usd or self._run.model.cost_usd(used))
        self._run.count(replace(used, llm_calls=1))

    def _request_tokens(self) -> int:
        """An estimate of the tokens of the request that is under way."""
        return context_tokens(self._run.conversation, self.overhead())

    async def _show(self, message_id: str, text: str) -> None:
        if text:
            await self._run.emit("assistant_chunk", message_id=message_id, text=text)


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
