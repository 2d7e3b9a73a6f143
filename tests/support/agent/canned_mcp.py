"""MCP servers that answer with the bytes that a test gives: `python canned_mcp.py FILE` speaks stdio."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

Body = bytes | Callable[[], Any]
Answers = Mapping[str, str]
"""By method: the `result` as JSON text. `tools/list` may have a `tools/list CURSOR` for each further page."""

HELLO = json.dumps(
    {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": {"name": "c", "version": "1"},
    }
)


def tools(*named: object) -> str:
    """The result of `tools/list`: a name stands for a tool that only reads."""
    listed = [
        {"name": each, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}
        if isinstance(each, str)
        else each
        for each in named
    ]
    return json.dumps({"tools": listed})


def answer(answers: Answers, request: Mapping[str, Any]) -> str | None:
    """The answer to a request as one line of JSON; None for a notification."""
    if "id" not in request or "method" not in request:
        return None
    method, number = request["method"], json.dumps(request["id"])
    if method == "initialize":
        return f'{{"jsonrpc":"2.0","id":{number},"result":{answers.get("initialize", HELLO)}}}'
    cursor = request.get("params", {}).get("cursor")
    key = method if cursor is None else f"{method} {cursor}"
    if key not in answers:
        return f'{{"jsonrpc":"2.0","id":{number},"error":{{"code":-32601,"message":"Method not found"}}}}'
    if answers[key].startswith("error "):
        return f'{{"jsonrpc":"2.0","id":{number},"error":{answers[key][6:]}}}'
    return f'{{"jsonrpc":"2.0","id":{number},"result":{answers[key]}}}'


Respond = Callable[[dict[str, Any], Callable[..., Awaitable[None]]], Awaitable[bool]]
"""Takes a request and `send`; True when it has answered itself."""


def canned_app(
    answers: Answers, *, sse: bool = False, respond: Respond | None = None, seen: list[str] | None = None
) -> Callable[..., Any]:
    """An ASGI application that answers POST as `answers` says, as JSON or as an event stream, and refuses GET."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while scope["method"] == "POST":
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body) if body else {}
        request["_method"] = scope["method"]
        if seen is not None:
            seen.append(request.get("method", scope["method"]))
        if respond is not None and await respond(request, send):
            return
        if scope["method"] != "POST":
            await reply(send, 405)
            return
        said = answer(answers, request)
        if said is None:
            await reply(send, 202)
        elif sse:
            await reply(send, 200, f"event: message\ndata: {said}\n\n".encode(), "text/event-stream")
        else:
            await reply(send, 200, said.encode())

    return app


async def reply(
    send: Any, status: int, body: bytes = b"", content_type: str = "application/json", *more: tuple[bytes, bytes]
) -> None:
    """A whole HTTP answer."""
    headers = [(b"content-type", content_type.encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def stdio_command(folder: Path, answers: Answers, **raw: bytes) -> tuple[str, ...]:
    """A command that speaks stdio; `raw` has bytes by tool's name, which are written before the answer to its call;
    `<id>` in them stands for the id of the request."""
    file = folder / "answers.json"
    encoded = {name: base64.b64encode(value).decode() for name, value in raw.items()}
    file.write_text(json.dumps({"answers": dict(answers), "raw": encoded}))
    return (sys.executable, __file__, str(file))


def serve(file: str) -> None:
    given = json.loads(Path(file).read_text())
    for line in sys.stdin.buffer:
        request = json.loads(line)
        name = request.get("params", {}).get("name", "")
        if request.get("method") == "tools/call" and name in given["raw"]:
            sys.stdout.buffer.write(base64.b64decode(given["raw"][name]).replace(b"<id>", str(request["id"]).encode()))
        said = answer(given["answers"], request)
        if said is not None:
            sys.stdout.buffer.write(said.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
