"""`python -m session_runtime chat URL`: talk to a session from a terminal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import httpx

from session_runtime import transcript
from session_runtime.client import ReceivedEvent, SessionClient, SessionError
from session_runtime.events import Draft, ends_submission

TOKEN_ENV: Final = "AGENTSESSION_TOKEN"  # noqa: S105 - a name, not a token

HELP: Final = """\
Say something and press Enter. While the agent works, Ctrl-C interrupts it; at the prompt, Ctrl-D leaves (the session
goes on without you). Commands: /undo, /compact, /approve, /deny, /shutdown."""


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
        print(f"Set {options.token_env} to the session's token; `--token-env` names another variable.", file=sys.stderr)
        return 2
    try:
        asyncio.run(_chat(options.url, token))
    except (SessionError, httpx.TransportError, ConnectionError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


async def _chat(url: str, token: str) -> None:
    async with SessionClient(url, token, patience=10.0) as client:
        info = await client.info()
        print(f"{info['namespace']}/{info['name']} of {info['user']}. {HELP}")
        while info["is_active"]:
            try:
                said = (await asyncio.to_thread(input, "> ")).strip()
            except EOFError:
                return
            if said:
                await _submit(client, said)
            info = await client.info()
        print(f"The session has finished: {info['outcome_message']}")


async def _submit(client: SessionClient, said: str) -> None:
    """Send one line and show what comes of it."""
    try:
        submission, type_ = await _send(client, said)
    except SessionError as error:
        print(error)
        return
    loop = asyncio.get_running_loop()
    interrupts: set[asyncio.Task[str]] = set()
    loop.add_signal_handler(signal.SIGINT, lambda: interrupts.add(loop.create_task(client.submit("interrupt"))))
    try:
        await _show(client, submission, type_)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        with contextlib.suppress(SessionError, httpx.TransportError):
            await asyncio.gather(*interrupts)


async def _send(client: SessionClient, said: str) -> tuple[str, str]:
    if said in ("/approve", "/deny"):
        pending = (await client.info())["pending_approval"]
        decisions = [{"tool_call_id": call["tool_call_id"], "approved": said == "/approve"} for call in pending]
        return await client.submit("approval", decisions=decisions), "approval"
    if said in ("/undo", "/compact", "/shutdown"):
        return await client.submit(said[1:]), said[1:]
    return await client.submit("user_input", text=said), "user_input"


async def _show(client: SessionClient, submission: str, type_: str) -> None:
    """Print the events of a submission up to its last one; the answer as it is written."""
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
        if ends_submission(type_, event.type):
            return


def _line(event: ReceivedEvent) -> str | None:
    """What the log would say, without what the person has seen already."""
    if event.type in ("assistant_message", "turn_complete") or event.data.get("status") == "started":
        return None
    line = transcript.line(Draft(event.type, event.data, datetime.fromisoformat(event.time)))
    return None if line is None else line.partition(" ")[2]
