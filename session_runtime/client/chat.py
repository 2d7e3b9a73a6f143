"""`python -m session_runtime chat URL`: talk to a session from a terminal."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import httpx

from agent.question import Question
from agent.terminal.form import fill_in
from session_runtime.client.client import ReceivedEvent, SessionClient, SessionError
from session_runtime.reporting import transcript
from session_runtime.session.events import Draft

TOKEN_ENV: Final = "AGENTSESSION_TOKEN"  # noqa: S105 - a name, not a token

FIRST_SECONDS: Final = 2.0
"""How long the first contact is tried: it may be the address that is wrong."""

COMMANDS: Final = ("/approve", "/deny", "/undo", "/compact", "/shutdown")

HELP: Final = """\
Type a message and press Enter. While the agent is working, Ctrl-C interrupts it. At the prompt, Ctrl-D or Ctrl-C leaves
the chat; the session continues without you. Commands: /approve, /deny [why], /undo, /compact, /shutdown."""

INTERRUPTED: Final = 128 + signal.SIGINT


def main(arguments: Sequence[str]) -> int:
    """Run the chat; returns the exit status."""
    parser = argparse.ArgumentParser("python -m session_runtime chat", description=HELP)
    parser.add_argument("url", help="the session's address, for example http://127.0.0.1:8080")
    parser.add_argument(
        "--token-env", default=TOKEN_ENV, metavar="NAME", help="environment variable with the session's token (%(default)s)"
    )
    options = parser.parse_args(arguments)
    token = os.environ.get(options.token_env)
    if not token:
        print(f"Set {options.token_env} to the session's token, or name another variable with `--token-env`.", file=sys.stderr)
        return 2
    try:
        asyncio.run(_chat(options.url, token))
    except KeyboardInterrupt:
        print()
        return INTERRUPTED
    except (SessionError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except (httpx.TransportError, ConnectionError) as error:
        why = str(error) or type(error).__name__
        print(f"Cannot reach {options.url}: {why}. Check the address, the pod, and `kubectl port-forward`.", file=sys.stderr)
        return 1
    return 0


async def _chat(url: str, token: str) -> None:
    async with SessionClient(url, token, patience=FIRST_SECONDS) as client:
        info = await client.info()
    print(f"{info['namespace']}/{info['name']} of {info['user']}. {HELP}")
    keyboard = _Keyboard()
    async with SessionClient(url, token, on_trouble=_tell_trouble) as client:
        while info["is_active"]:
            _tell_state(info)
            for call in info["pending_approval"]:
                if call.get("question") and not await _answer(client, keyboard, call["tool"], call["question"]):
                    return
            said = await keyboard.ask("> ")
            if said is None:
                return
            if said.strip():
                await _submit(client, keyboard, said.strip())
            if said.strip() == "/shutdown":
                return
            info = await client.info()
    print(f"The session has finished: {info['outcome_message']}")


def _tell_trouble(error: Exception) -> None:
    print(f"\n(connection lost: {error or type(error).__name__}; retrying)")


def _tell_state(info: Mapping[str, Any]) -> None:
    """What a person should know before they say something."""
    if info["is_processing"]:
        print("(the agent is working; new input is queued until it is done)")
    for call in info["pending_approval"]:
        if call.get("question"):
            continue
        arguments = transcript.flat(json.dumps(call["arguments"], ensure_ascii=False), transcript.MESSAGE_CHARACTERS)
        reason = f" ({transcript.flat(call['reason'], transcript.OUTPUT_CHARACTERS)})" if call["reason"] else ""
        print(f"waiting for /approve or /deny: {call['tool']} {arguments}{reason}")


class _Keyboard:
    """Lines that the person types, read in a thread that nobody waits for: Ctrl-C must not have to wait for an Enter."""

    def __init__(self) -> None:
        self._reading = False
        self._answer: asyncio.Future[str | None] | None = None

    async def ask(self, prompt: str) -> str | None:
        """The next line; None at the end of the input. May be cancelled, which leaves the thread with its line: the next line
        that is asked for is that one then, and a line that comes before is dropped, as what it answered is over.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str | None] = loop.create_future()
        self._answer = answer
        if self._reading:
            print(prompt, end="", flush=True)
        else:
            self._reading = True
            threading.Thread(target=self._read, args=(loop, prompt), name="input", daemon=True).start()
        return await answer

    def _read(self, loop: asyncio.AbstractEventLoop, prompt: str) -> None:
        try:
            line: str | None = input(prompt)
        except (EOFError, UnicodeDecodeError):
            line = None
        loop.call_soon_threadsafe(self._typed, line)

    def _typed(self, line: str | None) -> None:
        self._reading = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(line)


