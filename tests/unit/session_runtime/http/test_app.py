"""The HTTP API of a running session."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.model.failure import ModelError
from agent.testing import Reply, calls, fails, says
from session_runtime.http.app import _stream
from session_runtime.reporting.metrics import Metrics
from session_runtime.session.submissions import UserInput
from support.runtime.harness import DEADLINE, TOKEN, Runtime, eventually, runtime
from support.runtime.life import life
from support.runtime.sse import Follower

pytestmark = pytest.mark.anyio

OPEN = {"/healthz", "/readyz"}


async def test_every_path_but_the_open_ones_needs_the_token(short_path: Path) -> None:
    async with runtime(short_path) as run, httpx.AsyncClient(base_url=run.url) as http:
        document = (await run.http.get("/v1/openapi.json")).json()
        closed = [(method, path) for path, ways in document["paths"].items() if path not in OPEN for method in ways]
        assert len(closed) >= 5
        for method, path in [*closed, ("get", "/v1/openapi.json"), ("get", "/nowhere"), ("get", "/")]:
            missing = await http.request(method, path)
            assert missing.status_code == 401
            assert_problem(missing, "header.authorization")
            for wrong in (b"Bearer nonsense", f"Bearer {TOKEN}x".encode(), b"Bearer \xe9\xff"):
                refused = await http.request(method, path, headers={b"Authorization": wrong})
                assert refused.status_code == 403
                assert_problem(refused, "header.authorization")
                assert refused.headers["www-authenticate"] == missing.headers["www-authenticate"]
                assert refused.headers["www-authenticate"].startswith("Bearer ")
            for odd in ("Bearer", f"Basic {TOKEN}", TOKEN):
                assert (await http.request(method, path, headers={"Authorization": odd})).status_code == 401
        for path in OPEN:
            assert (await http.get(path)).status_code == 200


async def test_a_strangers_body_is_not_read(short_path: Path) -> None:
    async with runtime(short_path) as run:
        url = httpx.URL(run.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"POST /v1/submissions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        async with asyncio.timeout(DEADLINE):
            answer = await reader.read()  # up to the end of the connection
        assert answer.startswith(b"HTTP/1.1 401 ")
        writer.close()


@pytest.mark.parametrize(("authorization", "status"), [("", 401), ("Authorization: Bearer wrong\r\n", 403)])
async def test_a_refusal_is_read_though_the_body_comes_late(short_path: Path, authorization: str, status: int) -> None:
    """Many clients send the body on its own; a connection that was closed by then would be reset, and the answer lost."""
    head = f"POST /v1/submissions HTTP/1.1\r\nHost: a\r\n{authorization}Content-Length: 2000\r\n\r\n"

    def ask(url: httpx.URL) -> bytes:
        with socket.create_connection((url.host, url.port or 80), timeout=DEADLINE) as client:
            client.sendall(head.encode())
            time.sleep(0.02)
            for _ in range(2):
                client.sendall(b"x" * 1000)
            return b"".join(iter(lambda: client.recv(65536), b""))

    async with runtime(short_path) as run:
        for _ in range(5):  # the first answer is a slow one
            answer = await asyncio.to_thread(ask, httpx.URL(run.url))
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_a_turn_can_be_submitted_followed_and_read(short_path: Path) -> None:
    async with runtime(short_path, says("Hello, Ann.")) as run:
        receipt = await run.submit("user_input", text="Hello?", id="first")
        assert receipt.status_code == 202
        assert receipt.json() == {"id": "first", "type": "user_input", "state": receipt.json()["state"], "position": 0}
        events = await run.events(submission="first")
        assert [e.type for e in events if e.type != "assistant_chunk"] == [
            "processing",
            "assistant_message",
            "usage",
            "turn_complete",
        ]
        assert "".join(e.data["text"] for e in events if e.type == "assistant_chunk") == "Hello, Ann."
        info = (await run.http.get("/v1/session")).json()
        assert info["session_id"] == "7f3c"
        assert info["user"] == "ann"
        assert info["is_active"] is True
        assert info["is_processing"] is False
        assert info["message_count"] == 2
        assert info["usage"]["llm_calls"] == 1
        messages = (await run.http.get("/v1/messages")).json()["messages"]
        assert [(m["role"], m["content"]) for m in messages] == [("user", "Hello?"), ("assistant", "Hello, Ann.")]


async def test_the_same_id_is_acknowledged_and_not_repeated(short_path: Path) -> None:
    async with runtime(short_path, says("once"), says("never")) as run:
        body = {"text": "go", "id": "same"}
        receipts = await asyncio.gather(*(run.submit("user_input", **body) for _ in range(10)))
        assert {r.status_code for r in receipts} == {202}
        await run.events(submission="same")
        again = await run.submit("user_input", **body)
        assert again.status_code == 202
        assert again.json()["state"] == "done"
        assert run.model.calls == 1
        other = await run.submit("user_input", text="something else", id="same")
        assert other.status_code == 422
        assert other.json()["type"] == "urn:agentsession:problem:id-reused"


def assert_problem(response: httpx.Response, field: str) -> None:
    """Problem details (RFC 9457) that name this field, and say more than that."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"].startswith("urn:agentsession:problem:")
    assert problem["title"]
    assert field in problem["detail"]
    assert len(problem["detail"]) > len(field) + 10


