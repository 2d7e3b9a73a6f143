"""Agent loops that do the same work against the same server: `python contenders.py NAME URL`, for `bench_agent.py`.

Reads how often to run which script from standard input (`talk 20`), and answers each line with a line of JSON. Each turn is
a conversation of its own. What a contender needs is imported by its own function only, so that each runs in its own
environment.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path
from typing import Any

SYSTEM = "You are an agent that works on a person's task until it is done."
PROMPT = "Say it again and again."

Turn = Callable[[str], Awaitable[str]]
"""One turn with the script of this name; the model's last words."""


async def echo(text: str) -> str:
    """Say it again."""
    return text


ECHO = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": False}


def bare_litellm(url: str) -> Turn:
    """What one has to write at the least: no retries, no limits, no events, no count of anything."""
    import litellm

    function = {"name": "echo", "description": "Say it again.", "parameters": ECHO}
    tools = [{"type": "function", "function": function}]

    async def turn(script: str) -> str:
        messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
        while True:
            response: Any = await litellm.acompletion(
                model=f"openai/{script}",
                api_base=url,
                api_key="none",
                messages=messages,
                tools=tools,
                stream=True,
                stream_options={"include_usage": True},
            )
            text, calls = "", {}
            async for chunk in response:
                delta = chunk.choices[0].delta if chunk.choices else None
                text += (delta and delta.content) or ""
                for call in (delta and delta.tool_calls) or ():
                    function = {"name": call.function.name, "arguments": call.function.arguments}
                    calls[call.index] = {"id": call.id, "type": "function", "function": function}
            if not calls:
                return text
            messages.append({"role": "assistant", "content": None, "tool_calls": list(calls.values())})
            for call in calls.values():
                said = await echo(**json.loads(call["function"]["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": said})

    return turn


def agentsession(url: str) -> Turn:
    """This repository's loop, with all that it does for a session."""
    from agent.config import AgentConfig
    from agent.events import Event
    from agent.loop.agent import Agent
    from agent.model.model import LiteLLMModel
    from agent.tools.router import ToolRouter
    from agent.tools.tool import Tool

    async def call(arguments: dict[str, Any]) -> str:
        return await echo(**arguments)

    async def emit(event: Event) -> None:
        pass

    tools = ToolRouter((Tool("echo", "Say it again.", ECHO, call),))

    async def turn(script: str) -> str:
        agent = Agent(AgentConfig(script), LiteLLMModel(script, base_url=url), tools, emit)
        outcome = await agent.run_turn(PROMPT)
        assert outcome.status == "complete", outcome
        return outcome.message or ""

    return turn


def openai_agents(url: str) -> Turn:
    """The openai-agents loop on its own client."""
    import openai
    from agents import OpenAIChatCompletionsModel

    client = openai.AsyncOpenAI(base_url=url, api_key="none")
    return _openai_agents(lambda script: OpenAIChatCompletionsModel(script, openai_client=client))


def openai_agents_litellm(url: str) -> Turn:
    """The openai-agents loop on litellm, as ours."""
    from agents.extensions.models.litellm_model import LitellmModel

    return _openai_agents(lambda script: LitellmModel(f"openai/{script}", base_url=url, api_key="none"))


def _openai_agents(model: Callable[[str], Any]) -> Turn:
    from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled

    set_tracing_disabled(True)
    tool = function_tool(echo)

    async def turn(script: str) -> str:
        settings = ModelSettings(include_usage=True)
        agent = Agent(name="bench", instructions=SYSTEM, model=model(script), model_settings=settings, tools=[tool])
        result = Runner.run_streamed(agent, PROMPT, max_turns=300)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)

    return turn


CONTENDERS = {
    "bare litellm": bare_litellm,
    "agentsession": agentsession,
    "openai-agents": openai_agents,
    "openai-agents+litellm": openai_agents_litellm,
}


def versions(name: str) -> str:
    """Of the libraries that make the difference."""
    libraries = ["openai-agents"] if name.startswith("openai-agents") else []
    libraries += ["openai"] if name == "openai-agents" else ["litellm", "openai"]
    return f"{name}: " + ", ".join(f"{library} {metadata.version(library)}" for library in libraries)


def resident() -> int:
    """KiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


async def main() -> None:
    name, url = sys.argv[1:]
    turn = CONTENDERS[name](url)
    expected = await turn("talk")
    print(json.dumps({"memory": resident(), "versions": versions(name)}), flush=True)
    for line in sys.stdin:
        script, times = line.split()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(times)):
            said = await turn(script)
            assert said == expected, said
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "memory": resident()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
