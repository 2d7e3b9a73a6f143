"""Reports: what they say, and that they get through without holding anybody up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.conversation import PendingApproval
from agent.messages import Message, Usage
from agent.question import OpenQuestion, Question
from agent.testing import says
from session_runtime.reporting import report as reports
from session_runtime.reporting import reporter as reporting
from session_runtime.reporting.reporter import Reporter, sender
from session_runtime.session.outcome import Ending
from session_runtime.session.snapshot import Snapshot
from session_runtime.wire import LAST_MESSAGE_BYTES, AgentSettings, Budget, SessionReport
from support.control_plane.virtual_time import VIRTUAL_TIME
from support.runtime.harness import DEADLINE, config, eventually, runtime

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CONFIG = config(uid="uid")

SNAPSHOT = Snapshot(
    activity="Idle",
    is_processing=False,
    usage=Usage(input_tokens=10, output_tokens=5, cost_usd=0.5, llm_calls=2, tool_calls=1),
    messages=(Message("user", "hi"), Message("assistant", "hello")),
    last_message="hello",
    pending=(),
    questions=(),
    problems=(),
    queued=0,
    ended_turns=1,
    created_at="2026-01-02T00:00:00.000Z",
    last_activity_time=NOW,
    last_seq=7,
    ending=None,
)


def test_a_report_says_what_the_session_is() -> None:
    report = reports.build(SNAPSHOT, CONFIG, 3)
    assert report.model_dump() == {
        "session_uid": "uid",
        "sequence": 3,
        "activity": "Idle",
        "usage": {"input_tokens": 10, "output_tokens": 5, "cost_usd": 0.5, "llm_calls": 2, "tool_calls": 1},
        "message_count": 2,
        "last_activity_time": NOW,
        "last_message": "hello",
        "pending_approvals": (),
        "tool_problems": (),
        "budget_used_up": None,
        "outcome": None,
        "outcome_message": None,
    }


def test_a_budget_that_is_used_up_is_told() -> None:
    small = config(agent=AgentSettings(model="m", budget=Budget(tokens=15)))
    assert reports.build(SNAPSHOT, small).budget_used_up == "the session's budget of 15 tokens is used up (15 used)"


def test_problems_with_tools_are_told_in_brief_until_the_end() -> None:
    snapshot = replace(SNAPSHOT, problems=tuple(f"server{number}: {'x' * 1000}" for number in range(20)))
    told = reports.build(snapshot, CONFIG).tool_problems
    assert [problem.partition(":")[0] for problem in told] == [f"server{number}" for number in range(8)]
    assert all(len(problem.encode()) <= 300 for problem in told)
    assert reports.build(replace(snapshot, ending=Ending("Completed", "")), CONFIG).tool_problems == ()


def test_only_what_matters_makes_a_difference() -> None:
    report = reports.build(SNAPSHOT, CONFIG, 3)
    assert not reports.differs(report, reports.build(replace(SNAPSHOT, last_activity_time=NOW.replace(year=2027)), CONFIG, 4))
    assert reports.differs(report, reports.build(replace(SNAPSHOT, activity="Processing"), CONFIG, 4))
    assert reports.differs(report, reports.build(replace(SNAPSHOT, ending=Ending("Completed", "")), CONFIG, 4))


def test_arguments_of_pending_calls_are_cut_and_stay_an_object() -> None:
    arguments: dict[str, Any] = {"content": "é" * 5000, "nested": {"list": ["x" * 5000]}, "count": 3, "flag": True, "no": None}
    pending = (PendingApproval("c", "write", arguments),) * 40
    report = reports.build(replace(SNAPSHOT, pending=pending), CONFIG)
    assert len(report.pending_approvals) == reports.MAX_APPROVALS
    brief = report.pending_approvals[0].arguments
    assert set(brief) == set(arguments)
    assert len(str(brief["content"]).encode()) <= reports.ARGUMENT_CHARACTERS
    assert (brief["count"], brief["flag"], brief["no"]) == (3, True, None)
    assert len(report.model_dump_json()) < 64_000


def test_a_question_is_reported_without_its_form_and_in_brief() -> None:
    form = {"type": "object", "properties": {"seat": {"type": "string", "description": "x" * 5000}}}
    long = Question("trips", "Which seat? " * 500, form, "https://pay.example/" + "1" * 1000)
    asked = tuple(OpenQuestion(f"q{n}", f"c{n}", "trips__book", {"to": "é" * 5000}, long) for n in range(20))
    approval = PendingApproval("c", "write", {})
    now = replace(SNAPSHOT, questions=asked, pending=(approval,))
    whole = reports.pending(now)
    assert [waiting.tool_call_id for waiting in whole] == [*(f"c{n}" for n in range(20)), "c"]
    assert whole[0].question is not None
    assert (whole[0].question.form, whole[0].question.url) == (form, long.url)
    assert whole[0].reason.startswith("the MCP server trips asks: Which seat?")
    assert whole[-1].question is None
    report = reports.build(now, CONFIG)
    assert len(report.pending_approvals) == reports.MAX_APPROVALS
    brief = report.pending_approvals[0].question
    assert brief is not None
    assert (brief.id, brief.server, brief.form) == ("q0", "trips", None)
    assert brief.url is not None
    assert max(len(brief.message), len(brief.url)) <= reports.ARGUMENT_CHARACTERS
    assert len(report.model_dump_json()) < 64_000


@given(st.text(max_size=12_000), st.text(max_size=9_000), st.integers(0, 30), st.text(max_size=600))
def test_a_termination_message_is_valid_json_in_4096_bytes(last: str, why: str, pending: int, argument: str) -> None:
    approvals = tuple(PendingApproval(f"call_{n}", "bash", {"command": argument}) for n in range(pending))
    snapshot = replace(SNAPSHOT, last_message=last, pending=approvals, ending=Ending("Failed", why))
    text = reports.termination_message(reports.build(snapshot, CONFIG, 5))
    assert len(text.encode()) <= reports.TERMINATION_BYTES
    lines = text.split("\n")
    assert len(lines) <= 2
    assert len(lines[0].encode()) <= reports.ESSENTIAL_BYTES
    for line in lines:
        json.loads(line)
        report = SessionReport.model_validate_json(line)
        assert report.outcome == "Failed"
        assert report.usage.llm_calls == 2


def test_the_last_message_gives_way_first() -> None:
    snapshot = replace(SNAPSHOT, last_message="é\n" * 3000, ending=Ending("Failed", "why " * 100))
    text = reports.termination_message(reports.build(snapshot, CONFIG, 5))
    report = SessionReport.model_validate_json(text.split("\n")[1])
    assert report.outcome_message == "why " * 100
    assert report.last_message is not None
    assert report.last_message.endswith("…")
    assert reports.TERMINATION_BYTES - 8 < len(text.encode()) <= reports.TERMINATION_BYTES


@given(st.text(), st.integers(0, 50))
def test_cut_text_fits_and_is_a_beginning(text: str, limit: int) -> None:
    short = reports.cut(text, limit)
    assert len(short.encode()) <= limit
    assert text.startswith(short.removesuffix("…")) or "\ud800" <= max(text) <= "\udfff"


def test_a_last_message_is_cut_at_4096_bytes() -> None:
    report = reports.build(replace(SNAPSHOT, last_message="é" * 5000), CONFIG)
    assert report.last_message is not None
    assert LAST_MESSAGE_BYTES - 4 < len(report.last_message.encode()) <= LAST_MESSAGE_BYTES


@dataclass
class Operator:
    """What the reports are sent to: answers with a script of statuses, and repeats the last one."""

    statuses: list[int]
    url: str = ""
    received: list[SessionReport] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.lower().splitlines()[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        assert head.startswith("PUT /report HTTP/1.1")
        assert headers["content-type"] == "application/json"
        self.received.append(SessionReport.model_validate_json(body))
        self.tokens.append(headers.get("authorization", ""))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status:
            writer.write(f"HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()


@asynccontextmanager
async def operator(*statuses: int) -> AsyncIterator[Operator]:
    receiver = Operator(list(statuses or (204,)))
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/report"
    async with server:
        yield receiver


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same behaviour at a hundredth of the time."""
    for name in ("INTERVAL", "REFUSED_INTERVAL", "COALESCE", "FINAL_SECONDS"):
        monkeypatch.setattr(reporting, name, getattr(reporting, name) / 100)
    monkeypatch.setattr(reporting, "BACKOFF", tuple(wait / 100 for wait in reporting.BACKOFF))


