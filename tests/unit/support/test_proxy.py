"""The proxy of fault tests, in front of a server that records what reaches it."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.faults.background import Background
from support.faults.proxy import Proxy
from support.faults.request import event, on, reserves, write
from support.faults.rules import (
    ANSWER,
    Answer,
    Close,
    Drop,
    Duplicate,
    EventRule,
    Hold,
    Kill,
    Reorder,
    Replace,
    Reset,
    Rule,
    Swallow,
    error_event,
)
from support.waiting import eventually

PODS = "/api/v1/namespaces/n/pods"


class Server:
    """Answers writes with the object that it is sent, and a watch with the lines that it is given."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.arrived.append(body["metadata"]["name"])
                self._answer(json.dumps({**body, "metadata": {**body["metadata"], "uid": f"uid-{len(server.arrived)}"}}))

            def do_GET(self) -> None:
                if "watch" not in self.path:
                    self._answer('{"items": []}')
                    return
                self.send_response(200)
                self.end_headers()
                while line := server.lines.get():
                    self.wfile.write(line.encode() + b"\n")
                    self.wfile.flush()

            def _answer(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()

    def event(self, kind: str, name: str, version: int = 1) -> None:
        body = {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}
        self.lines.put(json.dumps({"type": kind, "object": body}))

    def stop(self) -> None:
        self.lines.put("")
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    result = Server()
    yield result
    result.stop()


@pytest.fixture
def kills() -> list[int]:
    return []


@pytest.fixture
def proxy(server: Server, kills: list[int], tmp_path: Path) -> Iterator[Proxy]:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({"clusters": [{"name": "c", "cluster": {"server": server.url}}]}))
    background = Background()
    with Proxy(path, background, lambda: kills.append(len(server.arrived))).serving() as result:
        yield result
    background.stop()