NESTED = b'{"type": "approval", "decisions": [{"tool_call_id": "c", "approved": true, "arguments": {"a": %s}}]}'


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b'{"type": "user_input"}', 422, "body.user_input.text"),
        (b'{"type": "user_input", "text": ""}', 422, "body.user_input.text"),
        (b'{"type": "user_input", "text": 7}', 422, "body.user_input.text"),
        (json.dumps({"type": "user_input", "text": "x" * 100_001}).encode(), 422, "body.user_input.text"),
        (b'{"type": "user_input", "text": "a", "id": "not an id"}', 422, "body.user_input.id"),
        (b'{"type": "user_input", "text": "a", "txet": "b"}', 422, "body.user_input.txet"),
        (b'{"type": "user_input", "text": "\\ud800"}', 422, "body.user_input.text"),
        (b'{"type": "dance"}', 422, "body"),
        (b"{}", 422, "body"),
        (b"[]", 422, "body"),
        (b"", 422, "body"),
        (b"nonsense", 400, "body"),
        (b'{"type": "user_input", "text": "a"', 400, "body"),
        (b"\xff\xfe\x00", 400, "body"),
        (b'{"type": "user_input", "text": "\xff"}', 400, "body"),
        (b"[" * 100_000, 400, "body"),
        (NESTED % (b"9" * 5000), 400, "body"),
        (NESTED % (b"[" * 600 + b"]" * 600), 422, "body.approval.decisions.0.arguments"),
        (NESTED % b'"\\ud800"', 422, "body.approval.decisions.0.arguments"),
        (NESTED % b'{"\\ud800": 1}', 422, "body.approval.decisions.0.arguments"),
        (NESTED % b"NaN", 422, "body.approval.decisions.0.arguments"),
        (NESTED % b"1e999", 422, "body.approval.decisions.0.arguments"),
    ],
)
async def test_bad_input_is_refused_with_the_field_and_without_the_value(
    short_path: Path, body: bytes, status: int, field: str
) -> None:
    async with runtime(short_path) as run:
        response = await run.http.post("/v1/submissions", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status
        assert_problem(response, field)
        assert "xxx" not in response.text


async def test_input_in_another_unicode_encoding_is_understood(short_path: Path) -> None:
    text = "naïve ☃ 🐍"
    for number, encoding in enumerate(("utf-8", "utf-16", "utf-16-be", "utf-32")):
        (folder := short_path / str(number)).mkdir()
        async with runtime(folder, says("ok")) as run:
            body = json.dumps({"type": "user_input", "text": text, "id": "a"}, ensure_ascii=False).encode(encoding)
            response = await run.http.post("/v1/submissions", content=body, headers={"Content-Type": "application/json"})
            assert response.status_code == 202
            await run.events(submission="a")
            assert (await run.http.get("/v1/messages")).json()["messages"][0]["content"] == text


async def test_a_refusal_of_an_invalid_request_names_the_field_and_the_remedy(short_path: Path) -> None:
    good = b'{"type": "undo"}'
    async with runtime(short_path) as run:
        for method, path, status, field in (
            ("GET", "/v1/nowhere", 404, "path"),
            ("GET", "/v1/submissions", 405, "method"),
            ("DELETE", "/v1/session", 405, "method"),
            ("GET", "/v1/events?submission=no", 404, "query.submission"),
            ("GET", "/v1/events?after=-1", 422, "query.after"),
            ("GET", "/v1/events?after=first", 422, "query.after"),
            ("GET", f"/v1/events?after={2**70}", 422, "query.after"),
        ):
            response = await run.http.request(method, path)
            assert response.status_code == status, path
            assert_problem(response, field)
        wrong = await run.http.get("/v1/events", headers={"Last-Event-ID": "x"})
        assert wrong.status_code == 422
        assert_problem(wrong, "header.last-event-id")
        for media_type in ("text/plain", "application/x-www-form-urlencoded", "nonsense", ""):
            response = await run.http.post("/v1/submissions", content=good, headers={"Content-Type": media_type})
            assert response.status_code == 415
            assert_problem(response, "header.content-type")


async def test_a_large_body_is_refused(short_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b"x" * 65536

    async with runtime(short_path) as run:
        for content in (b"x" * (1024 * 1024 + 1), body()):
            response = await run.http.post("/v1/submissions", content=content)
            assert response.status_code == 413
            assert_problem(response, "body")
            assert "1 MiB" in response.json()["detail"]


async def test_the_api_is_described_for_programs_and_for_people(short_path: Path) -> None:
    async with runtime(short_path) as run:
        document = (await run.http.get("/v1/openapi.json")).json()
        page = await run.http.get("/v1/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                assert f"<h2>{method.upper()} {path}</h2>" in page.text
                assert (operation.get("security") is None) == (path in OPEN)
        for name in document["components"]["schemas"]:
            assert f'<h2 id="{name}">' in page.text
        assert "Chosen by the caller" in page.text
        assert "<script" not in page.text
        assert "http" not in page.text.replace("http_", "").lower()  # nothing to load from elsewhere


async def test_a_finished_session_takes_nothing_more(short_path: Path) -> None:
    async with runtime(short_path, says("working", delay=0.02, hangs=True)) as run:
        await run.submit("user_input", text="go", id="running")
        await run.until("assistant_chunk")
        await run.submit("user_input", text="wait", id="waiting")
        shutdown = asyncio.create_task(run.submit("shutdown", id="end"))
        events = await run.events()
        assert (await shutdown).status_code == 202
        assert [(e.type, e.submission_id) for e in events[-3:]] == [
            ("interrupted", "running"),
            ("interrupted", "waiting"),
            ("shutdown", "end"),
        ]
        assert events[-1].data["outcome"] == "Completed"
        assert await run.ended() == 0


async def test_an_interrupt_ends_the_turn_and_nothing_else(short_path: Path) -> None:
    async with runtime(short_path, says("on and on", hangs=True), says("second")) as run:
        await run.submit("user_input", text="go", id="a")
        await run.submit("user_input", text="then this", id="b")
        await run.until("assistant_chunk")
        receipt = await run.submit("interrupt", id="stop")
        assert receipt.json() == {"id": "stop", "type": "interrupt", "state": "done", "position": None}
        assert (await run.events(submission="a"))[-1].type == "interrupted"
        assert (await run.events(submission="b"))[-1].type == "turn_complete"
        assert await run.events(submission="stop") == []


async def test_a_turn_that_fails_does_not_end_an_interactive_session(short_path: Path) -> None:
    async with runtime(short_path, fails(ModelError("no such model")), says("better")) as run:
        async with run.client() as client:
            failed = await client.run("one")
            assert failed.type == "error"
            assert "no such model" in failed.data["message"]
        info = (await run.http.get("/v1/session")).json()
        assert info["is_active"] is True


async def test_undo_takes_a_turn_back(short_path: Path) -> None:
    async with runtime(short_path, says("first"), says("second")) as run, run.client() as client:
        await client.run("one")
        submission = await client.submit("undo")
        assert [e.type for e in await run.events(submission=submission)] == ["undo_complete"]
        assert (await run.http.get("/v1/messages")).json() == {"messages": []}


async def test_tools_run_in_the_workspace(short_path: Path) -> None:
    script = (calls(("bash", {"command": "echo out of here; pwd"})), says("done"))
    async with runtime(short_path, *script) as run, run.client() as client:
        await client.run("look")
        events = await run.events(submission=(await run.until("tool_output")).submission_id)
        output = next(e for e in events if e.type == "tool_output")
        assert output.data["output"].startswith("out of here\n")
        assert output.data["output"].strip().endswith("/work")


async def test_each_figure_of_a_session_is_among_its_metrics(short_path: Path) -> None:
    script = (calls(("bash", {"command": "true"})), says("done"), says("on and on", hangs=True), fails(ModelError("no")))
    async with runtime(short_path, *script) as run, run.client() as client:
        await client.run("work")
        for n in range(3):
            await run.submit("user_input", text="wait", id=f"wait-{n}")
        following = asyncio.create_task(Follower(run.url).follow())

        async def settled() -> bool:
            now = await figures(run)
            return now["agentsession_event_subscribers"] == 1 and now["agentsession_queued_submissions"] == 2

        await eventually(settled)
        now = await figures(run)
        expected = {
            "agentsession_turns_total": 1,
            "agentsession_tool_calls_total": 1,
            "agentsession_model_calls_total": 2,
            "agentsession_input_tokens_total": 20,
            "agentsession_output_tokens_total": 10,
            "agentsession_cost_usd_total": 0.002,
            "agentsession_processing": 1,
            "agentsession_pending_approvals": 0,
            "agentsession_events_total{type=turn_complete}": 1,
        }
        assert {name: now.get(name) for name in expected} == expected
        assert 0 <= now["agentsession_event_lag_seconds"] < DEADLINE
        assert now["agentsession_last_event"] == (await client.info())["last_seq"]
        assert now["agentsession_messages"] == (await client.info())["message_count"]
        await run.submit("interrupt")
        await run.events(submission="wait-2")
        now = await figures(run)
        assert now["agentsession_turns_total"] == 4
        assert now["agentsession_errors_total{kind=model}"] == 2
        following.cancel()
        await asyncio.wait([following])


async def figures(run: Runtime) -> dict[str, float]:
    """The session's metrics by name and labels."""
    families = text_string_to_metric_families((await run.http.get("/metrics")).text)
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_metrics_say_numbers_and_no_words(short_path: Path) -> None:
    async with runtime(short_path, says("confidential answer")) as run, run.client() as client:
        await client.run("confidential question")
        text = (await run.http.get("/metrics")).text
        for word in ("confidential", "ann", TOKEN, "scripted"):
            assert word not in text


async def test_a_checkpoint_leaves_everything_in_one_file(short_path: Path) -> None:
    async with runtime(short_path, says("kept")) as run, run.client() as client:
        await client.run("keep this")
        response = await run.http.post("/v1/checkpoint")
        assert response.json()["last_seq"] >= 5
        copy = short_path / "copy.db"
        copy.write_bytes((short_path / "state" / "session.db").read_bytes())
        with closing(sqlite3.connect(copy)) as database:
            (last,) = database.execute("SELECT max(seq) FROM events").fetchone()
        assert last == response.json()["last_seq"]


async def test_a_stream_that_waits_for_another_submission_is_not_silent(tmp_path: Path) -> None:
    """The model's pieces are written four times a second, so that the journal itself is never silent for long enough."""
    async with life(tmp_path, [], Reply("x" * 200, piece=1, delay=0.02), says("mine")) as now, asyncio.timeout(DEADLINE):
        await now.session.submit(UserInput(id="theirs", text="a long story"))
        await now.session.submit(UserInput(id="mine", text="and me?"))
        parts = [part async for part in _stream(now.session, now.journal, Metrics(), 0, "mine", keep_alive=0.6)]
        assert parts[0] == b": keep-alive\n\n"
        assert b"turn_complete" in parts[-1]


async def test_the_stream_of_an_ended_submission_says_that_there_is_no_more(short_path: Path) -> None:
    """EventSource connects again after every end but this one."""
    async with runtime(short_path, says("done")) as run:
        await run.submit("user_input", text="go", id="turn")
        last = (await run.events(submission="turn"))[-1]
        headers = {"Last-Event-ID": str(last.seq)}
        assert (await run.http.get("/v1/events?submission=turn", headers=headers)).status_code == 204
        await run.submit("interrupt", id="stop")
        assert (await run.http.get("/v1/events?submission=stop")).status_code == 204
        again = await run.http.get("/v1/events?submission=turn")
        assert (again.status_code, "turn_complete" in again.text) == (200, True)


@pytest.mark.parametrize("approved", [0, 1, "yes", "true", None])
async def test_a_decision_is_true_or_false_and_nothing_like_it(short_path: Path, approved: object) -> None:
    async with runtime(short_path) as run:
        answer = await run.submit("approval", decisions=[{"tool_call_id": "c", "approved": approved}])
        assert answer.status_code == 422


async def test_an_answer_about_unknown_fields_is_bounded(short_path: Path) -> None:
    async with runtime(short_path) as run:
        answer = await run.submit("undo", **{f"unknown{n}": 1 for n in range(20_000)}, **{"y" * 100_000: 1})
        assert answer.status_code == 422
        assert len(answer.content) < 20_000
        assert "and 19981 more" in answer.json()["detail"]
