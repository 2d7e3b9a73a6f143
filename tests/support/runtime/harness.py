"""A whole runtime for tests: the real server on loopback, a real workspace behind a real socket, a model with a script."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from agent.loop.compaction import SUMMARY_REQUEST
from agent.messages import Message
from agent.model.answer import ModelChunk
from agent.testing import Reply, ScriptedModel
from agent.workspace.local import LocalWorkspace
from session_runtime.__main__ import bind
from session_runtime.client.client import ReceivedEvent, SessionClient
from session_runtime.process import Options, serve
from session_runtime.wire import AgentSettings, ApprovalRule, SessionConfig, config_to_environment
from session_runtime.workspace.server import Server as WorkspaceServer
from session_runtime.workspace.server import command_environment

TOKEN = "the-session-token"
ROOT = Path(__file__).parents[3]

DEADLINE = 60.0
"""Seconds after which a condition that does not come true fails the test."""


class ConversationModel(ScriptedModel):
    """Answers by how many answers the conversation already has, so that it continues correctly after a restart."""

    def __init__(self, *replies: Reply, images: bool = False) -> None:
        super().__init__(images=images)
        self.replies = replies
        self.calls = 0

    async def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
        self.calls += 1
        number = sum(message.role == "assistant" for message in messages)
        async for chunk in self.replies[number].play(number):
            yield chunk


class AnsweringModel(ScriptedModel):
    """Answers by what the user has said last, so that it continues correctly after a compaction too."""

    def __init__(self, answers: Mapping[str, Sequence[Reply]], images: bool = False) -> None:
        super().__init__(images=images)
        self.answers = answers

    async def stream(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> AsyncIterator[ModelChunk]:
        if messages[0].content == SUMMARY_REQUEST:
            reply, number = Reply("What came before, in short."), 0
        else:
            said_at = max(at for at, message in enumerate(messages) if message.from_person)
            number = sum(message.role == "assistant" for message in messages[said_at:])
            reply = self.answers[messages[said_at].content][number]
        async for chunk in reply.play(number):
            yield chunk


def asking(glob: str) -> AgentSettings:
    """The scripted model's settings, with a policy under which bash commands that match need a person's approval."""
    rule = ApprovalRule(tool="bash", arguments={"command": glob}, action="Ask")
    return AgentSettings(model="scripted", approval_policy=(rule,))


def config(**fields: Any) -> SessionConfig:
    """A session with the harness's token."""
    defaults: dict[str, Any] = {
        "uid": "7f3c",
        "namespace": "team",
        "name": "demo",
        "user": "ann",
        "agent": AgentSettings(model="scripted"),
        "token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
    }
    return SessionConfig(**{**defaults, **fields})


@dataclass
class Runtime:
    """A runtime that runs."""

    url: str
    folder: Path
    model: ConversationModel
    process: asyncio.Task[int]
    http: httpx.AsyncClient = field(repr=False)

    def client(self, token: str = TOKEN) -> SessionClient:
        return SessionClient(self.url, token, patience=5.0)

    async def submit(self, type_: str, **fields: Any) -> httpx.Response:
        return await self.http.post("/v1/submissions", json={"type": type_, **fields})

    async def events(self, **options: Any) -> list[ReceivedEvent]:
        """All events of the client's stream, which has to end."""
        async with self.client() as client, asyncio.timeout(DEADLINE):
            return [event async for event in client.events(**options)]

    async def until(self, type_: str, after: int = 0) -> ReceivedEvent:
        """The first event of this type behind number `after`."""
        async with self.client() as client, asyncio.timeout(DEADLINE):
            async for event in client.events(after=after):
                if event.type == type_:
                    return event
        raise AssertionError(f"no {type_}")

    async def ended(self) -> int:
        """The exit status."""
        async with asyncio.timeout(DEADLINE):
            return await self.process

    @property
    def termination_log(self) -> Path:
        return self.folder / "termination-log"


