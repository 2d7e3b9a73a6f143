"""A Hugging Face Hub on loopback, for the tests of the hub tools: repositories, discussions and jobs in memory.

It answers what huggingface_hub asks for, in the shapes that its parsers and the Hub's documentation describe
(https://huggingface.co/docs/hub/api), and the dataset viewer's (https://huggingface.co/docs/dataset-viewer). Nothing is
downloaded, nothing runs. It lives on the event loop of the test: a tool that blocked the loop would never be answered.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.agent.hub_shapes import AUTHOR, COMMIT, HARDWARE, PAPER, TIME, comment, discussion, job

TOKEN = "hf_loopbackTokenOfTheTests"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer; a body that is no bytes is sent as JSON."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False
    """The body is sent again and again, for as long as the client listens."""

    def encode(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        kind = "application/octet-stream" if isinstance(self.body, bytes) else "application/json"
        length = {} if self.endless else {"Content-Length": str(len(body))}
        headers = {"Content-Type": kind, **length, "Connection": "close", **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} X\r\n{lines}\r\n".encode() + body


def refused(status: int, code: str, message: str, **headers: str) -> Reply:
    """An error as the Hub reports it."""
    return Reply({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message, **headers})


@dataclass
class Repository:
    kind: str
    name: str
    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    branches: set[str] = field(default_factory=lambda: {"main"})
    tags: set[str] = field(default_factory=set)
    discussions: list[dict[str, Any]] = field(default_factory=list)

    def entry(self, path: str) -> dict[str, Any] | None:
        """As `tree` and `paths-info` describe a file or folder."""
        if path in self.files:
            size = len(self.files[path])
            lfs = {"oid": "ab" * 32, "size": size, "pointerSize": 134}
            return {"type": "file", "path": path, "oid": "cd" * 20, "size": size, **({"lfs": lfs} if path in self.lfs else {})}
        if any(file.startswith(f"{path}/") for file in self.files):
            return {"type": "directory", "path": path, "oid": "ef" * 20, "size": 0}
        return None


class HubServer:
    """What is on the Hub, and what was asked of it. `replies` come before everything else, by path."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.replies: dict[str, Reply] = {}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.scheduled: dict[str, dict[str, Any]] = {}
        self.logs: list[str] = []
        self.large: dict[str, bytes] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def add(self, kind: str, name: str, **files: bytes) -> Repository:
        self.repositories[kind, name] = Repository(kind, name, dict(files))
        return self.repositories[kind, name]

    def hold(self, path: str) -> asyncio.Event:
        """Leave requests for this path without an answer until the event is set."""
        self.held[path] = asyncio.Event()
        return self.held[path]

    def asked(self, method: str, path: str) -> list[Request]:
        return [request for request in self.requests if request.method == method and request.path == path]

    # -- HTTP ------------------------------------------------------------------------------------------------------

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            request = await self._receive(reader)
            self.requests.append(request)
            reply = self.answer(request)
            if request.path in self.held:
                await self.held[request.path].wait()
            writer.write(reply.encode())
            await writer.drain()
            while reply.endless:
                writer.write(reply.body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has heard enough
        finally:
            writer.close()
            self.tasks.discard(task)

    async def _receive(self, reader: asyncio.StreamReader) -> Request:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        address = urlsplit(target)
        return Request(method, address.path, parse_qs(address.query), headers, body)

    def answer(self, request: Request) -> Reply:
        if request.path in self.replies:
            return self.replies[request.path]
        for method, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match is not None and method == request.method:
                return handler(self, request, *match.groups())
        return refused(404, "RouteNotFound", f"{request.method} {request.path} is not served")

    def repository(self, kinds: str, name: str) -> Repository | None:
        return self.repositories.get((kinds.removesuffix("s"), name))

    # -- repositories ----------------------------------------------------------------------------------------------

    def search(self, request: Request, kinds: str) -> Reply:
        """Pages of two, with a Link to the next one, as the Hub's pages of up to a thousand."""
        query = request.query.get("search", [""])[0]
        found = [name for kind, name in self.repositories if f"{kind}s" == kinds and query in name]
        start = int(request.query.get("cursor", ["0"])[0])
        page = [
            {
                "id": name,
                "likes": 12,
                "downloads": 3456,
                "tags": ["text-generation", "region:us"],
                "private": False,
                "createdAt": TIME,
            }
            for name in found[start : start + 2]
        ]
        following = f'<{self.url}/api/{kinds}?search={query}&cursor={start + 2}>; rel="next"'
        return Reply(page, headers={"Link": following} if start + 2 < len(found) else {})

    def search_spaces(self, request: Request) -> Reply:
        about = f"Something about {request.query['q'][0]}"
        return Reply(
            [{"id": "ann/space", "sdk": "gradio", "likes": 3, "ai_short_description": about, "runtime": {"stage": "RUNNING"}}]
        )

    def info(self, request: Request, kinds: str, name: str, revision: str | None = None) -> Reply:
        repository = self.repository(kinds, name)
        if repository is None:
            return refused(404 if "authorization" in request.headers else 401, "RepoNotFound", "Repository not found")
        siblings = [{"rfilename": path} for path in repository.files]
        known = {"id": name, "sha": COMMIT, "lastModified": TIME, "private": False, "gated": "manual", "siblings": siblings}
        return Reply({**known, "tags": ["license:mit"], "likes": 1, "downloads": 2, "cardData": {"license": "mit"}})

    def tree(self, request: Request, kinds: str, name: str, revision: str, folder: str = "") -> Reply:
        repository = self.repository(kinds, name)
        if repository is None or revision not in repository.branches:
            return refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        prefix = f"{unquote(folder)}/" if folder else ""
        inside = {path[len(prefix) :].split("/")[0] for path in repository.files if path.startswith(prefix)}
        return Reply([repository.entry(prefix + part) for part in sorted(inside)])

    def paths_info(self, request: Request, kinds: str, name: str, revision: str) -> Reply:
        repository = self.repository(kinds, name)
        if repository is None:
            return refused(404, "RepoNotFound", "Repository not found")
        entries = [repository.entry(path) for path in parse_qs(request.body.decode())["paths"]]
        return Reply([entry for entry in entries if entry is not None])

    def resolve(self, request: Request, kinds: str | None, name: str, revision: str, path: str) -> Reply:
        repository = self.repository(kinds or "models", name)
        if repository is None or unquote(path) not in repository.files:
            return refused(404, "EntryNotFound", "Entry not found")
        content = repository.files[unquote(path)]
        start, end = map(int, re.findall(r"\d+", request.headers["range"]))
        if start >= len(content):
            return refused(416, "", "Range not satisfiable")
        return Reply(content[start : end + 1], 206)

    def refs(self, request: Request, kinds: str, name: str) -> Reply:
        repository = self.repositories[kinds.removesuffix("s"), name]
        heads = [{"name": one, "ref": f"refs/heads/{one}", "targetCommit": COMMIT} for one in sorted(repository.branches)]
        tags = [{"name": one, "ref": f"refs/tags/{one}", "targetCommit": COMMIT} for one in sorted(repository.tags)]
        return Reply({"branches": heads, "tags": tags, "converts": []})

    def change_ref(self, request: Request, kinds: str, name: str, what: str, ref: str) -> Reply:
        """A branch is named in the address; a new tag in the body, with the revision in the address."""
        repository = self.repositories[kinds.removesuffix("s"), name]
        refs = repository.branches if what == "branch" else repository.tags
        ref = request.json["tag"] if (what, request.method) == ("tag", "POST") else unquote(ref)
        if request.method == "POST":
            if ref in refs:
                return refused(409, "", f"Reference {ref} already exists")
            refs.add(ref)
        elif ref in refs:
            refs.remove(ref)
        else:
            return refused(404, "RevisionNotFound", f"Invalid rev id: {ref}")
        return Reply({})

    def create(self, request: Request) -> Reply:
        name = f"{request.json['organization']}/{request.json['name']}"
        self.add(request.json.get("type", "model"), name)
        return Reply({"url": f"{self.url}/{name}", "name": name})

    def preupload(self, request: Request, kinds: str, name: str, revision: str) -> Reply:
        repository = self.repository(kinds, name)
        if repository is None:
            return refused(404, "RepoNotFound", "Repository not found")
        modes = [
            {"path": path, "uploadMode": "lfs" if path in repository.lfs else "regular", "shouldIgnore": False}
            for path in (file["path"] for file in request.json["files"])
        ]
        return Reply({"files": modes})

    def lfs_batch(self, request: Request, kinds: str | None, name: str) -> Reply:
        """https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md"""
        objects = [{**one, "actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}} for one in request.json["objects"]]
        return Reply({"transfer": "basic", "objects": objects})

    def lfs_upload(self, request: Request, oid: str) -> Reply:
        self.large[oid] = request.body
        return Reply({})

    def commit(self, request: Request, kinds: str, name: str, revision: str) -> Reply:
        repository = self.repositories[kinds.removesuffix("s"), name]
        for line in map(json.loads, request.body.splitlines()):
            match line["key"], line["value"]:
                case "file", {"path": path, "content": content}:
                    repository.files[path] = base64.b64decode(content)
                case "lfsFile", {"path": path, "oid": oid}:
                    repository.files[path] = self.large[oid]
                case "deletedFile", {"path": path}:
                    del repository.files[path]
                case "deletedFolder", {"path": folder}:
                    repository.files = {path: file for path, file in repository.files.items() if not path.startswith(folder)}
        done = {"commitUrl": f"{self.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
        proposed = {"pullRequestUrl": f"{self.url}/{name}/discussions/7"} if "create_pr" in request.query else {}
        return Reply(done | proposed)

    # -- discussions -----------------------------------------------------------------------------------------------

    def discussions(self, request: Request, kinds: str, name: str) -> Reply:
        found = self.repositories[kinds.removesuffix("s"), name].discussions
        start = int(request.query["p"][0]) * 10
        return Reply({"discussions": found[start : start + 10], "count": len(found), "start": start})

    def discussion(self, request: Request, kinds: str, name: str, number: str) -> Reply:
        return Reply(self.repositories[kinds.removesuffix("s"), name].discussions[int(number) - 1])

    def open_discussion(self, request: Request, kinds: str, name: str) -> Reply:
        found = self.repositories[kinds.removesuffix("s"), name].discussions
        found.append(
            discussion(len(found) + 1, request.json["title"], name, kinds.removesuffix("s"), request.json["pullRequest"])
        )
        return Reply({"num": len(found)})

    def change_discussion(self, request: Request, kinds: str, name: str, number: str, what: str) -> Reply:
        one = self.repositories[kinds.removesuffix("s"), name].discussions[int(number) - 1]
        if what == "comment":
            return Reply({"newMessage": comment(request.json["comment"])})
        one["status"] = "merged" if what == "merge" else request.json["status"]
        change = {"id": "2", "type": "status-change", "createdAt": TIME, "author": AUTHOR, "data": {"status": one["status"]}}
        return Reply({"newStatus": change})

    # -- jobs ------------------------------------------------------------------------------------------------------

    def run(self, request: Request, namespace: str) -> Reply:
        self.jobs["j1"] = job("j1", namespace, request.json)
        return Reply(self.jobs["j1"])

    def one_job(self, request: Request, namespace: str, name: str) -> Reply:
        return Reply(self.jobs[name]) if name in self.jobs else refused(404, "", "Job not found")

    def cancel(self, request: Request, namespace: str, name: str) -> Reply:
        self.jobs[name]["status"]["stage"] = "CANCELED"
        return Reply({})

    def log(self, request: Request, namespace: str, name: str) -> Reply:
        tail = int(request.query.get("tail", ["0"])[0])
        events = [f"data: {json.dumps({'data': line, 'timestamp': TIME})}\n\n" for line in self.logs[-tail:]]
        return Reply("".join(events).encode(), headers={"Content-Type": "text/event-stream"})

    def schedule(self, request: Request, namespace: str) -> Reply:
        self.scheduled["s1"] = {
            "id": "s1",
            "createdAt": TIME,
            "jobSpec": request.json["jobSpec"],
            "schedule": request.json["schedule"],
            "suspend": False,
            "status": {"lastJob": None, "nextJobRunAt": TIME},
            "owner": {"id": "1", "name": namespace, "type": "user"},
        }
        return Reply(self.scheduled["s1"])

    def change_scheduled(self, request: Request, namespace: str, name: str, what: str = "") -> Reply:
        if request.method == "DELETE":
            del self.scheduled[name]
        elif what == "run":
            return Reply(job("j2", namespace, self.scheduled[name]["jobSpec"]))
        else:
            self.scheduled[name]["suspend"] = what == "suspend"
        return Reply({})


REPO = r"/api/(models|datasets|spaces)/([\w.-]+/[\w.-]+)"

ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("GET", r"/api/whoami-v2", lambda hub, request: Reply({"name": "ann", "type": "user"})),
    ("GET", r"/api/(models|datasets|spaces)", HubServer.search),
    ("GET", r"/api/spaces/semantic-search", HubServer.search_spaces),
    (
        "GET",
        r"/api/papers/search",
        lambda hub, request: Reply([{"paper": PAPER, "title": PAPER["title"], "publishedAt": TIME}]),
    ),
    ("GET", r"/api/papers/2307\.09288", lambda hub, request: Reply(PAPER)),
    ("GET", r"/papers/2307\.09288\.md", lambda hub, request: Reply(b"# Llama 2\n\nThe whole text.")),
    ("GET", REPO, HubServer.info),
    ("GET", REPO + r"/revision/(.+)", HubServer.info),
    ("GET", REPO + r"/tree/([^/]+)(?:/(.+))?", lambda hub, request, *parts: hub.tree(request, *(part or "" for part in parts))),
    ("POST", REPO + r"/paths-info/([^/]+)", HubServer.paths_info),
    ("GET", r"/(?:(datasets|spaces)/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", HubServer.resolve),
    ("GET", REPO + r"/refs", HubServer.refs),
    ("POST", REPO + r"/(branch|tag)/([^/]+)", HubServer.change_ref),
    ("DELETE", REPO + r"/(branch|tag)/([^/]+)", HubServer.change_ref),
    ("POST", r"/api/repos/create", HubServer.create),
    ("POST", r"/api/validate-yaml", lambda hub, request: Reply({"errors": [], "warnings": []})),
    ("POST", REPO + r"/preupload/([^/]+)", HubServer.preupload),
    ("POST", REPO + r"/commit/([^/]+)", HubServer.commit),
    ("POST", r"/(?:(datasets|spaces)/)?([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", HubServer.lfs_batch),
    ("PUT", r"/lfs/(\w+)", HubServer.lfs_upload),
    ("GET", REPO + r"/discussions", HubServer.discussions),
    ("POST", REPO + r"/discussions", HubServer.open_discussion),
    ("GET", REPO + r"/discussions/(\d+)", HubServer.discussion),
    ("POST", REPO + r"/discussions/(\d+)/(comment|merge|status)", HubServer.change_discussion),
    ("GET", r"/api/jobs/hardware", lambda hub, request: Reply(HARDWARE)),
    ("GET", r"/api/jobs/([\w-]+)", lambda hub, request, namespace: Reply(list(hub.jobs.values()))),
    ("POST", r"/api/jobs/([\w-]+)", HubServer.run),
    ("GET", r"/api/jobs/([\w-]+)/(\w+)", HubServer.one_job),
    ("POST", r"/api/jobs/([\w-]+)/(\w+)/cancel", HubServer.cancel),
    ("GET", r"/api/jobs/([\w-]+)/(\w+)/logs", HubServer.log),
    ("GET", r"/api/scheduled-jobs/([\w-]+)", lambda hub, request, namespace: Reply(list(hub.scheduled.values()))),
    ("POST", r"/api/scheduled-jobs/([\w-]+)", HubServer.schedule),
    ("DELETE", r"/api/scheduled-jobs/([\w-]+)/(\w+)", HubServer.change_scheduled),
    ("POST", r"/api/scheduled-jobs/([\w-]+)/(\w+)/(suspend|resume|run)", HubServer.change_scheduled),
]


@contextlib.asynccontextmanager
async def serve() -> AsyncIterator[HubServer]:
    hub = HubServer()
    server = await asyncio.start_server(hub.handle, "127.0.0.1", 0, limit=1024 * 1024)
    hub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:
        server.close()
        for event in hub.held.values():
            event.set()
        await asyncio.gather(*hub.tasks)
