"""The model's half of a turn: one answer, asked for until it is whole or there is no hope."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any, TypeVar

from agent.config import AgentConfig
from agent.loop.calls import MALFORMED, call_ids, masked, own_arguments, usable_calls, with_advice
from agent.loop.compaction import context_tokens, total_tokens
from agent.loop.draft import Draft
from agent.loop.interrupt import Interrupted
from agent.loop.run_context import RunContext, TurnFailed
from agent.loop.silence import Silence
from agent.messages import Message, Usage, text_tokens
from agent.model.answer import Answer, ModelChunk
from agent.model.failure import ModelError, ModelUnavailableError, NoAnswerError, WithheldError, cut
from agent.model.waiting import Tries
from agent.tools.router import ToolRouter

T = TypeVar("T")

INTERRUPTED = "[interrupted by the user]"
WITHHELD = "[the rest was withheld by the provider's content filter]"
UNPRICED = (
    "The model {} has no known price, so its calls count as free: the budget of ${:.2f} limits only tools with a price. To "
    "limit the model, set a budget of tokens."
)
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

        An answer that reaches the limit for one answer is continued. Raises ModelError when the model cannot be had or gives
        no answer, TurnFailed when the budget is used up.
        """
        draft = Draft(self._run.redactor)
        while True:
            part = await self._persist(lambda: self._stream_part(draft))
            answer = draft.with_part(part)
            if not draft.continues(answer):
                return await self._accept(draft, answer)

    async def complete(self, messages: Sequence[Message]) -> str:
        """An answer in words to other messages, outside of the conversation; its cost is counted all the same.

        Raises NoAnswerError when each try ends with something else: nothing, a part, or a call.
        """
        return await self._persist(lambda: self._complete(messages))

    async def context_window(self) -> int | None:
        """Tokens that a request can have, None when nobody knows: the least of what is set or tabled, and what was refused."""
        window = self._config.context_window
        if window is None:
            window = await self._run.interruptible(self._run.model.context_window())
        return min((known for known in (window, self._run.shown_window) if known is not None), default=None)

    def overhead(self) -> int:
        """An estimate of the tokens in a request that are not the conversation's."""
        return text_tokens(self._system()) + text_tokens(json.dumps(self._definitions()))

    # -- trying ----------------------------------------------------------------------------------------------------

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it works, or until the failure's class says that it will not."""
        tries = Tries(self._config.patience)
        while True:
            problem = self._config.budget.exhausted_by(self._run.usage)
            if problem is not None:
                raise TurnFailed("budget", problem)
            try:
                return await attempt()
            except ModelError as error:
                now = asyncio.get_running_loop().time()
                wait = tries.next_wait(error, now, random.random())  # noqa: S311 - it spreads load, and is no secret
                if wait is None:
                    error.args = (f"{error}{tries.summary(now)}",)
                    raise
                reason = cut(self._run.redactor.text(str(error)))
                await self._run.emit(
                    "processing", status="retrying", attempt=tries.count + 1, wait_seconds=round(wait, 3), reason=reason
                )
                await self._run.interruptible(asyncio.sleep(wait))

    async def _collect(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], answer: Answer
    ) -> AsyncGenerator[ModelChunk, None]:
        """Ask the model once, and collect its answer while it comes. Raises ModelError, also for a silence that is too long."""
        patience = self._config.patience
        stream = self._run.model.stream(messages, tools)
        try:
            async with Silence(patience.notice, patience.silence, self._report_silence) as silence:
                while (chunk := await self._run.interruptible(_next(stream), silence.over)) is not None:
                    if chunk.has_content:
                        silence.heard()
                    answer.add(chunk)
                    yield chunk
        except TimeoutError:
            message = f"The model {self._run.model.name} has sent no content for {patience.silence:g} s."
            raise ModelUnavailableError(message) from None
        finally:
            await _close(stream)

    async def _report_silence(self, seconds: float) -> None:
        await self._run.emit("processing", status="waiting", seconds=round(seconds, 1))

    async def _stream_part(self, draft: Draft) -> Answer:
        """The whole answer, or its next part where the last one reached the limit for one answer."""
        system = Message("system", self._system())
        messages = (system, *self._run.conversation.messages, *draft.request_tail())
        part = Answer()
        try:
            await self._show(draft, draft.again())
            async with aclosing(self._collect(messages, self._definitions(), part)) as chunks:
                async for chunk in chunks:
                    await self._show(draft, draft.shown.feed(chunk.text))
            part.check()
        except Interrupted:
            self._count(part, self._request_tokens())
            self._keep(draft.with_part(part).text, INTERRUPTED)
            raise
        except ModelError as error:
            if part.begun:
                self._count(part, self._request_tokens())
            if isinstance(error, WithheldError):
                self._keep(draft.with_part(part).text, WITHHELD)
            elif draft.with_part(part).text:
                await self._run.emit("assistant_chunk", message_id=draft.message_id, superseded=True)
                draft.supersede()
            raise
        self._count(part, self._request_tokens())
        await self._report_missing_price()
        return part

    async def _complete(self, messages: Sequence[Message]) -> str:
        answer = Answer()
        try:
            async with aclosing(self._collect(messages, (), answer)) as chunks:
                async for _ in chunks:
                    pass
        finally:
            if answer.begun:
                self._count(answer, total_tokens(messages))
        await self._run.emit("usage", **asdict(self._run.usage))
        if problem := answer.unusable_as_text():
            raise NoAnswerError(f"The model gave no usable text: {problem}.")
        return self._run.redactor.text(answer.text)

    def _definitions(self) -> list[dict[str, Any]]:
        return [tool.definition() for tool in self._tools.tools]

    # -- taking the answer -----------------------------------------------------------------------------------------

    async def _accept(self, draft: Draft, answer: Answer) -> Message:
        """Take a whole answer into the conversation."""
        await self._show(draft, draft.shown.flush())
        message = self._take(answer)
        if message.content:
            await self._run.emit("assistant_message", message_id=draft.message_id, text=message.content)
        await self._run.emit("usage", **asdict(self._run.usage))
        return message

    def _take(self, answer: Answer) -> Message:
        run = self._run
        wanted = [masked(call, run.redactor) for call in answer.tool_calls]
        if run.parent is not None:
            # Events and decisions name a call by its id alone, so it must differ from those of all other agents.
            wanted = [replace(call, id="") for call in wanted]
        calls, problems = usable_calls(wanted, call_ids(run.conversation.messages), _new_call_id)
        own = ((call.id, own_arguments(said, run.redactor)) for call, said in zip(calls, answer.tool_calls, strict=True))
        masked_calls = {call_id: arguments for call_id, arguments in own if arguments is not None}
        run.own_arguments.update(masked_calls)
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
        cut_off = ""
        if answer.finish_reason == "length":
            cut_off = CUT_OFF
            if calls and not answer.tool_calls[-1].arguments.strip():
                problems.setdefault(calls[-1].id, f"{MALFORMED}: they are missing.")
        unusable = {c.id: with_advice(problems[c.id], before, c) + cut_off for c in calls if c.id in problems}
        run.conversation = replace(conversation, unusable=unusable, masked=tuple(masked_calls))
        return message

    def _keep(self, text: str, mark: str) -> None:
        """What was shown of an answer that ended early stays in the conversation, marked as what it is."""
        redactor = self._run.redactor
        if shown := redactor.text(text[: redactor.safe_length(text)]):
            message = Message("assistant", f"{shown}\n{mark}")
            self._run.conversation = self._run.conversation.with_message(message)

    def _count(self, answer: Answer, request_tokens: int) -> None:
        """Count what an answer used: by the provider's count, and by an estimate where it gave none, or where the answer broke
        off, because a count on the way is behind what was written."""
        used = answer.usage
        written = text_tokens(answer.written) if answer.written else 0
        output = used.output_tokens or written if answer.finish_reason else max(used.output_tokens, written)
        counted = replace(used, input_tokens=used.input_tokens or request_tokens, output_tokens=output)
        if counted != used:
            counted = replace(counted, cost_usd=max(used.cost_usd, self._run.model.cost_usd(counted)))
        self._run.count(replace(counted, llm_calls=1))

    async def _report_missing_price(self) -> None:
        """Tell the person, once, that a budget in dollars does not limit this model. Only after an answer of it."""
        model, budget = self._run.model, self._config.budget
        if budget.cost_usd is None or budget.tokens is not None or model.name in self._run.unpriced:
            return
        if not model.cost_usd(Usage(input_tokens=10**6, output_tokens=10**6)):
            self._run.unpriced.add(model.name)
            await self._run.emit("processing", status="notice", reason=UNPRICED.format(model.name, budget.cost_usd))

    def _request_tokens(self) -> int:
        """An estimate of the tokens of the request that is under way."""
        return context_tokens(self._run.conversation, self.overhead())

    async def _show(self, draft: Draft, text: str) -> None:
        if text:
            await self._run.emit("assistant_chunk", message_id=draft.message_id, text=text)


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
