"""A conversation in a terminal: shows events as they come, asks for input and for consent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

from agent.approval import ApprovalDecision
from agent.config import AgentConfig
from agent.conversation import Conversation, PendingApproval
from agent.events import Event
from agent.loop import Agent, TurnOutcome
from agent.model import Model
from agent.tools.router import ToolRouter

SHOWN_LINES = 12
"""Lines of a tool's output that are shown."""


class LineReader:
    """Lines from a file descriptor, waited for on the event loop.

    A thread in `readline` could not be ended by Ctrl-C, and asyncio's own pipe reader makes the terminal non-blocking,
    for standard output as well.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self._ended = False

    async def readline(self) -> str | None:
        """The next line, None when there is none any more."""
        while b"\n" not in self._buffer and not self._ended:
            await self._readable()
            data = os.read(self._descriptor, 65536)
            self._buffer += data
            self._ended = not data
        line, newline, self._buffer = self._buffer.partition(b"\n")
        return (line + newline).decode(errors="replace") or None

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ready.set)
        except PermissionError:  # a regular file is always readable, and epoll does not take it
            return
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._descriptor)


class Terminal:
    """One agent and one person."""

    def __init__(
        self,
        config: AgentConfig,
        make_model: Callable[[str], Model],
        tools: ToolRouter,
        conversation: Conversation | None = None,
        source: int = 0,
        screen: TextIO = sys.stdout,
    ) -> None:
        self._make_model = make_model
        self._tools = tools
        self._lines = LineReader(source)
        self._screen = screen
        self._agent = Agent(config, make_model(config.model), tools, self._show, conversation)

    @property
    def conversation(self) -> Conversation:
        return self._agent.conversation

    def interrupt(self) -> None:
        """What Ctrl-C does: ends the turn; at the prompt it leaves."""
        if not self._agent.interrupt():
            raise KeyboardInterrupt

    async def one_turn(self, prompt: str) -> int:
        """Work on one prompt; the exit status. Nobody is there to consent, so what needs consent is denied."""
        outcome = await self._agent.run_turn(prompt)
        while outcome.status == "awaiting_approval":
            outcome = await self._agent.decide([])
        return 0 if outcome.status == "complete" else 1

    async def chat(self) -> int:
        """Talk until the person leaves; the exit status."""
        self._print("Type what you want done; /quit leaves, Ctrl-C interrupts.")
        await self._settle(await self._agent.resume())
        while (line := await self._ask("\n> ")) is not None:
            text = line.strip()
            if text == "/quit":
                break
            if text.startswith("/"):
                await self._command(*text.split(maxsplit=1))
            elif text:
                await self._settle(await self._agent.run_turn(text))
        return 0

    async def _settle(self, outcome: TurnOutcome | None) -> None:
        """Ask for consent until the turn no longer waits for it."""
        while self._agent.pending_approvals and (outcome is None or outcome.status == "awaiting_approval"):
            outcome = await self._agent.decide([await self._consent(p) for p in self._agent.pending_approvals])

    async def _consent(self, pending: PendingApproval) -> ApprovalDecision:
        self._print(f"\n? {pending.tool} {_brief(pending.arguments)}\n  {pending.reason}")
        answer = (await self._ask("  run it? [y]es, or why not: ") or "").strip()
        if answer.lower() in ("y", "yes"):
            return ApprovalDecision(pending.tool_call_id, True)
        return ApprovalDecision(pending.tool_call_id, False, feedback=answer or None)

    async def _command(self, name: str, rest: str = "") -> None:
        match name:
            case "/undo":
                await self._agent.undo()
            case "/compact":
                await self._agent.compact()
            case "/usage":
                self._print("\n".join(f"{key:>14}  {value}" for key, value in asdict(self._agent.usage).items()))
            case "/tools":
                self._print("\n".join(f"{t.name:>14}  {t.description.split('. ')[0]}" for t in self._tools.tools))
            case "/model":
                if rest:
                    self._agent.model = self._make_model(rest)
                self._print(f"the model is {self._agent.model.name}")
            case _:
                self._print("there are /undo /compact /usage /tools /model NAME /quit")

    async def _ask(self, question: str) -> str | None:
        """A line of input, None at its end."""
        self._print(question, end="")
        return await self._lines.readline()

    async def _show(self, event: Event) -> None:
        data: dict[str, Any] = event.data
        match event.type:
            case "assistant_chunk":
                self._print("\n[that broke off; once more]\n" if data.get("superseded") else data["text"], end="")
            case "assistant_message":
                self._print("")
            case "tool_call":
                self._print(f"\n* {data['tool']} {_brief(data['arguments'])}")
            case "tool_output":
                self._print(_indented(data["output"]))
            case "processing" if data["status"] == "retrying":
                self._print(f"\n[{data['reason']}; trying again in {data['wait_seconds']:g} s]")
            case "plan_update":
                self._print("\n".join(f"  [{'x' if s['status'] == 'done' else ' '}] {s['step']}" for s in data["plan"]))
            case "compacted":
                self._print(f"\n[compacted: about {data['tokens_before']} tokens became {data['tokens_after']}]")
            case "undo_complete":
                said = data["text"]
                self._print("[there is nothing to undo]" if said is None else f"[taken back: {said}]")
            case "interrupted" | "error":
                self._print(f"\n[{event.type}: {data.get('message') or data.get('reason')}]")

    def _print(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self._screen, flush=True)


def _brief(arguments: dict[str, Any]) -> str:
    text = " ".join(str(v) if isinstance(v, str) else json.dumps(v) for v in arguments.values())
    line = text.replace("\n", "⏎")
    return line if len(line) <= 200 else f"{line[:200]}…"


def _indented(output: str) -> str:
    lines = output.splitlines()
    more = [f"… {len(lines) - SHOWN_LINES} more lines"] if len(lines) > SHOWN_LINES else []
    return "\n".join(f"  | {line}" for line in [*lines[:SHOWN_LINES], *more])
