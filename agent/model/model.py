"""The model behind the loop: what the loop needs of one, and the one that speaks to every provider."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, Protocol

from agent.messages import Message, Usage
from agent.model.answer import ModelChunk, SurrogatePairs, read_chunk
from agent.model.failure import ModelError, ModelUnavailableError, RequestRefusedError, Where
from agent.model.image_parts import Placement, placement, wire, wire_json
from agent.model.litellm_client import classify, client_without_redirects, load_litellm, loaded_litellm
from agent.model.off_loop import off_loop
from agent.model.openai_chat import LINGER, OpenAIChat
from agent.model.prompt_cache import marked, takes_marks
from agent.reasoning import ReasoningEffort, lowered, supported

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT = 600.0
"""Seconds without a byte from the provider; the loop waits less (`Patience`)."""


class Model(Protocol):
    """Something that answers a conversation."""

    @property
    def name(self) -> str: ...

    async def context_window(self) -> int | None:
        """Tokens that a request can have, None when nobody knows."""
        ...

    async def takes_images(self) -> bool:
        """Whether it can be shown the images of tool results."""
        ...

    def cost_usd(self, used: Usage) -> float:
        """The price of these tokens; 0 for a model without a price. Only of an answer whose `stream` has begun."""
        ...

    def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
        """The answer in pieces. `tools` are OpenAI function definitions. Raises `ModelError`, also half way."""
        ...


class LiteLLMModel:
    """A model of any provider that litellm knows, or any model of an OpenAI-compatible server (`base_url`).

    A server of one's own is spoken to directly, and all other providers through litellm, which also knows windows and prices.
    litellm is imported with the first call, in a thread: it takes seconds and 160 MB, which a session that waits for
    its first prompt need not spend, nor the event loop stand still for.

    Where the provider refuses a request, it is sent again with less reasoning effort, level by level, down to none said.
    The level that was taken is kept for later requests; a request that is refused without one, too, had something else
    wrong with it, and changes nothing.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        reasoning_effort: ReasoningEffort | None = None,
        images: bool | None = None,
    ) -> None:
        """`images` says whether the model takes images; None means what the price table says."""
        self._name = name
        self._base_url = base_url
        self._api_key = api_key
        self._effort = reasoning_effort
        self._images = images
        self._where = Where(name, base_url or "")

    @property
    def name(self) -> str:
        return self._name

    async def context_window(self) -> int | None:
        await loaded_litellm()
        window = self._info["max_input_tokens"] if self._info is not None else None
        return int(window) if window else None

    async def takes_images(self) -> bool:
        await loaded_litellm()
        return self._placement != "nowhere"

    def cost_usd(self, used: Usage) -> float:
        with contextlib.suppress(Exception):  # litellm raises for a model that its price table does not have
            prices = load_litellm().cost_per_token(
                model=self._routed_name,
                prompt_tokens=used.input_tokens,
                completion_tokens=used.output_tokens,
                cache_read_input_tokens=used.cached_tokens,
            )
            return float(sum(prices))
        return 0.0

    async def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
        await loaded_litellm()
        effort = self._supported_effort()
        while True:
            answering, pairs = False, SurrogatePairs()
            try:
                chunks = (
                    self._ask_directly(messages, tools, effort)
                    if self._direct
                    else off_loop(partial(self._ask, messages, tools, effort))
                )
                async with contextlib.aclosing(chunks):
                    async for chunk in chunks:
                        answering = True
                        self._effort = effort
                        yield pairs.join(chunk)
                return
            except ModelError as failure:
                if answering or effort is None or not _may_be_the_effort(failure):
                    raise
                logger.warning("%s may not take reasoning effort %s; trying with %s", self._name, effort, lowered(effort))
                effort = lowered(effort)

    # -- a server of one's own -------------------------------------------------------------------------------------

    @cached_property
    def _direct(self) -> OpenAIChat | None:
        """The client for an OpenAI-compatible server; None for the providers that litellm speaks to."""
        provider, _, name = self._routed_name.partition("/")
        base_url = self._base_url or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
        if provider != "openai" or not base_url:
            return None
        # Servers that need no key accept any.
        return OpenAIChat(base_url, name, self._api_key or os.environ.get("OPENAI_API_KEY") or "none")

    async def _ask_directly(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], effort: ReasoningEffort | None
    ) -> AsyncGenerator[ModelChunk, None]:
        assert self._direct is not None  # noqa: S101 - the caller has asked
        body: dict[str, Any] = {
            "model": self._direct.model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if effort is not None and self._takes_effort:
            body["reasoning_effort"] = effort
        if tools:
            body["tools"] = list(tools)
        async with contextlib.aclosing(self._direct.stream(body, wire_json(messages, self._placement))) as chunks:
            async for chunk in chunks:
                yield self._priced(chunk)

    @cached_property
    def _takes_effort(self) -> bool:
        """Whether the model can be told how much to think. A model that litellm does not know is told."""
        with contextlib.suppress(Exception):
            name = self._routed_name.partition("/")[2]
            return "reasoning_effort" in load_litellm().get_supported_openai_params(name, "openai")
        return True

    def _priced(self, chunk: ModelChunk) -> ModelChunk:
        if chunk.usage is None:
            return chunk
        return replace(chunk, usage=replace(chunk.usage, cost_usd=self.cost_usd(chunk.usage)))

    # -- providers that litellm speaks to --------------------------------------------------------------------------

    async def _ask(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], effort: ReasoningEffort | None
    ) -> AsyncGenerator[ModelChunk, None]:
        litellm = load_litellm()
        finished = False
        request = self._request(messages, tools, effort)
        if self._base_url and self._routed_name.startswith("anthropic/"):
            # litellm's own client would carry the conversation to wherever the server redirects it.
            request["client"] = client_without_redirects(REQUEST_TIMEOUT)
        try:
            response = await litellm.acompletion(**request)
            while (chunk := await _next(response, finished)) is not None:
                read = self._read(litellm, chunk)
                finished = finished or read.finish_reason is not None
                yield read
        except Exception as error:
            raise classify(litellm, error, self._where, datetime.now(UTC)) from error
        finally:
            if "client" in request:
                await request["client"].close()
        if response.received_finish_reason is None and response.intermittent_finish_reason is None:
            # litellm's last chunk says `stop` all the same.
            raise ModelUnavailableError(f"The connection to {self._where.server} ended in the middle of the answer.")

    def _request(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        effort: ReasoningEffort | None,
    ) -> dict[str, Any]:
        said = wire(messages, self._name, self._placement)
        if takes_marks(self._routed_name, self._info):
            said = marked(said, with_tools=bool(tools))
        request: dict[str, Any] = {
            "model": self._routed_name,
            "messages": said,
            "stream": True,
            "stream_options": {"include_usage": True},
            "timeout": REQUEST_TIMEOUT,
            "num_retries": 0,  # the loop retries: it can be interrupted, and it knows what it has already shown
            "max_retries": 0,
            "drop_params": True,  # what litellm knows that the provider does not take is left out
        }
        if effort is not None:
            request["reasoning_effort"] = effort
        if tools:
            request["tools"] = list(tools)
        if self._base_url:
            request["api_base"] = self._base_url
        if self._api_key:
            request["api_key"] = self._api_key
        return request

    def _read(self, litellm: Any, chunk: Any) -> ModelChunk:
        data = chunk.model_dump(exclude_none=True, warnings=False)
        read = read_chunk(data, self._name)
        if read.usage is None:
            return read
        cost = 0.0
        # litellm raises for a model that its price table does not have.
        with contextlib.suppress(Exception):
            cost = sum(litellm.cost_per_token(model=self._routed_name, usage_object=chunk.usage))
        return replace(read, usage=replace(read.usage, cost_usd=cost))

    # -- what the table of models says -----------------------------------------------------------------------------

    def _supported_effort(self) -> ReasoningEffort | None:
        """The effort to ask for, where the table knows what the model can do; it is left out where none can be."""
        return self._effort if self._info is None else supported(self._effort, self._info)

    @cached_property
    def _info(self) -> Mapping[str, Any] | None:
        """What the price table says of the model, None when it does not have it."""
        with contextlib.suppress(Exception):  # litellm has no exception of its own for that
            info: Mapping[str, Any] = load_litellm().get_model_info(self._routed_name)
            return info
        return None

    @cached_property
    def _placement(self) -> Placement:
        """Where images go in a request. A model that the table does not have is taken for one that takes none."""
        takes = load_litellm().supports_vision(self._routed_name) if self._images is None else self._images
        return placement(self._routed_name, own_server=bool(self._base_url)) if takes else "nowhere"

    @cached_property
    def _routed_name(self) -> str:
        """At a server of one's own, a name without a provider's prefix means the OpenAI protocol."""
        provider = self._name.partition("/")[0]
        if self._base_url and provider not in {str(getattr(p, "value", p)) for p in load_litellm().provider_list}:
            return f"openai/{self._name}"
        return self._name


async def _next(response: AsyncIterator[Any], finished: bool) -> Any:
    """The next piece; None at the end, and when nothing follows a finished answer on a connection that stays open."""
    try:
        async with asyncio.timeout(LINGER if finished else None):
            return await anext(response, None)
    except TimeoutError:
        if finished:
            return None
        raise


def _may_be_the_effort(failure: ModelError) -> bool:
    """Whether less reasoning effort may help. Not all providers name the parameter that they refuse."""
    if not isinstance(failure, RequestRefusedError):
        return False
    return failure.parameter is None or "reasoning" in failure.parameter
