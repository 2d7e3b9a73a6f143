"""A scripted OpenAI-compatible server, for deterministic tests only: no model runs here.

`python scripted_openai.py SCRIPTS.json` serves chat completions on port 8080. SCRIPTS maps model names to lists of steps; the
step is chosen by the number of assistant messages in the request, so the server keeps no state of its own and any number of
sessions can use one script. A step is {"content": TEXT} or {"tools": [{"name": ..., "arguments": {...}}]}, with an optional
"delay" in seconds before its last chunk. `GET /requests` gives every request's messages, `POST /scripts` adds scripts. Standard
library only.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REQUESTS: list[dict[str, Any]] = []


def chunks(model: str, step: dict[str, Any], turn: int) -> list[dict[str, Any]]:
    """The server-sent chunks of one step, as OpenAI's API cuts them."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": f"scripted-{turn}", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [choice]}

    if "tools" in step:
        calls = [
            {
                "index": index,
                "id": f"call-{turn}-{index}",
                "type": "function",
                "function": {"name": tool["name"], "arguments": json.dumps(tool["arguments"])},
            }
            for index, tool in enumerate(step["tools"])
        ]
        parts = [chunk({"role": "assistant", "tool_calls": calls}), chunk({}, "tool_calls")]
    else:
        words = step["content"].split(" ")
        texts = [word + (" " if index + 1 < len(words) else "") for index, word in enumerate(words)]
        parts = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts), chunk({}, "stop")]
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return [*parts, {**chunk({}), "choices": [], "usage": usage}]


class Handler(BaseHTTPRequestHandler):
    """Chat completions by script."""

    scripts: dict[str, list[dict[str, Any]]]

    def do_GET(self) -> None:
        self._answer(200, REQUESTS if self.path == "/requests" else {"status": "ok"})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/scripts":
            self.scripts.update(request)
            self._answer(200, {})
            return
        REQUESTS.append({"model": request["model"], "messages": request["messages"]})
        script = self.scripts.get(request["model"])
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        if script is None or turn >= len(script):
            self._answer(400, {"error": {"message": f"no step {turn} in the script of {request['model']!r}", "code": 400}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        parts = chunks(request["model"], script[turn], turn)
        for index, part in enumerate(parts):
            if index == len(parts) - 2:
                time.sleep(script[turn].get("delay", 0))
            self.wfile.write(f"data: {json.dumps(part)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the requests can be read."""


class DualStackServer(ThreadingHTTPServer):
    """A server on every IPv4 and IPv6 address: the kubelet probes a pod at the address that the cluster gave it."""

    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def main() -> None:
    """Serve the scripts of the file that the first argument names, until killed."""
    Handler.scripts = json.loads(Path(sys.argv[1]).read_text())
    DualStackServer(("", 8080), Handler).serve_forever()


if __name__ == "__main__":
    main()