def create(proxy: Proxy, name: str, *, path: str = PODS, timeout: float = 10.0) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)
    try:
        connection.request("POST", path, json.dumps({"metadata": {"name": name}}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_writes_are_numbered_and_leases_are_not(proxy: Proxy, server: Server) -> None:
    assert create(proxy, "a") == (200, {"metadata": {"name": "a", "uid": "uid-1"}})
    create(proxy, "lease", path="/apis/coordination.k8s.io/v1/namespaces/n/leases")
    create(proxy, "b")
    assert [(one.request.name, one.request.write) for one in proxy.exchanges] == [("a", 1), ("lease", 0), ("b", 2)]
    assert [(one.request.resource, one.request.namespace, one.uid) for one in proxy.writes()] == [
        ("pods", "n", "uid-1"),
        ("pods", "n", "uid-3"),
    ]


def test_an_answer_instead_of_the_servers(proxy: Proxy, server: Server) -> None:
    proxy.use(Rule(on("create", "pods", "a*"), Answer(429, retry_after=1), times=1))
    code, status = create(proxy, "a")
    assert (code, status["kind"], status["reason"]) == (429, "Status", "TooManyRequests")
    assert create(proxy, "a")[0] == 200
    assert server.arrived == ["a"]


def test_an_answer_that_denies_what_was_carried_out(proxy: Proxy, server: Server) -> None:
    proxy.use(Rule(write(1), Answer(500, at=ANSWER)))
    assert create(proxy, "a")[0] == 500
    assert server.arrived == ["a"]
    assert [(one.code, one.answered) for one in proxy.exchanges] == [(200, 500)]


def test_what_is_held_reaches_the_server_when_it_is_released(proxy: Proxy, server: Server) -> None:
    proxy.use(Rule(on("create", "pods"), Hold("key"), skip=1, times=1))
    create(proxy, "first")
    with ThreadPoolExecutor() as pool:
        held = pool.submit(create, proxy, "second")
        eventually(lambda: proxy.held("key") == 1)
        create(proxy, "third")
        assert server.arrived == ["first", "third"]
        proxy.release("key")
        assert held.result()[0] == 200
    assert server.arrived == ["first", "third", "second"]


def test_a_reset_connection_and_a_request_that_lands_later(proxy: Proxy, server: Server) -> None:
    proxy.use(Rule(write(1), Reset(), Hold("late")))
    with pytest.raises(ConnectionResetError):
        create(proxy, "a")
    assert server.arrived == []
    proxy.release("late")
    eventually(lambda: server.arrived == ["a"])
    eventually(lambda: proxy.exchanges[0].code == 200)


@pytest.mark.parametrize(("rule", "arrived"), [(Drop(), []), (Drop(at=ANSWER), ["a"])])
def test_a_dropped_request_is_never_answered(proxy: Proxy, server: Server, rule: Drop, arrived: list[str]) -> None:
    proxy.use(Rule(write(1), rule))
    with pytest.raises(TimeoutError):
        create(proxy, "a", timeout=0.5)
    assert server.arrived == arrived


def test_a_duplicated_request_reaches_the_server_twice(proxy: Proxy, server: Server) -> None:
    proxy.use(Rule(write(1), Duplicate()))
    assert create(proxy, "a")[1]["metadata"]["uid"] == "uid-1"
    assert server.arrived == ["a", "a"]


def test_reordered_requests_arrive_in_reverse(proxy: Proxy, server: Server) -> None:
    proxy.use(Rule(on("create", "pods"), Reorder(3)))
    with ThreadPoolExecutor() as pool:
        answers = []
        for number, name in enumerate("abc", 1):
            answers.append(pool.submit(create, proxy, name))
            eventually(lambda number=number: len(proxy.exchanges) == number)  # type: ignore[misc]
        assert [answer.result()[0] for answer in answers] == [200] * 3
    assert server.arrived == ["c", "b", "a"]


def test_a_kill_before_and_after_a_write(proxy: Proxy, server: Server, kills: list[int]) -> None:
    proxy.use(Rule(write(1), Kill(), Reset(), Drop()), Rule(write(2), Kill(at=ANSWER)))
    with pytest.raises(ConnectionResetError):
        create(proxy, "a")
    create(proxy, "b")
    assert server.arrived == ["b"]
    assert kills == [0, 1]


def test_a_reservation_is_a_pod_or_a_status_that_admits(proxy: Proxy) -> None:
    pod = {"metadata": {"name": "s-1", "annotations": {"agentsession.dev/session": "s"}}}
    status = {"status": {"conditions": [{"type": "Admitted", "status": "True"}]}}
    connection = HTTPConnection("127.0.0.1", proxy.port)
    connection.request("POST", PODS, json.dumps(pod))
    connection.getresponse().read()
    connection.request("PATCH", "/apis/agentsession.dev/v1alpha1/namespaces/n/agentsessions/s/status", json.dumps(status))
    connection.getresponse().read()
    connection.close()
    create(proxy, "other")
    assert [one.request.verb for one in proxy.seen(reserves("s"))] == ["create", "patch"]


class Watch:
    """A client of a watch."""

    def __init__(self, proxy: Proxy) -> None:
        self._connection = HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        self._connection.request("GET", "/api/v1/pods?watch=true")
        self._answer = self._connection.getresponse()

    def next(self) -> str:
        """Type and name of the next event; empty when the watch has ended."""
        line = self._answer.readline()
        if not line:
            return ""
        parsed = json.loads(line)
        return f"{parsed['type']} {parsed['object'].get('metadata', {}).get('name', parsed['object'].get('code', ''))}"

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


@pytest.fixture
def watch(proxy: Proxy) -> Iterator[Callable[[], Watch]]:
    opened: list[Watch] = []

    def open_one() -> Watch:
        opened.append(Watch(proxy))
        eventually(lambda: proxy.watching("pods") == 1)
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def test_events_pass_and_are_recorded(proxy: Proxy, server: Server, watch: Callable[[], Watch]) -> None:
    client = watch()
    server.event("ADDED", "a", 7)
    assert client.next() == "ADDED a"
    eventually(lambda: proxy.has_delivered("pods", "a"))
    assert [(item.kind, item.version) for item in proxy.delivered] == [("ADDED", 7)]


def test_one_event_is_swallowed_and_another_replaced(proxy: Proxy, server: Server, watch: Callable[[], Watch]) -> None:
    proxy.use(
        EventRule(event("DELETED", "pods", "a"), Swallow(), times=1),
        EventRule(event("MODIFIED", "pods"), Replace(error_event(410))),
    )
    client = watch()
    for kind in ("DELETED", "DELETED", "MODIFIED", "ADDED"):
        server.event(kind, "a")
    assert [client.next() for _ in range(3)] == ["DELETED a", "ERROR 410", "ADDED a"]


def test_a_held_event_holds_up_those_after_it(proxy: Proxy, server: Server, watch: Callable[[], Watch]) -> None:
    proxy.use(EventRule(event("ADDED", "pods", "a"), Hold("lag")))
    client = watch()
    for name in "ab":
        server.event("ADDED", name)
    eventually(lambda: proxy.held("lag") == 1)
    assert not proxy.has_delivered("pods", "b")
    proxy.release("lag")
    assert [client.next(), client.next()] == ["ADDED a", "ADDED b"]


def test_watches_are_closed_and_given_errors(proxy: Proxy, server: Server, watch: Callable[[], Watch]) -> None:
    proxy.use(EventRule(event("ADDED", "pods", "last"), Close()))
    client = watch()
    proxy.inject("pods", error_event(504))
    assert client.next() == "ERROR 504"
    server.event("ADDED", "last")
    assert client.next() == ""
    eventually(lambda: proxy.watching("pods") == 0)


def test_what_is_held_when_the_proxy_stops_is_not_let_loose(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({"clusters": [{"name": "c", "cluster": {"server": server.url}}]}))
    background = Background()
    with socket.socket() as client, Proxy(path, background, lambda: None).serving() as proxy:
        proxy.use(Rule(write(1), Hold("never")))
        client.connect(("127.0.0.1", proxy.port))
        body = b'{"metadata": {"name": "a"}}'
        client.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (PODS.encode(), len(body), body))
        eventually(lambda: proxy.held("never") == 1)
    background.stop()
    assert server.arrived == []