@dataclass
class Told:
    """A session that changes when it is told to."""

    snapshot: Snapshot = SNAPSHOT
    sequence: int = 0
    event: asyncio.Event = field(default_factory=asyncio.Event)

    def build(self, sequence: int) -> SessionReport:
        return reports.build(self.snapshot, CONFIG, sequence)

    async def next_sequence(self) -> int:
        self.sequence += 1
        return self.sequence

    async def changed(self) -> None:
        await self.event.wait()
        self.event.clear()

    def change(self, **fields: Any) -> None:
        self.snapshot = replace(self.snapshot, **fields)
        self.event.set()


@asynccontextmanager
async def reporter(receiver: Operator, told: Told, token: Path) -> AsyncIterator[Reporter]:
    sending = Reporter(sender(receiver.url, token), told.build, told.changed, told.next_sequence)
    running = asyncio.create_task(sending.run())
    try:
        yield sending
    finally:
        running.cancel()
        await asyncio.wait([running])


def received(receiver: Operator, count: int) -> Callable[[], bool]:
    return lambda: len(receiver.received) >= count


async def test_reports_come_at_once_on_change_and_regularly(tmp_path: Path, quick: None) -> None:
    async with operator() as receiver, reporter(receiver, told := Told(), tmp_path / "token"):
        await eventually(received(receiver, 1))
        told.change(activity="Processing")
        await eventually(lambda: receiver.received[-1].activity == "Processing")
        count = len(receiver.received)
        told.change(last_seq=8)  # nothing that the operator would hear of
        await eventually(received(receiver, count + 2))
        sequences = [report.sequence for report in receiver.received]
        assert sequences == list(range(1, len(sequences) + 1))


