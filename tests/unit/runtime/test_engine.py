"""What a session's agent is made of, from the session's settings to the tools that the model can call."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.testing import calls, says
from session_runtime.wire import AgentSettings, ToolSelection
from unit.runtime.harness import runtime

pytestmark = pytest.mark.anyio


async def test_a_tool_is_offered_when_every_selection_offers_it(short_path: Path) -> None:
    selections = (ToolSelection(allow=("b*", "web_*", "plan")), ToolSelection(deny=("web_*",)))
    async with runtime(short_path, agent=AgentSettings(model="scripted", tools=selections)) as run:
        assert (await run.until("ready")).data["tools"] == ["bash", "plan"]


@pytest.mark.parametrize(("networks", "success"), [((), False), (("127.0.0.0/8",), True)])
async def test_web_fetch_reaches_a_private_network_when_the_session_may(
    short_path: Path, networks: tuple[str, ...], success: bool
) -> None:
    settings = AgentSettings(model="scripted", web_fetch_networks=networks)
    async with runtime(short_path, agent=settings) as run:
        run.model.replies = (calls(("web_fetch", {"url": f"{run.url}/healthz"})), says("done"))
        await run.submit("user_input", text="look")
        assert (await run.until("tool_output")).data["success"] is success
