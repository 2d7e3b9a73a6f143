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
    async with SessionClient(url, token, on_trouble=_tell_trouble) as client:
        while info["is_active"]:
            _tell_state(info)
            said = await _ask("> ")
            if said is None:
                return
            if said.strip():
                await _submit(client, said.strip())
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
        arguments = transcript.flat(json.dumps(call["arguments"], ensure_ascii=False), transcript.MESSAGE_CHARACTERS)
        reason = f" ({transcript.flat(call['reason'], transcript.OUTPUT_CHARACTERS)})" if call["reason"] else ""
        print(f"waiting for /approve or /deny: {call['tool']} {arguments}{reason}")


async def _ask(prompt: str) -> str | None:
    """A line that the person types; None at the end of the input.

    In a thread that nobody waits for: Ctrl-C must not have to wait for an Enter.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str | None] = loop.create_future()

    def answered(line: str | None) -> None:
        if not answer.done():
            answer.set_result(line)

    def read() -> None:
        try:
            line: str | None = input(prompt)
        except (EOFError, UnicodeDecodeError):
            line = None
        loop.call_soon_threadsafe(answered, line)

    threading.Thread(target=read, name="input", daemon=True).start()
    return await answer


async def _submit(client: SessionClient, said: str) -> None:
    """Send one line and show what comes of it. Ctrl-C interrupts the agent, a second one leaves."""
    loop, chat = asyncio.get_running_loop(), asyncio.current_task()
    interrupts: set[asyncio.Task[str]] = set()

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
            await _show(client, submission)
    except SessionError as error:
        print(error)
    except asyncio.CancelledError:
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
        decisions = [{"tool_call_id": call["tool_call_id"], **verdict} for call in pending]
        return await client.submit("approval", decisions=decisions)
    if said in COMMANDS:
        return await client.submit(command.removeprefix("/"))
    return await client.submit("user_input", text=said)


async def _show(client: SessionClient, submission: str) -> None:
    """Print the events of a submission, the answer as it is written."""
    writing = False
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


def _line(event: ReceivedEvent) -> str | None:
    """What the log would say, without what the person has seen already, or is shown before the next prompt."""
    if event.type in ("assistant_message", "turn_complete", "approval_required") or event.data.get("status") == "started":
        return None
    if event.type == "assistant_chunk":
        return "(the answer was cut off; requesting it again)"
    line = transcript.line(Draft(event.type, event.data, datetime.fromisoformat(event.time)))
    return None if line is None else line.partition(" ")[2]