@asynccontextmanager
async def runtime(folder: Path, *replies: Reply, stuck_milliseconds: int = 60_000, **fields: Any) -> AsyncIterator[Runtime]:
    """A runtime in this process, with its state in `folder`. It is shut down at the end."""
    for name in ("state", "work"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "termination-log").touch()
    listener = bind(0, stuck_milliseconds)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    model = ConversationModel(*replies)
    options = Options(folder / "state", folder / "w.sock", folder / "ended", folder / "token", folder / "termination-log")
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        serving = asyncio.create_task(serve_workspace(folder))
        process = asyncio.create_task(serve(listener, config(**fields), options, lambda _: model))
        run = Runtime(url, folder, model, process, http)
        try:
            yield run
        finally:
            if not process.done():
                await run.submit("shutdown")
            async with asyncio.timeout(DEADLINE):
                await asyncio.wait([process])
                serving.cancel()
                await asyncio.wait([serving])


async def serve_workspace(folder: Path) -> int:
    (folder / "work").mkdir(exist_ok=True)
    root = folder / "work"
    workspace = LocalWorkspace(root, command_environment(root, os.environ))
    return await WorkspaceServer(workspace, end_marker=folder / "ended").serve(folder / "w.sock")


async def eventually(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(DEADLINE):
        while True:
            result = condition()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z" and os.path.exists(f"/proc/{pid}")


def reply_from_json(fields: Mapping[str, Any]) -> Reply:
    return Reply(**{**fields, "calls": tuple((name, json.dumps(arguments)) for name, arguments in fields.get("calls", ()))})


@dataclass
class RuntimeProcess:
    """A runtime in a process of its own, which can be killed and started again on the same state.

    Without a script it asks the model that its session names.
    """

    folder: Path
    script: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Mapping[str, Any]]]
    """Answers in order, or by what the user has said last."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    url: str = ""

    async def start(self, *, keep_port: bool = False) -> None:
        """Start it, and wait until it is ready."""
        await self.spawn(keep_port=keep_port)
        async with httpx.AsyncClient(base_url=self.url) as http:
            await eventually(lambda: _ready(http))

    async def spawn(self, *, keep_port: bool = False) -> None:
        """Start it."""
        if not keep_port:
            self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        (self.folder / "termination-log").touch()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *((str(Path(__file__).parent / "scripted_runtime.py"),) if self.script else ("-m", "session_runtime")),
            *("--port", port),
            *("--state-dir", str(self.folder / "state")),
            *("--workspace-socket", str(self.folder / "w.sock")),
            *("--session-end", str(self.folder / "ended")),
            *("--report-token", str(self.folder / "token")),
            *("--termination-log", str(self.folder / "termination-log")),
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                "SCRIPT": json.dumps(self.script),
                **config_to_environment(config(**self.fields)),
                **self.environment,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    def client(self) -> SessionClient:
        return SessionClient(self.url, TOKEN, patience=DEADLINE)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
            return await http.get(path)

    async def post(self, submission: Mapping[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=DEADLINE) as http:
            return await http.post("/v1/submissions", json=submission)

    async def events(self, **options: Any) -> list[ReceivedEvent]:
        async with self.client() as client, asyncio.timeout(DEADLINE):
            return [event async for event in client.events(**options)]

    async def until(self, type_: str, after: int = 0) -> ReceivedEvent:
        async with self.client() as client, asyncio.timeout(DEADLINE):
            async for event in client.events(after=after):
                if event.type == type_:
                    return event
        raise AssertionError(f"no {type_}")

    def memory(self) -> int:
        """Bytes of its resident memory."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def end(self, number: int | None = None) -> tuple[int, str]:
        """Wait for its end, after sending it a signal, if any; its exit status and what it printed."""
        assert self.process is not None
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE):
            printed, _ = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, printed.decode()


@asynccontextmanager
async def runtime_process(
    folder: Path,
    *script: Mapping[str, Any],
    answers: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    environment: Mapping[str, str] | None = None,
    start: bool = True,
    **fields: Any,
) -> AsyncIterator[RuntimeProcess]:
    """A runtime process, started unless told otherwise, with a workspace beside it.

    Its model answers with `script`, or with `answers` by what the user has said last.
    """
    serving = asyncio.create_task(serve_workspace(folder))
    run = RuntimeProcess(folder, answers or script, fields, environment or {})
    try:
        if start:
            await run.start()
        yield run
    finally:
        if run.process is not None and run.process.returncode is None:
            run.process.kill()
            await run.process.communicate()
        serving.cancel()
        await asyncio.wait([serving])


async def _ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
