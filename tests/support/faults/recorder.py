"""The record of a cluster's history: three watches, straight from the API server and not through the proxy.

It begins with a list of each resource and ends at a revision at which the record and a second list agree.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import aiohttp
import yaml

from support.api import GROUP, Api
from support.faults.background import Background
from support.faults.judge import NAMESPACES, PODS, SESSIONS, Event, History
from support.faults.request import JSON
from support.waiting import eventually

_PATHS: Final = {SESSIONS: f"{GROUP}/agentsessions", PODS: "/api/v1/pods", NAMESPACES: "/api/v1/namespaces"}


class Recorder:
    """Watches sessions and pods of all namespaces, and the namespaces' labels."""

    def __init__(self, api: Api, background: Background, heard: Callable[[Event], None] = lambda _: None) -> None:
        """`heard` is called in the background's thread with each event."""
        self._api, self._background, self._heard = api, background, heard
        self._config = yaml.safe_load(api.kubeconfig.read_text())
        self._events: list[Event] = []
        self._failure: BaseException | None = None

    @contextlib.contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Record until the block ends."""
        watches = []
        for resource, path in _PATHS.items():
            # The storage of a kind that was defined a moment ago is "(re)initializing".
            listed = eventually(lambda path=path: self._api.get(path), what=f"a list of {resource}")  # type: ignore[misc]
            now = time.monotonic()
            for item in listed["items"]:
                self._take(Event(int(item["metadata"]["resourceVersion"]), resource, "LISTED", item, now))
            work = self._watch(resource, path, listed["metadata"]["resourceVersion"])
            watches.append(asyncio.run_coroutine_threadsafe(work, self._background.loop))
        try:
            yield self
        finally:
            for watch in watches:
                watch.cancel()

    @property
    def history(self) -> History:
        """What has arrived so far. One of the watches may be behind: `settled` for what is complete."""
        if self._failure is not None:
            raise self._failure
        return History(list(self._events))

    def settled(self) -> History:
        """The history, complete up to now."""
        lists = {resource: self._api.get(path) for resource, path in _PATHS.items()}

        def complete() -> bool:
            known = {event.uid: event for event in self.history.events}
            for resource, listed in lists.items():
                revision = int(listed["metadata"]["resourceVersion"])
                there = {item["metadata"]["uid"]: int(item["metadata"]["resourceVersion"]) for item in listed["items"]}
                for uid, version in there.items():
                    assert uid in known, f"{resource} {uid} was never seen"
                    assert known[uid].version >= version, f"{resource} {uid} was not seen at {version}"
                for uid, event in known.items():
                    left = uid not in there and event.resource == resource and event.version <= revision
                    assert not left or event.kind == "DELETED", f"the end of {resource} {uid} was not seen"
            return True

        eventually(complete, within=20, what="the record of the history")
        return self.history

    def _take(self, event: Event) -> None:
        self._events.append(event)
        self._heard(event)

    async def _watch(self, resource: str, path: str, version: str) -> None:
        try:
            async with self._session() as client:
                query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "3600"}
                async with client.get(self._config["clusters"][0]["cluster"]["server"] + path, params=query) as answer:
                    answer.raise_for_status()
                    rest = b""
                    async for chunk in answer.content.iter_any():
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            self._see(resource, json.loads(line))
            raise RuntimeError(f"the recorder's watch of {resource} has ended")
        except Exception as error:
            self._failure = error
            raise

    def _see(self, resource: str, line: JSON) -> None:
        body = line["object"]
        if line["type"] == "ERROR":
            raise RuntimeError(f"the recorder's watch of {resource}: {body}")
        self._take(Event(int(body["metadata"]["resourceVersion"]), resource, line["type"], body, time.monotonic()))

    def _session(self) -> aiohttp.ClientSession:
        """A client with the administrator's certificate or token."""
        cluster, user = self._config["clusters"][0]["cluster"], self._config["users"][0]["user"]
        authority = cluster.get("certificate-authority-data")
        tls = ssl.create_default_context(
            cafile=cluster.get("certificate-authority"), cadata=base64.b64decode(authority).decode() if authority else None
        )
        with tempfile.TemporaryDirectory() as directory:
            pair = []
            for kind in ("client-certificate", "client-key"):
                if f"{kind}-data" in user:
                    path = Path(directory) / kind
                    path.write_bytes(base64.b64decode(user[f"{kind}-data"]))
                    pair.append(str(path))
                elif kind in user:
                    pair.append(user[kind])
            if pair:
                tls.load_cert_chain(*pair)
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls), headers=headers, timeout=aiohttp.ClientTimeout(total=None)
        )
