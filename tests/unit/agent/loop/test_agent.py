"""The turn: what the loop does with what the model says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.loop.tool_step import MAX_PARALLEL
from agent.messages import Message, Thought
from agent.model.answer import ModelChunk
from agent.model.failure import ModelError
from agent.testing import ScriptedModel, calls, fails, says
from agent.tools.tool import Tool, ToolError, parameters
from agent.tools.workspace import workspace_tools
from agent.workspace.local import LocalWorkspace
from support.agent.stage import stage

pytestmark = pytest.mark.anyio


def tool(name: str, call: Any, **options: Any) -> Tool:
    return Tool(name, "a tool", parameters(text={"type": "string"}), call, **options)


async def echo(arguments: dict[str, Any]) -> str:
    return str(arguments.get("text", "nothing"))


async def test_an_answer_in_words_ends_the_turn() -> None:
    s = stage(says("Hello, world, and all who live in it."))
    outcome = await s.agent.run_turn("hi")
    assert (outcome.status, outcome.message) == ("complete", "Hello, world, and all who live in it.")
    assert "".join(d["text"] for d in s.data("assistant_chunk")) == outcome.message
    assert [t for t in s.types() if t != "assistant_chunk"] == [
        "processing",
        "assistant_message",
        "usage",
        "turn_complete",
    ]
    assert [m.role for m in s.model.requests[0]] == ["system", "user"]
    assert not s.agent.conversation.in_turn


@pytest.mark.parametrize("tools", [(), (tool("echo", echo),)], ids=["none", "one"])
async def test_the_system_message_speaks_of_tools_only_when_there_are_some(tools: tuple[Tool, ...]) -> None:
    s = stage(says("Blue."), tools=tools, instructions="Be polite.")
    await s.agent.run_turn("What colour is the sky?")
    system = s.model.requests[0][0].content
    assert ("tool" in system) == bool(tools)
    assert system.endswith("Be polite.")


async def test_a_tool_call_runs_in_the_workspace_and_returns_its_output(tmp_path: Path) -> None:
    s = stage(
        calls(("bash", {"command": "echo $((6 * 7))"}), text="Let me see."),
        says("It is 42."),
        tools=workspace_tools(LocalWorkspace(tmp_path)),
    )
    outcome = await s.agent.run_turn("what is 6 x 7?")
    assert outcome.message == "It is 42."
    result = s.model.requests[1][-1]
    assert (result.role, result.content, result.tool_call_id) == ("tool", "42\n", "call_1_0")
    assert s.data("tool_output") == [
        {"tool_call_id": "call_1_0", "tool": "bash", "output": "42\n", "success": True},
    ]
    assert s.agent.usage.llm_calls == 2
    assert s.agent.usage.tool_calls == 1
    assert s.agent.usage.input_tokens == 20


async def test_one_failing_tool_leaves_its_siblings_results_alone() -> None:
    async def broken(_: dict[str, Any]) -> str:
        raise ZeroDivisionError("oh")

    async def refuses(_: dict[str, Any]) -> str:
        raise ToolError("not today")

    s = stage(
        calls(("echo", {"text": "a"}), ("broken", {}), ("refuses", {}), ("missing", {}), ("echo", {"text": 1})),
        says("done"),
        tools=(tool("echo", echo), tool("broken", broken), tool("refuses", refuses)),
    )
    await s.agent.run_turn("go")
    results = [m.content for m in s.model.requests[1][-5:]]
    assert results[:3] == ["a", "broken failed: ZeroDivisionError: oh", "not today"]
    assert "no tool named 'missing'" in results[3]
    assert "$.text" in results[4]
    assert [d["success"] for d in s.data("tool_output")] == [True, False, False, False, False]


async def test_reads_run_together_and_their_results_keep_the_order_of_the_calls() -> None:
    second_is_told = asyncio.Event()

    async def first(_: dict[str, Any]) -> str:
        await second_is_told.wait()
        return "first"

    async def second(_: dict[str, Any]) -> str:
        return "second"

    s = stage(
        calls(("first", {}), ("second", {})),
        says("done"),
        tools=(tool("first", first, read_only=True), tool("second", second, read_only=True)),
    )
    s.on("tool_output", second_is_told.set)
    await s.agent.run_turn("go")
    assert [d["tool"] for d in s.data("tool_output")] == ["second", "first"]
    assert [m.content for m in s.model.requests[1][-2:]] == ["first", "second"]


async def test_only_so_many_calls_run_at_the_same_time() -> None:
    running: set[str] = set()
    most: list[int] = []

    async def read(arguments: dict[str, Any]) -> str:
        running.add(arguments["text"])
        most.append(len(running))
        for _ in range(10 * MAX_PARALLEL):  # long enough for all the others to begin
            await asyncio.sleep(0)
        running.remove(arguments["text"])
        return f"read {arguments['text']}"

    wanted = [str(number) for number in range(2 * MAX_PARALLEL + 1)]
    s = stage(calls(*[("read", {"text": text}) for text in wanted]), says("done"), tools=(tool("read", read, read_only=True),))
    await s.agent.run_turn("go")
    assert max(most) == MAX_PARALLEL
    assert [m.content for m in s.model.requests[1] if m.role == "tool"] == [f"read {text}" for text in wanted]


async def test_a_failed_model_call_is_an_event_and_the_session_goes_on() -> None:
    s = stage(fails(ModelError("no such model")), says("here I am"))
    outcome = await s.agent.run_turn("hi")
    assert (outcome.status, outcome.message) == ("error", "no such model")
    assert s.data("error") == [{"kind": "model", "message": "no such model"}]
    assert (await s.agent.run_turn("again")).status == "complete"


async def test_an_event_that_cannot_be_emitted_is_an_error_and_no_exception() -> None:
    s = stage(says("hi"), says("there"))

    def fail() -> None:
        raise OSError("disk full")

    s.on("assistant_message", fail)
    outcome = await s.agent.run_turn("hi")
    assert (outcome.status, outcome.message) == ("error", "OSError: disk full")
    assert s.types()[-1] == "error"


async def test_the_iteration_limit_ends_the_turn() -> None:
    s = stage(*[calls(("echo", {"text": str(i)})) for i in range(9)], tools=(tool("echo", echo),), max_iterations=3)
    outcome = await s.agent.run_turn("go")
    assert outcome.status == "error"
    assert s.data("error")[0]["kind"] == "iteration_limit"
    assert len(s.model.requests) == 3
    assert s.agent.conversation.open_calls == ()


async def test_malformed_arguments_are_an_error_result_and_the_second_time_bring_advice() -> None:
    s = stage(
        calls(("echo", '{"text": "unfin')),
        calls(("echo", "[1]")),
        says("done"),
        tools=(tool("echo", echo),),
    )
    await s.agent.run_turn("go")
    first, second = (request[-1].content for request in s.model.requests[1:])
    assert "not a JSON object" in first
    assert "another way" not in first
    assert "another way" in second
    stored = [call.arguments for m in s.agent.conversation.messages for call in m.tool_calls]
    assert stored == ["{}", "{}"]  # providers parse them again with every request
    assert s.agent.usage.tool_calls == 0


async def test_call_ids_become_unique_and_names_acceptable() -> None:
    s = stage(
        calls(("echo", {}), ("echo", {}), ids=("", "same")),
        calls(("e c/ho", {}), ids=("same",)),
        says("done"),
        tools=(tool("echo", echo),),
    )
    await s.agent.run_turn("go")
    all_calls = [call for m in s.agent.conversation.messages for call in m.tool_calls]
    assert len({call.id for call in all_calls}) == 3
    assert all_calls[2].name == "e_c_ho"


async def test_secrets_reach_neither_events_nor_messages() -> None:
    secret = "hf_abcdefghijklmnop"

    async def leak(_: dict[str, Any]) -> str:
        return "x" * 6240 + secret + "y" * 30_000  # the cut of long output would go through it

    s = stage(
        calls(("leak", {"text": f"say {secret}"}), text=f"the key is {secret}!", piece=3),
        says(f"bye {secret}", piece=1),
        tools=(tool("leak", leak),),
        secrets=(secret,),
    )
    await s.agent.run_turn(f"my key is {secret}")
    assert secret not in repr(s.events)
    assert secret not in s.agent.conversation.to_json()
    assert "hf_abc" not in s.agent.conversation.to_json()
    assert "".join(d["text"] for d in s.data("assistant_chunk")) == "the key is [REDACTED]!bye [REDACTED]"
    assert len(s.data("tool_output")[0]["output"]) < 25_100


@pytest.mark.parametrize("arguments", ["[" * 100_000, '{"text": NaN}', '{"text": [Infinity]}', '{"text": -1e999}'])
async def test_arguments_that_python_cannot_read_or_not_send_back_are_malformed(arguments: str) -> None:
    s = stage(calls(("echo", arguments)), says("done"), tools=(tool("echo", echo),))
    assert (await s.agent.run_turn("go")).status == "complete"
    assert s.data("tool_output")[0]["output"].startswith("The arguments are not a JSON object (")
    assert s.agent.conversation.messages[1].tool_calls[0].arguments == "{}"


@pytest.mark.parametrize(
    "arguments",
    [
        r'{"text": "hf_abc\/defghijklm"}',
        r'{"text": "\u0068f_abc/defghijklm"}',
        r'{"text": "hf_abc/defghijklm", "text": "twice"}',
        r'["hf_abc/defghijklm"',
    ],
)
async def test_a_secret_in_arguments_is_masked_however_json_has_it(arguments: str) -> None:
    s = stage(calls(("echo", arguments)), says("done"), tools=(tool("echo", echo),), secrets=("hf_abc/defghijklm",))
    await s.agent.run_turn("go")
    assert "defghijklm" not in repr(s.events) + s.agent.conversation.to_json()


async def test_half_of_a_surrogate_pair_does_not_get_into_the_conversation() -> None:
    """No request with one could be sent, nor a file with one be written."""

    async def half(_: dict[str, Any]) -> str:
        return "a \ud83d"

    s = stage(calls(("half", r'{"text": "\ud83d"}'), text="b \ud83d"), says("done"), tools=(tool("half", half),))
    await s.agent.run_turn("c \ud83d")
    assert s.agent.conversation.to_json().encode().count("\N{REPLACEMENT CHARACTER}".encode()) == 3
    assert s.data("tool_call")[0]["arguments"] == {"text": "\N{REPLACEMENT CHARACTER}"}
    assert not re.search("[\ud800-\udfff]", "".join(map(str, s.events)))


async def test_thoughts_with_a_secret_in_them_are_not_kept() -> None:
    """They are signed, so they cannot be masked."""
    secret = "hf_abcdefghijklmnop"

    class Thinker(ScriptedModel):
        async def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
            thought = "harmless" if self.requests else f"the key is {secret}"
            yield ModelChunk(thoughts=(Thought("scripted", thought),))
            yield ModelChunk(thoughts=(Thought("scripted", signature="signed"),))
            async for chunk in super().stream(messages, tools):
                yield chunk

    s = stage(tools=(tool("echo", echo),), secrets=(secret,))
    s.agent.model = Thinker(calls(("echo", {})), calls(("echo", {})), says("done"))
    await s.agent.run_turn("go")
    assert secret not in s.agent.conversation.to_json()
    thoughts = [m.thoughts for m in s.agent.conversation.messages if m.role == "assistant"]
    assert thoughts == [(), (Thought("scripted", "harmless", "signed"),), ()]


async def test_undo_removes_the_last_user_message_and_everything_after_it() -> None:
    s = stage(says("one"), calls(("echo", {})), says("two"), tools=(tool("echo", echo),))
    await s.agent.run_turn("first")
    before = s.agent.conversation
    await s.agent.run_turn("second")
    assert await s.agent.undo()
    assert s.agent.conversation.messages == before.messages
    assert s.events[-1].data == {"removed_messages": 4, "text": "second"}
    assert await s.agent.undo()
    assert not await s.agent.undo()
    assert s.events[-1].data == {"removed_messages": 0, "text": None}
