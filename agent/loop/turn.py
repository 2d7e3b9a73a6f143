"""A turn: the open calls to the tools, their results to the model, its calls to the tools, until it calls nothing more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.config import AgentConfig
from agent.doom_loop import calls_of_turn, find_loop, warning
from agent.loop.compactor import Compactor
from agent.loop.images import REFUSED, TOO_LONG, may_be_images, with_fewer
from agent.loop.model_step import ModelStep
from agent.loop.run_context import RunContext, TurnFailed
from agent.loop.tool_step import Delegate, ToolStep
from agent.messages import Message
from agent.model.failure import ContextOverflowError, ImagesRefusedError, RequestRefusedError
from agent.plan import continuation
from agent.tools.router import ToolRouter


class Turn:
    """Continues a conversation from any state: an agent's turn with a person, or a sub-agent's whole work."""

    def __init__(
        self,
        run: RunContext,
        config: AgentConfig,
        tools: ToolRouter,
        system: Callable[[], str],
        delegate: Delegate | None = None,
    ) -> None:
        self._run = run
        self._limit = config.max_iterations
        self._model_step = ModelStep(run, config, tools, system)
        self._tool_step = ToolStep(run, config, tools, delegate)
        self._compactor = Compactor(run, self._model_step)

    async def go_on(self) -> Message:
        """The model's last answer of this turn.

        Raises ConsentNeeded, Interrupted, and TurnFailed or ModelError when it cannot come to one.
        """
        while True:
            await self._tool_step.run_calls()
            if self._answered() and not self._continue_plan():
                return self._run.conversation.messages[-1]
            self._warn_of_loop()
            self._count_iteration()
            await self._compactor.make_room()
            answer = await self._answer()
            if not answer.content and not answer.tool_calls:
                return answer

    async def compact(self) -> None:
        """Shorten the conversation. Raises TurnFailed when it gets no shorter."""
        await self._compactor.compact()

    async def _answer(self) -> Message:
        """The model's next answer; what it refuses for its length is shortened first, and again while that helps.

        Images are left out before anything else is: one that a server cannot read would fail every later request.
        """
        before = self._run.conversation.messages
        while True:
            try:
                return await self._model_step.answer()
            except ContextOverflowError as error:
                if self._without_images(TOO_LONG, latest_first=False):
                    continue
                await self._compactor.shorten_refused(error)
                before = self._run.conversation.messages
            except RequestRefusedError as error:
                if isinstance(error, ImagesRefusedError):
                    self._run.without_images.add(self._run.model.name)
                if may_be_images(error.parameter) and self._without_images(REFUSED, latest_first=True):
                    continue
                # Not all servers say that a request was too long. If that was not the reason, nothing is lost.
                if not await self._compactor.may_be_the_length(error):
                    self._run.conversation = replace(self._run.conversation, messages=before, measured=None)
                    raise

    def _without_images(self, note: str, *, latest_first: bool) -> bool:
        """Leave out images; False when there are none."""
        fewer = with_fewer(self._run.conversation, note, latest_first=latest_first)
        if fewer is None:
            return False
        self._run.conversation = fewer
        return True

    def _answered(self) -> bool:
        last = self._run.conversation.messages[-1]
        return last.role == "assistant" and not last.tool_calls

    def _continue_plan(self) -> bool:
        """Send the model back to a plan that it has left unfinished; False when there is none, or enough is enough."""
        conversation = self._run.conversation
        note = continuation(conversation.plan, conversation.continued)
        if note is None:
            return False
        self._run.conversation = replace(conversation.with_note(note), continued=conversation.continued + 1)
        return True

    def _warn_of_loop(self) -> None:
        """Tell the model that it goes in circles: once for each loop, not at each step of it."""
        conversation = self._run.conversation
        loop = find_loop(calls_of_turn(conversation.messages))
        if loop is not None and loop != conversation.loop:
            conversation = conversation.with_note(warning(loop))
        self._run.conversation = replace(conversation, loop=loop)

    def _count_iteration(self) -> None:
        conversation = self._run.conversation
        if conversation.iterations >= self._limit:
            message = f"the turn was ended after {self._limit} model calls; say “continue” to continue"
            raise TurnFailed("iteration_limit", message)
        self._run.conversation = replace(conversation, iterations=conversation.iterations + 1)