async def _answer(client: SessionClient, keyboard: _Keyboard, tool: str, asked: Mapping[str, Any]) -> bool:
    """Put a question of a tool's server to the person, and send the answer. False at the end of the input: the question stays,
    as the session continues without the person."""
    question = Question(asked["server"], asked["message"], asked["form"], asked["url"])
    try:
        answer = await fill_in(
            question,
            tool,
            lambda prompt: keyboard.ask(transcript.printable(prompt)),
            lambda text: print(transcript.printable(text)),
        )
    except EOFError:
        return False
    try:
        await client.submit("answer", question_id=asked["id"], action=answer.action, content=answer.content)
    except SessionError as error:  # somebody else has answered, or the call has ended
        print(error)
    return True


async def _submit(client: SessionClient, keyboard: _Keyboard, said: str) -> None:
    """Send one line and show what comes of it. Ctrl-C interrupts the agent, a second one leaves."""
    loop, chat = asyncio.get_running_loop(), asyncio.current_task()
    interrupts: set[asyncio.Task[str]] = set()
    dialogues = _Dialogues(client, keyboard, chat)

    def interrupt() -> None:
        if interrupts and chat is not None:
            chat.cancel()
            return
        print("\n(interrupting; Ctrl-C again leaves)")
        interrupts.add(loop.create_task(client.submit("interrupt")))

    if said.startswith("/") and " " not in said and said not in COMMANDS:
        print(f"Unknown command {said}. {HELP}")
        return
    try:
        submission = await _send(client, said)
        loop.add_signal_handler(signal.SIGINT, interrupt)
        if said == "/shutdown":  # which is on the disk now; the address may be gone before more can be heard
            print("The session ends.")
        else:
            await _show(client, submission, dialogues)
    except SessionError as error:
        print(error)
    except asyncio.CancelledError:
        if not dialogues.left or chat is None or chat.uncancel():
            raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        for task in interrupts:
            task.cancel()
        await asyncio.gather(*interrupts, return_exceptions=True)


async def _send(client: SessionClient, said: str) -> str:
    command, _, words = said.partition(" ")
    if command in ("/approve", "/deny"):
        verdict = {"approved": command == "/approve", "feedback": words.strip() or None}
        pending = (await client.info())["pending_approval"]
        decisions = [{"tool_call_id": call["tool_call_id"], **verdict} for call in pending if not call.get("question")]
        return await client.submit("approval", decisions=decisions)
    if said in COMMANDS:
        return await client.submit(command.removeprefix("/"))
    return await client.submit("user_input", text=said)


async def _show(client: SessionClient, submission: str, dialogues: _Dialogues) -> None:
    """Print the events of a submission, the answer as it is written, and put servers' questions to the person."""
    writing = False
    try:
        async for event in client.events(submission=submission):
            if event.type == "assistant_chunk" and "text" in event.data:
                print(transcript.printable(event.data["text"]), end="", flush=True)
                writing = True
                continue
            if writing:
                print()
                writing = False
            line = _line(event)
            if line is not None:
                print(line)
            dialogues.follow(event)
    finally:
        await dialogues.end()


class _Dialogues:
    """The questions of the turn that is shown, put to the person one after the other, and no longer than they are open."""

    def __init__(self, client: SessionClient, keyboard: _Keyboard, chat: asyncio.Task[Any] | None) -> None:
        self.left = False
        """The input has ended, and with it what shows the turn, which is cancelled."""
        self._client = client
        self._keyboard = keyboard
        self._chat = chat
        self._one = asyncio.Lock()
        self._open: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """By question: its call, and what asks it."""

    def follow(self, event: ReceivedEvent) -> None:
        data = event.data
        if event.type == "question" and "declined" not in data:
            asked = {**data, "id": data["question_id"]}
            task = asyncio.create_task(self._put(data["tool"], asked))
            self._open[data["question_id"]] = (data["tool_call_id"], task)
        for question, (call, task) in list(self._open.items()):
            answered = event.type == "question_closed" and data["question_id"] == question
            if answered or (event.type == "tool_output" and data["tool_call_id"] == call):
                task.cancel()
                del self._open[question]

    async def end(self) -> None:
        for _, task in self._open.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in self._open.values()), return_exceptions=True)

    async def _put(self, tool: str, asked: Mapping[str, Any]) -> None:
        async with self._one:
            if not await _answer(self._client, self._keyboard, tool, asked) and self._chat is not None:
                self.left = True
                self._chat.cancel()


def _line(event: ReceivedEvent) -> str | None:
    """What the log would say, without what the person has seen already, or is shown before the next prompt."""
    if event.type in ("assistant_message", "turn_complete", "approval_required") or event.data.get("status") == "started":
        return None
    if event.type == "question" and "declined" not in event.data:
        return None
    if event.type == "assistant_chunk":
        return "(the answer was cut off; requesting it again)"
    line = transcript.line(Draft(event.type, event.data, datetime.fromisoformat(event.time)))
    return None if line is None else line.partition(" ")[2]