async def test_many_changes_make_few_reports(tmp_path: Path) -> None:
    async with operator() as receiver, reporter(receiver, told := Told(), tmp_path / "token"):
        await eventually(received(receiver, 1))
        for n in range(1000):
            told.change(last_message=str(n))
            if n % 100 == 0:
                await asyncio.sleep(0)
        await eventually(lambda: receiver.received[-1].last_message == "999")
        assert len(receiver.received) <= 3


async def test_an_operator_that_is_away_gets_the_latest_when_it_is_back(tmp_path: Path, quick: None) -> None:
    async with operator(0, 500, 503, 429, 204) as receiver, reporter(receiver, told := Told(), tmp_path / "token"):
        await eventually(received(receiver, 2))
        told.change(last_message="newest")
        await eventually(received(receiver, 5))
        assert receiver.received[4].last_message == "newest"
        sequences = [report.sequence for report in receiver.received]
        assert sequences == sorted(set(sequences))


@pytest.mark.parametrize("anyio_backend", [VIRTUAL_TIME])
async def test_an_operator_that_is_away_for_an_hour_costs_nothing_but_freshness() -> None:
    """In virtual time. The session changes every second and never waits; the operator hears the newest, and only that."""
    hour = 3600.0
    tries: list[SessionReport] = []

    async def send(body: bytes, timeout: float) -> None:
        now = asyncio.get_running_loop().time()
        tries.append(SessionReport.model_validate_json(body))
        if 10 <= now < 10 + hour:
            await asyncio.sleep(timeout)  # nobody answers
            raise OSError("timed out")

    loop = asyncio.get_running_loop()
    told = Told()
    sending = asyncio.create_task(Reporter(send, told.build, told.changed, told.next_sequence).run())
    for second in range(int(hour) + 60):
        told.change(last_message=str(second))
        await asyncio.sleep(1)
        assert loop.time() == second + 1
    sending.cancel()
    await asyncio.wait([sending])
    before = [report for report in tries if int(report.last_message or 0) < 10]
    away = [report for report in tries if 10 <= int(report.last_message or 0) < 10 + hour]
    assert before
    assert len(away) <= hour / reporting.BACKOFF[-1] + len(reporting.BACKOFF)
    back = tries[len(before) + len(away) :]
    assert int(back[0].last_message or 0) <= 10 + hour + reporting.BACKOFF[-1] + reporting.REQUEST_TIMEOUT
    assert int(tries[-1].last_message or 0) >= hour + 57
    sequences = [report.sequence for report in tries]
    assert sequences == list(range(1, len(tries) + 1))


async def test_a_refusal_is_logged_once_and_not_hammered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporting, "COALESCE", 0.01)
    monkeypatch.setattr(reporting, "REFUSED_INTERVAL", 0.2)
    async with operator(403) as receiver, reporter(receiver, Told(), tmp_path / "token"):
        started = asyncio.get_running_loop().time()
        await eventually(received(receiver, 3))
        assert asyncio.get_running_loop().time() - started >= 0.35
    refusals = [record for record in caplog.records if "rejects" in record.message]
    assert len(refusals) == 1
    assert "403" in refusals[0].message


async def test_the_token_is_read_anew_each_time(tmp_path: Path, quick: None) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    async with operator() as receiver, reporter(receiver, told := Told(), token):
        await eventually(received(receiver, 1))
        token.write_text("second\n")
        told.change(activity="Processing")
        await eventually(lambda: receiver.tokens[-1] == "bearer second")
        assert receiver.tokens[0] == "bearer first"


async def test_the_last_report_is_given_up_when_nobody_takes_it(tmp_path: Path, quick: None) -> None:
    async with operator(0) as receiver:
        send = sender(receiver.url, tmp_path / "token")
        last = Reporter(send, (told := Told()).build, told.changed, told.next_sequence)
        async with asyncio.timeout(DEADLINE):
            assert await last.finish() is False
        assert len(receiver.received) >= 2


async def test_a_session_reports_from_start_to_outcome(short_path: Path) -> None:
    async with operator(500, 204) as receiver:
        answer = says("It is done.", delay=0.3)
        async with runtime(short_path, answer, mode="Task", prompt="go", report_url=receiver.url) as run:
            assert await run.ended() == 0
        last = receiver.received[-1]
        assert (last.outcome, last.last_message) == ("Completed", "It is done.")
        sequences = [report.sequence for report in receiver.received]
        assert sequences == sorted(set(sequences))
        assert SessionReport.model_validate_json(run.termination_log.read_text()).outcome == "Completed"
        async with runtime(short_path, mode="Task", prompt="go", report_url=receiver.url) as again:
            assert await again.ended() == 0
        assert receiver.received[-1].sequence > last.sequence


def test_impossible_counts_make_a_report_all_the_same() -> None:
    used = reports.usage(Usage(input_tokens=10**30, output_tokens=-5, cost_usd=float("inf")))
    assert (used.input_tokens, used.output_tokens) == (2**53, 0)
    assert reports.usage(Usage(cost_usd=float("nan"))).cost_usd == 0
