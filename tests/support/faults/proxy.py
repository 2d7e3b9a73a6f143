"""An HTTP proxy between an operator and its API server, which does to the traffic what rules say.

The operator speaks plain HTTP to it and presents its own token, which is passed on: its rights stay those of its account.
To the server it speaks TLS. It numbers the writes, and keeps a record of every exchange and of every watch event delivered.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import web

from support.faults.background import Background
from support.faults.gates import Gates, Unanswered
from support.faults.request import JSON, Request, When
from support.faults.rules import (
    ANSWER,
    REQUEST,
    Alter,
    Answer,
    Close,
    Delay,
    Drop,
    Duplicate,
    EventRule,
    EventStep,
    Hold,
    Kill,
    Reorder,
    Replace,
    Reset,
    Rule,
    Step,
    Swallow,
)
from support.faults.traffic import Delivered, Exchange, Stream

_HOP_BY_HOP: Final = frozenset({"host", "connection", "transfer-encoding", "content-length", "accept-encoding", "keep-alive"})
_BIGGEST_BODY: Final = 64 * 2**20


@dataclass(slots=True)
class _Reply:
    code: int
    headers: Mapping[str, str]
    body: bytes


class Proxy:
    """Its methods are for the test's thread; what serves runs in the background's."""

    def __init__(self, kubeconfig: Path, background: Background, kill: Callable[[], None]) -> None:
        """`kubeconfig` names the server and its CA; `kill` kills the operator and returns when it is dead."""
        self._config = yaml.safe_load(kubeconfig.read_text())
        self._kill, self._background = kill, background
        self.exchanges: list[Exchange] = []
        self.delivered: list[Delivered] = []
        self._rules: list[Rule] = []
        self._event_rules: list[EventRule] = []
        self._matched: dict[Rule | EventRule, int] = {}
        self._gates = Gates()
        self._streams: set[Stream] = set()
        self._writes = 0
        self.port = 0

    # The test's side.

    def use(self, *rules: Rule | EventRule) -> None:
        """Add rules; those that were there before come first."""
        self._rules += [rule for rule in rules if isinstance(rule, Rule)]
        self._event_rules += [rule for rule in rules if isinstance(rule, EventRule)]

    def clear(self) -> None:
        """Forget all rules. What is held stays held."""
        self._rules, self._event_rules = [], []

    def held(self, key: str) -> int:
        """How many requests and watches wait for this key now."""
        return self._gates.held(key)

    def release(self, key: str) -> None:
        """Let everything go that waits for this key, or will."""
        self._background.loop.call_soon_threadsafe(self._gates.release, key)

    def seen(self, when: When) -> list[Exchange]:
        """The exchanges so far whose request matches."""
        return [exchange for exchange in list(self.exchanges) if when(exchange.request)]

    def writes(self, when: When = lambda _: True) -> list[Exchange]:
        """The numbered writes so far that match, refused and unanswered ones included."""
        return [exchange for exchange in self.seen(when) if exchange.request.write]

    def has_delivered(self, resource: str, name: str, kind: str = "") -> bool:
        """Whether the operator was given an event of this object."""
        return any(item.resource == resource and item.name == name and kind in ("", item.kind) for item in list(self.delivered))

    def watching(self, resource: str) -> int:
        """How many watches of a resource are open."""
        return sum(stream.open for stream in list(self._streams) if stream.resource == resource)

    def inject(self, resource: str, line: str) -> None:
        """Put a line into every open watch of a resource, for example `error_event(410)`."""
        self._to_streams(resource, line.encode())

    def close_watches(self, resource: str) -> None:
        """End every open watch of a resource, as the server does when its time is up."""
        self._to_streams(resource, None)

    def write_kubeconfig(self, path: Path) -> Path:
        """A kubeconfig for the operator: the same user, and the proxy for a server."""
        clusters = [{**item, "cluster": {"server": f"http://127.0.0.1:{self.port}"}} for item in self._config["clusters"]]
        path.write_text(yaml.safe_dump({**self._config, "clusters": clusters}))
        return path

    def _to_streams(self, resource: str, line: bytes | None) -> None:
        def put() -> None:
            for stream in self._streams:
                if stream.resource == resource and stream.open:
                    stream.lines.put_nowait(line)

        self._background.loop.call_soon_threadsafe(put)

    # Starting and stopping.

    @contextlib.contextmanager
    def serving(self) -> Iterator[Proxy]:
        """Serve on a free port of the loopback address."""
        self._background.run(self._start())
        try:
            yield self
        finally:
            self._background.run(self._stop())

    async def _start(self) -> None:
        cluster = self._config["clusters"][0]["cluster"]
        self._server = cluster["server"].rstrip("/")
        authority = cluster.get("certificate-authority-data")
        tls = ssl.create_default_context(
            cafile=cluster.get("certificate-authority"), cadata=base64.b64decode(authority).decode() if authority else None
        )
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._client = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        application = web.Application(client_max_size=_BIGGEST_BODY)
        application.router.add_route("*", "/{path:.*}", self._handle)
        # A request is carried out though the operator has hung up: that is what makes an unanswered write dangerous.
        self._runner = web.AppRunner(application, handler_cancellation=False, shutdown_timeout=1.0, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        self._gates.stop()
        for stream in self._streams:
            stream.lines.put_nowait(None)
        await self._runner.cleanup()
        await self._client.close()

    # One request.

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        raw = await incoming.read()
        request = self._number(incoming, raw)
        exchange = Exchange(request, time.monotonic())
        self.exchanges.append(exchange)
        rule = self._applicable(self._rules, lambda rule: rule.when(request))
        steps = rule.steps if rule else ()
        try:
            reply = await self._before(rule, steps, incoming)
            if reply is None and request.verb == "watch":
                return await self._watch(incoming, exchange)
            if reply is None:
                reply = await self._carry_out(rule, steps, incoming, exchange, raw)
        except Unanswered:
            await self._gates.stopping.wait()
            _reset(incoming)
            return web.Response(status=503)
        exchange.answered = reply.code
        return web.Response(status=reply.code, headers=reply.headers, body=reply.body)

    def _number(self, incoming: web.Request, raw: bytes) -> Request:
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            body = {}
        request = Request(
            incoming.method,
            incoming.path,
            dict(incoming.query),
            body if isinstance(body, dict) else {},
            incoming.headers.get("User-Agent", ""),
        )
        if not request.is_write:
            return request
        self._writes += 1
        return Request(request.method, request.path, request.query, request.body, request.agent, self._writes)

    def _applicable(self, rules: list[Any], matches: Callable[[Any], bool]) -> Any:
        """The first rule that matches and is not used up; its use is counted."""
        for rule in list(rules):
            if matches(rule):
                number = self._matched[rule] = self._matched.get(rule, 0) + 1
                if number > rule.skip and (rule.times is None or number <= rule.skip + rule.times):
                    return rule
        return None

    async def _before(self, rule: Rule | None, steps: tuple[Step, ...], incoming: web.Request) -> _Reply | None:
        """Steps before the request is forwarded. A reply where one of them answers for the server."""
        for step in steps:
            match step:
                case Answer(at="request"):
                    return _reply(step)
                case Reorder():
                    assert rule is not None
                    await self._gates.wait_for_turn(rule, step)
                case _:
                    await self._common(step, REQUEST, incoming)
        return None

    async def _carry_out(
        self, rule: Rule | None, steps: tuple[Step, ...], incoming: web.Request, exchange: Exchange, raw: bytes
    ) -> _Reply:
        try:
            reply = await self._forward(incoming, exchange, raw)
        finally:
            if rule is not None:
                self._gates.turn_ended(rule)
        exchange.code = reply.code
        exchange.uid = _uid(reply.body)
        for step in steps:
            match step:
                case Duplicate(times):
                    for _ in range(times):
                        await self._forward(incoming, exchange, raw)
                case Answer(at="answer"):
                    reply = _reply(step)
                case _:
                    await self._common(step, ANSWER, incoming)
        return reply

    async def _common(self, step: Step, now: str, incoming: web.Request) -> None:
        """Steps that may stand before the request and after it."""
        match step:
            case Delay(seconds, at) if at == now:
                await self._gates.sleep(seconds)
            case Hold(key, at) if at == now:
                await self._gates.hold(key)
            case Drop(at) if at == now:
                raise Unanswered
            case Reset(at) if at == now:
                _reset(incoming)
            case Kill(at) if at == now:
                await asyncio.to_thread(self._kill)

    async def _forward(self, incoming: web.Request, exchange: Exchange, raw: bytes) -> _Reply:
        exchange.forwarded += 1
        async with self._client.request(
            incoming.method, self._server + incoming.raw_path, headers=_passed(incoming.headers), data=raw or None
        ) as answer:
            return _Reply(answer.status, _passed(answer.headers), await answer.read())

    # Watches.

    async def _watch(self, incoming: web.Request, exchange: Exchange) -> web.StreamResponse:
        exchange.forwarded += 1
        resource = exchange.request.resource
        async with self._client.get(self._server + incoming.raw_path, headers=_passed(incoming.headers)) as answer:
            exchange.code = exchange.answered = answer.status
            if answer.status != 200:
                return web.Response(status=answer.status, headers=_passed(answer.headers), body=await answer.read())
            response = web.StreamResponse(headers=_passed(answer.headers))
            await response.prepare(incoming)
            stream = Stream(resource, incoming)
            self._streams.add(stream)
            pump = asyncio.create_task(stream.pump(answer.content))
            try:
                await self._pass_lines(stream, response)
            except (ConnectionError, Unanswered):
                pass  # the operator has hung up, or the proxy stops
            finally:
                self._streams.discard(stream)
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)
                answer.close()  # the server would keep the watch open, and the connection with it
        return response

    async def _pass_lines(self, stream: Stream, response: web.StreamResponse) -> None:
        while (line := await stream.lines.get()) is not None:
            if not line.strip():
                continue
            parsed = json.loads(line)
            kind, body = str(parsed.get("type")), parsed.get("object") or {}
            step = await self._event_step(stream.resource, kind, body)
            if isinstance(step, Close):
                return
            if isinstance(step, Swallow):
                continue
            if isinstance(step, Replace):
                line = step.line.encode()
            if isinstance(step, Alter):
                line = json.dumps({**parsed, "object": step.change(body)}).encode()
            await response.write(line + b"\n")
            meta = body.get("metadata") or {}
            self.delivered.append(
                Delivered(
                    stream.resource,
                    kind,
                    meta.get("name", ""),
                    meta.get("uid", ""),
                    int(meta.get("resourceVersion") or 0),
                    time.monotonic(),
                )
            )

    async def _event_step(self, resource: str, kind: str, body: JSON) -> EventStep | None:
        rule = self._applicable(self._event_rules, lambda rule: rule.when(resource, kind, body))
        if rule is None:
            return None
        step: EventStep = rule.step
        if isinstance(step, Hold):
            await self._gates.hold(step.key)
        elif isinstance(step, Delay):
            await self._gates.sleep(step.seconds)
        return step


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def _reply(step: Answer) -> _Reply:
    headers = {"Content-Type": "application/json"}
    if step.retry_after is not None:
        headers["Retry-After"] = str(step.retry_after)
    return _Reply(step.code, headers, step.text().encode())


def _uid(raw: bytes) -> str:
    try:
        body = json.loads(raw)
    except ValueError:
        return ""
    return str((body.get("metadata") or {}).get("uid", "")) if isinstance(body, dict) else ""


def _reset(incoming: web.Request) -> None:
    """RST instead of FIN: closing a socket that must not linger."""
    transport = incoming.transport
    if transport is None or transport.is_closing():
        return
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
