"""A session over an agent that asks for approval, without a process: for tests of what a session does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.approval import Rule
from agent.config import AgentConfig
from agent.conversation import Conversation
from agent.events import Emit
from agent.loop.agent import Agent
from agent.model.model import Model
from agent.testing import Reply, calls, says
from agent.tools.research import research_tool
from agent.tools.router import ToolRouter
from agent.tools.tool import Tool, parameters
from session_runtime.session.agent_protocol import OpenedAgent
from session_runtime.session.journal import Journal
from session_runtime.session.session import Session
from session_runtime.session.store import Store
from session_runtime.session.submissions import Submission
from support.runtime.harness import ConversationModel, config, eventually

RESEARCH = {
    "go": (calls(("research", {"task": "find tea"})), says("done")),
    "find tea": (calls(("look", {"what": "tea"})), says("found")),
}
"""Answers of a model, by what was said last."""


@dataclass
class Life:
    """One process's worth of a session."""

    session: Session
    journal: Journal
    bought: list[str]
    running: asyncio.Task[None]

    async def idle(self) -> None:
        await eventually(lambda: self.session.snapshot().activity != "Processing")

    async def submit(self, submission: Submission) -> None:
        await self.session.submit(submission)
        await self.idle()


@asynccontextmanager
async def life(
    folder: Path, bought: list[str], *replies: Reply, model: Model | None = None, **fields: Any
) -> AsyncIterator[Life]:
    """A session that runs, with tools that need consent; at the end it is cut off as by a kill."""

    async def buy(arguments: dict[str, Any]) -> str:
        bought.append(arguments["what"])
        return "yours"

    @asynccontextmanager
    async def open_agent(emit: Emit, conversation: Conversation) -> AsyncIterator[OpenedAgent]:
        what = parameters("what", what={"type": "string"})
        tools = (Tool("buy", "Buy it.", what, buy), Tool("look", "Look it up.", what, buy, read_only=True), research_tool())
        settings = AgentConfig("scripted", rules=(Rule("buy", "ask"), Rule("look", "ask")))
        async with ToolRouter(tools) as router:
            agent = Agent(settings, model or ConversationModel(*replies), router, emit, conversation)
            yield OpenedAgent(agent, {"model": "scripted", "tools": ["buy"], "problems": []})

    store = Store(folder)
    loaded = store.load()
    journal = Journal(store, loaded.last_seq, lambda: datetime.now(UTC))
    session = Session(config(**fields), journal, loaded, open_agent, lambda: datetime.now(UTC))
    writing = asyncio.create_task(journal.run())
    await session.recover()
    running = asyncio.create_task(session.run())
    try:
        yield Life(session, journal, bought, running)
    finally:
        running.cancel()
        await asyncio.wait([running])
        writing.cancel()
        await asyncio.wait([writing])
        await journal.release()
