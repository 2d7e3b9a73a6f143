"""Sessions on a real cluster, as the end-to-end tests apply them and talk to them."""

from __future__ import annotations

import json
from typing import Any

from support.api import session
from support.installation import SYSTEM, Kubectl
from support.waiting import eventually

NAMESPACE = "e2e"


TALK = """
import asyncio, json, sys
from session_runtime.client.client import SessionClient

async def main(token, text):
    async with SessionClient("http://127.0.0.1:8080", token) as client:
        if text is not None:
            await client.run(text)
        last, events = (await client.info())["last_seq"], []
        async for event in client.events():
            events.append([event.seq, event.type])
            if event.seq == last:
                break
        print(json.dumps({"messages": await client.messages(), "events": events}))

asyncio.run(main(**json.load(sys.stdin)))
"""
"""The project's own client, in the agent's container."""


ASK = (
    "import json, sys, urllib.request\n"
    "given = json.load(sys.stdin)\n"
    "body = given['body'] and json.dumps(given['body']).encode()\n"
    "request = urllib.request.Request('http://127.0.0.1:8080' + given['path'], body)\n"
    "request.add_header('Authorization', 'Bearer ' + given['token'])\n"
    "request.add_header('Content-Type', 'application/json')\n"
    "print(urllib.request.urlopen(request).read().decode())\n"
)


class Sessions:
    """Applies sessions and waits for what becomes of them."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl

    def apply(self, name: str, *, model: str | None = None, **spec: Any) -> dict[str, Any]:
        """Apply a session; with a `model` it goes to the scripted server."""
        if model is not None:
            spec = {"className": "scripted", "agent": {"model": f"openai/{model}"}, **spec}
        self.kubectl("-n", NAMESPACE, "delete", "agentsession", name, "--ignore-not-found")
        self.kubectl("-n", NAMESPACE, "apply", "-f", "-", text=json.dumps(session(name, **spec)))
        return self.read(name)

    def read(self, name: str) -> dict[str, Any]:
        return self.kubectl.json("-n", NAMESPACE, "get", "agentsession", name)

    def wait_for_phase(self, name: str, *phases: str, within: float = 60) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            body = self.read(name)
            assert body.get("status", {}).get("phase") in phases, body.get("status")
            return body

        return eventually(look, within=within, what=f"{name} to be {' or '.join(phases)}")

    def logs(self, name: str, container: str = "agent") -> str:
        pod = self.read(name)["status"]["podName"]
        return self.kubectl("-n", NAMESPACE, "logs", pod, "-c", container)

    def ask(self, name: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call the session's own API, from inside its pod; a GET without a body."""
        return self._in_pod(name, ASK, path=path, body=body)

    def talk(self, name: str, text: str | None = None) -> dict[str, Any]:
        """Say something and wait for the end of the turn; the session's `messages` and `events` afterwards."""
        return self._in_pod(name, TALK, text=text)

    def _in_pod(self, name: str, script: str, **given: Any) -> dict[str, Any]:
        """Run a script in the agent's container, with the session's token and what is given as JSON; its answer."""
        token = self.kubectl(
            *("-n", SYSTEM, "exec", "deploy/agentsession-operator", "--"),
            *("python3", "-m", "agentsession_operator", "token", f"{NAMESPACE}/{name}"),
        )
        pod = self.read(name)["status"]["podName"]
        command = ("exec", "-i", pod, "-c", "agent", "--", "python3", "-c", script)
        text = json.dumps({"token": token.strip(), **given})
        answer: dict[str, Any] = json.loads(self.kubectl("-n", NAMESPACE, *command, text=text))
        return answer

    def requests(self, model: str) -> list[dict[str, Any]]:
        """What the scripted server was asked by sessions of one model."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/scripted:8080/proxy/requests"
        return [item for item in json.loads(self.kubectl("get", "--raw", path)) if item["model"] == model]

    def script(self, model: str, steps: list[dict[str, Any]]) -> None:
        """Make the scripted server say this to sessions of one model."""
        post = "import sys, urllib.request as r; r.urlopen('http://127.0.0.1:8080/scripts', sys.stdin.buffer.read())"
        command = ("python3", "-c", post)
        self.kubectl("-n", NAMESPACE, "exec", "-i", "scripted", "--", *command, text=json.dumps({model: steps}))

    def run(self, name: str, *commands: str, **spec: Any) -> list[str]:
        """What commands print that one turn of a session of this name runs one after the other. It has to end well."""
        bash = [{"tools": [{"name": "bash", "arguments": {"command": command}}]} for command in commands]
        self.script(name, [*bash, {"content": "I am still here."}])
        self.apply(name, model=name, **spec)
        done = self.wait_for_phase(name, "Completed", within=120)
        assert done["status"]["lastMessage"] == "I am still here."
        return [message["content"] for message in self.requests(name)[-1]["messages"] if message["role"] == "tool"]

    def restarts(self, name: str) -> dict[str, int]:
        """How often the kubelet has started each container of the session's pod again."""
        pod = self.kubectl.json("-n", NAMESPACE, "get", "pod", self.read(name)["status"]["podName"])
        return {status["name"]: status["restartCount"] for status in pod["status"]["containerStatuses"]}
