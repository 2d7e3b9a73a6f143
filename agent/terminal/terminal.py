"""A conversation in a terminal: shows events as they come, asks for input and for consent."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TextIO, TypeVar

from agent.approval import ApprovalDecision
from agent.config import AgentConfig
from agent.conversation import Conversation, PendingApproval
from agent.events import Event
from agent.loop.agent import Agent, TurnOutcome
from agent.loop.calls import read_json
from agent.model.model import Model
from agent.question import CANCELLED
from agent.terminal.form import fill_in
from agent.terminal.line_reader import InputInterrupted, LineReader, edit
from agent.tools.router import ToolRouter

T = TypeVar("T")

SHOWN_LINES = 12
"""Lines of a tool's output that are shown."""

COMMANDS = """\
/undo      remove your last message and the agent's work on it from the conversation
/compact   shorten the conversation
/usage     tokens and cost so far
/tools     the tools the model can call
/model X   continue with another model
/help      this list
/quit      leave (as does the end of input)
Ctrl-C interrupts a turn, or a question about a call; at the prompt, or pressed again, it leaves."""


class Terminal:
    """One agent and one person."""

    def __init__(
        self,
        config: AgentConfig,
        make_model: Callable[[str], Model],
        tools: ToolRouter,
        conversation: Conversation | None = None,
        save: Callable[[Conversation], None] = lambda conversation: None,
        source: int = 0,
        screen: TextIO = sys.stdout,
        editor: str | None = None,
    ) -> None:
        """`save` is called whenever the conversation has changed, before the screen shows it."""
        self._make_model = make_model
        self._tools = tools
        self._save = save
        self._lines = LineReader(source)
        self._screen = screen
        self._editor = editor
        self._agent = Agent(config, make_model(config.model), tools, self._emit, conversation)
        self._interrupted = False
        """Ctrl-C was pressed since the person was last asked for something."""
        self._in_editor = False
        self._asked: set[asyncio.Task[None]] = set()
        """Servers' questions in the calls that run now."""
        self._one_question = asyncio.Lock()

    def interrupt(self) -> None:
        """What Ctrl-C does: ends the turn, or the question about a call. A second one leaves, as one at the prompt."""
        if self._in_editor:
            return  # the terminal tells us as well, but it is the editor's to act on
        if self._interrupted or not (self._agent.interrupt() or (self._agent.pending_approvals and self._lines.interrupt())):
            raise KeyboardInterrupt
        self._interrupted = True

    async def one_turn(self, prompt: str) -> int:
        """Work on one prompt; the exit status. Nobody is there to consent, so what needs consent is denied."""
        outcome = await self._work(self._agent.run_turn(prompt))
        while outcome.status == "awaiting_approval":
            outcome = await self._work(self._agent.decide([]))
        return 0 if outcome.status == "complete" else 1

    async def chat(self) -> int:
        """Talk until the person leaves; the exit status."""
        self._print("Type what you want done; /help lists the commands, /quit leaves, Ctrl-C interrupts.")
        if said := [message.content for message in self._agent.conversation.messages if message.from_person]:
            self._print(f"[resuming an earlier conversation; your last message: {_brief(said[-1])}]")
        for call, _ in self._agent.conversation.begun_calls:
            self._print(f"[was cut off: {call.name} {_brief(call.arguments)}]")
        await self._settle(await self._work(self._agent.resume()))
        while (line := await self._ask("\n> ")) is not None:
            text = line.strip()
            if text == "/quit":
                break
            if line.startswith("/"):
                await self._command(*text.split(maxsplit=1))
            elif text:
                await self._settle(await self._work(self._agent.run_turn(text)))
        return 0

    async def _work(self, turn: Awaitable[T]) -> T:
        """The outcome of a turn, whose questions end with it."""
        try:
            return await turn
        finally:
            for task in self._asked:
                task.cancel()
            await asyncio.gather(*self._asked, return_exceptions=True)

    # -- consent ---------------------------------------------------------------------------------------------------

    async def _settle(self, outcome: TurnOutcome | None) -> None:
        """Ask for consent until the turn no longer waits for it, or nobody is there any more to be asked."""
        while self._agent.pending_approvals and (outcome is None or outcome.status == "awaiting_approval"):
            try:
                decisions = [await self._consent(pending) for pending in self._agent.pending_approvals]
            except InputInterrupted:
                await self._agent.abandon("interrupted by the user")
                return
            except EOFError:
                return  # the question stays, for the person who resumes the session
            outcome = await self._work(self._agent.decide(decisions))

    def _put(self, question_id: str) -> None:
        """Put a server's question to the person while its call waits."""
        task = asyncio.create_task(self._answer_question(question_id))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _answer_question(self, question_id: str) -> None:
        async with self._one_question:
            asked = next((each for each in self._agent.questions if each.id == question_id), None)
            if asked is not None:
                self._print("")
                try:
                    answer = await fill_in(
                        asked.question,
                        asked.tool,
                        lambda prompt: self._ask(visible(prompt)),
                        lambda text: self._print(visible(text)),
                    )
                except EOFError:  # nobody is there any more, and the turn has to end
                    answer = CANCELLED
                await self._agent.answer(question_id, answer)

    async def _consent(self, pending: PendingApproval) -> ApprovalDecision:
        self._print(f"\n? {pending.tool}: {_brief(pending.reason)}\n{_whole(pending.arguments)}")
        while True:
            answer, _, rest = (await self._answer("  run it? [y]es, [n]o, [e]dit: ")).partition(" ")
            match answer.lower():
                case "y" | "yes":
                    return ApprovalDecision(pending.tool_call_id, True)
                case "n" | "no":
                    why = rest or await self._answer("  why not (the model is told; may be empty): ")
                    return ApprovalDecision(pending.tool_call_id, False, feedback=why or None)
                case "e" | "edit":
                    edited = await self._edited(pending.arguments)
                    if edited is not None:
                        return ApprovalDecision(pending.tool_call_id, True, arguments=edited)

    async def _edited(self, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """Other arguments for a call, None when there are none that could be used."""
        try:
            if self._editor is not None:
                text = await self._from_editor(arguments, self._editor)
            else:
                self._print(f"  now: {visible(json.dumps(arguments, ensure_ascii=False))}")
                text = await self._answer("  run it with (a JSON object): ")
            edited = read_json(text)
        except OSError as error:
            self._print(f"  the editor {self._editor} failed: {error}")
            return None
        except (ValueError, RecursionError) as error:
            self._print(f"  that is not JSON: {error}")
            return None
        if not isinstance(edited, dict):
            self._print("  that is not a JSON object")
            return None
        return edited

    async def _from_editor(self, arguments: dict[str, Any], editor: str) -> str:
        self._in_editor = True
        try:
            return await edit(arguments, editor)
        finally:
            self._in_editor = False

    async def _answer(self, question: str) -> str:
        line = await self._ask(question)
        if line is None:
            raise EOFError
        return line.strip()

    async def _ask(self, question: str) -> str | None:
        """A line of input, None at its end."""
        self._interrupted = False
        self._print(question, end="")
        return await self._lines.readline()

    # -- commands --------------------------------------------------------------------------------------------------

    async def _command(self, name: str, rest: str = "") -> None:
        match name:
            case "/undo":
                await self._agent.undo()
            case "/compact":
                await self._agent.compact()
            case "/usage":
                self._print("\n".join(f"{key:>14}  {value}" for key, value in asdict(self._agent.usage).items()))
            case "/tools":
                self._print("\n".join(f"{t.name:>14}  {_brief(t.description.split('. ')[0])}" for t in self._tools.tools))
                for problem in self._tools.problems:
                    self._print(f"[{_brief(problem)}]")
            case "/model":
                if rest:
                    self._agent.model = self._make_model(rest)
                self._print(f"the model is {self._agent.model.name}")
            case "/help":
                self._print(COMMANDS)
            case _:
                self._print(f"there is no command {name}; /help lists them. To say it to the agent, put a space before it.")

    # -- the screen ------------------------------------------------------------------------------------------------

    async def _emit(self, event: Event) -> None:
        self._save(self._agent.conversation)
        self._show(event)

    def _show(self, event: Event) -> None:
        data: dict[str, Any] = event.data
        match event.type:
            case "assistant_chunk":
                text = "\n[that broke off; once more]\n" if data.get("superseded") else visible(data["text"])
                self._print(text, end="")
            case "assistant_message":
                self._print("")
            case "tool_call":
                by = "** " if "parent" in data else "* "  # of a sub-agent
                self._print(f"\n{by}{data['tool']} {_brief(_words(data['arguments']))}")
            case "tool_output":
                self._print(_indented(data["output"]))
            case "processing" if data["status"] == "retrying":
                self._print(f"\n[{_brief(data['reason'])}; trying again in {data['wait_seconds']:g} s]")
            case "processing" if data["status"] == "waiting":
                self._print(f"\n[the model has sent nothing for {data['seconds']:.0f} s; Ctrl-C interrupts]")
            case "processing" if data["status"] == "notice":
                self._print(f"\n[{_brief(data['reason'])}]")
            case "question" if "declined" in data:
                self._print(f"\n[{data['server']} asks: {_brief(data['message'])}; declined, as {data['declined']}]")
            case "question":
                self._put(data["question_id"])
            case "plan_update":
                plan = (f"  [{'x' if s['status'] == 'done' else ' '}] {visible(s['step'])}" for s in data["plan"])
                self._print("\n".join(plan))
            case "compacted":
                self._print(f"\n[compacted: about {data['tokens_before']} tokens became {data['tokens_after']}]")
            case "undo_complete":
                said = data["text"]
                self._print("[there is nothing to undo]" if said is None else f"[taken back: {_brief(said)}]")
            case "interrupted":
                self._print(f"\n[interrupted: {_brief(data['reason'])}]")
            case "error":
                self._print(f"\n[error: {_brief(data['message'])}]")

    def _print(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self._screen, flush=True)


def visible(text: str) -> str:
    """Text as it is read: nothing in it may move the cursor, hide a part of a call, or give orders to the terminal."""
    unseen = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
    return re.sub(unseen, lambda found: f"\\u{ord(found.group()):04x}", text.replace("\r\n", "\n"))


def _brief(text: str) -> str:
    """One line of it."""
    line = visible(text.strip()).replace("\n", "⏎")
    return line if len(line) <= 300 else f"{line[:300]}…"


def _words(arguments: dict[str, Any]) -> str:
    return " ".join(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in arguments.values())


def _whole(arguments: dict[str, Any]) -> str:
    """All of a call's arguments: who consents must have seen what to."""
    shown = ((k, v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)) for k, v in arguments.items())
    return "\n".join(f"  {visible(name)}: " + visible(value).replace("\n", "\n    ") for name, value in shown)


def _indented(output: str) -> str:
    lines = visible(output).splitlines()
    more = [f"… {len(lines) - SHOWN_LINES} more lines"] if len(lines) > SHOWN_LINES else []
    return "\n".join(f"  | {line[:1000]}" for line in [*lines[:SHOWN_LINES], *more])
