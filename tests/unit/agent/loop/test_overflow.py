"""Conversations that are too long for a server with a window of its own, which it may or may not name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.config import AgentConfig, Patience
from agent.conversation import Conversation
from agent.events import Event
from agent.loop.agent import Agent, TurnOutcome
from agent.loop.compaction import SUMMARY_REQUEST
from agent.messages import Message, ToolCall
from agent.model.model import LiteLLMModel
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, parameters
from support.agent.openai_server import Answer, OpenAIServer, serve
from support.agent.validity import check_order

pytestmark = pytest.mark.anyio

WORDS = "This model's maximum context length is {} tokens."
REFUSALS: dict[str, Callable[[int], Answer]] = {
    "with the limit": lambda window: Answer(status=400, error={"message": WORDS.format(window)}),
    "by code": lambda window: Answer(status=400, error={"message": "no", "code": "context_length_exceeded"}),
    "as nginx": lambda window: Answer(status=413, raw="<html><title>413 Request Entity Too Large</title></html>"),
    "without a reason": lambda window: Answer(status=400, error={"message": "bad request"}),
    "as unprocessable": lambda window: Answer(status=422, error={"message": "cannot process"}),
}


def size(request: dict[str, Any]) -> int:
    """Tokens of a request, as the server counts them."""
    return sum(len(str(message.get("content") or "")) for message in request["messages"]) // 4


@dataclass
class Window:
    """A server that refuses what is too long for it, and answers everything else."""

    window: int
    refusal: Callable[[int], Answer]
    refused: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    summaries: int = 0

    def __call__(self, request: dict[str, Any]) -> Answer:
        tokens = size(request)
        if tokens > self.window:
            self.refused.append(tokens)
            return self.refusal(self.window)
        self.taken.append(tokens)
        if request["messages"][0]["content"] == SUMMARY_REQUEST:
            self.summaries += 1
            return Answer(({"content": f"SUMMARY {self.summaries}"},))
        return Answer(({"content": "fine"},), usage={"prompt_tokens": tokens, "completion_tokens": 1})


class Talk:
    """A conversation with a server."""

    def __init__(self, server: OpenAIServer, conversation: Conversation = Conversation(), **settings: Any) -> None:  # noqa: B008
        self.events: list[Event] = []
        model = LiteLLMModel("some-model", base_url=server.url)
        config = AgentConfig("some-model", patience=Patience(first_wait=0), **settings)
        look = Tool("look", "", parameters(), _look)
        self.agent = Agent(config, model, ToolRouter((look,)), self.emit, conversation)

    async def emit(self, event: Event) -> None:
        self.events.append(event)

    async def say(self, text: str) -> TurnOutcome:
        async with asyncio.timeout(60):
            outcome = await self.agent.run_turn(text)
        check_order(self.agent.conversation.messages)
        return outcome

    def compactions(self) -> int:
        return sum(event.type == "compacted" for event in self.events)


async def _look(arguments: dict[str, Any]) -> str:
    return "nothing"


def long_talk(turns: int = 12) -> Conversation:
    messages: tuple[Message, ...] = ()
    for number in range(turns):
        call = ToolCall(f"c{number}", "look", "{}")
        messages += (
            Message("user", f"wish {number}"),
            Message("assistant", "", (call,)),
            Message("tool", f"{number} " * 2000, tool_call_id=call.id),
            Message("assistant", f"found {number}"),
        )
    return Conversation(messages)


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("window", [3000, 1000])
async def test_a_long_conversation_is_shortened_until_the_server_takes_it(name: str, window: int) -> None:
    sees = Window(window, REFUSALS[name])
    async with serve(by=sees) as server:
        talk = Talk(server, long_talk())
        assert (await talk.say("go on")).message == "fine", talk.events[-1]
        assert talk.compactions() >= 1
        assert len(sees.refused) <= 8
        assert len(server.requests) <= 36
        assert talk.agent.conversation.messages[-2].content == "go on"


async def test_what_an_overflow_has_shown_is_kept_for_the_session() -> None:
    sees = Window(3000, REFUSALS["by code"])
    async with serve(by=sees) as server:
        talk = Talk(server, long_talk())
        assert (await talk.say("go on")).message == "fine"
        stored = Conversation.from_json(talk.agent.conversation.to_json())
        assert stored.window is not None
        assert stored.window[0] == "some-model"
        refused = len(sees.refused)
        again = Talk(server, stored)
        for number in range(12):
            assert (await again.say(f"{number} " * 900)).message == "fine"
        assert len(sees.refused) <= refused + 2
        await again.agent.undo()
        assert again.agent.conversation.window is not None


async def test_a_limit_that_the_server_names_is_not_tried_again() -> None:
    sees = Window(3000, REFUSALS["with the limit"])
    async with serve(by=sees) as server:
        talk = Talk(server, long_talk())
        assert (await talk.say("go on")).message == "fine"
        assert len(sees.refused) == 1
        for number in range(12):
            assert (await talk.say(f"{number} " * 900)).message == "fine"
    assert len(sees.refused) == 1


async def test_a_refusal_for_another_reason_loses_nothing() -> None:
    async with serve(by=lambda request: Answer(status=400, error={"message": "bad tools"})) as server:
        talk = Talk(server, long_talk())
        outcome = await talk.say("go on")
        assert outcome.status == "error"
        assert "bad tools" in str(outcome.message)
        assert talk.agent.conversation.messages[:-1] == long_talk().messages
        assert len(server.requests) <= 20


async def test_a_first_message_too_long_says_so_and_what_to_do() -> None:
    sees = Window(3000, REFUSALS["by code"])
    async with serve(by=sees) as server:
        talk = Talk(server)
        outcome = await talk.say("word " * 12_000)
        assert outcome.status == "error"
        assert "Your message of about 17" in str(outcome.message)
        assert "Undo it" in str(outcome.message)
        assert len(server.requests) == 1
        # What is said next works: the long message is summarised in parts, with nothing of it lost.
        assert (await talk.say("then only say hello")).message == "fine", talk.events[-1]
        assert sees.summaries > 3
        assert [m.content for m in talk.agent.conversation.messages[-2:]] == ["then only say hello", "fine"]


async def test_a_summary_that_is_too_long_is_made_in_parts() -> None:
    sees = Window(2000, REFUSALS["by code"])
    async with serve(by=sees) as server:
        talk = Talk(
            server, Conversation((Message("user", "hi"), Message("user", "line\n" * 12_000), Message("assistant", "ok")))
        )
        assert (await talk.say("go on")).message == "fine", talk.events[-1]
        summary = talk.agent.conversation.messages[1]
        assert summary.origin == "summary"
        assert all(f"SUMMARY {number}" in summary.content for number in range(1, sees.summaries + 1))


async def test_what_exceeds_the_tables_window_and_cannot_be_shortened_is_sent() -> None:
    sees = Window(100_000, REFUSALS["by code"])
    async with serve(by=sees) as server:
        talk = Talk(server, context_window=1000)
        assert (await talk.say("word " * 2000)).message == "fine"
        assert sees.summaries == 0
        assert (await talk.say("and now?")).message == "fine"
    assert talk.compactions() == 1


async def test_a_window_that_one_model_has_shown_is_not_anothers() -> None:
    sees = Window(3000, REFUSALS["by code"])
    async with serve(by=sees) as server, serve(Answer(({"content": "I can"},))) as larger:
        talk = Talk(server, long_talk())
        await talk.say("go on")
        talk.agent.model = LiteLLMModel("larger", base_url=larger.url)
        compactions = talk.compactions()
        assert (await talk.say("word " * 9000)).message == "I can"
    assert talk.compactions() == compactions
