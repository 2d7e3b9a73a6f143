"""What the cache keeps of a session: enough for every decision, and little memory."""

from __future__ import annotations

from typing import Any

import pytest

from agentsession_operator.api.objects import Session
from agentsession_operator.cluster.thrift import SHORT, Thrift
from agentsession_operator.decisions.resolve import Misconfigured, resolve
from support.control_plane.builders import classes, session, session_body, session_class

LONG = "x" * (SHORT + 1)
CLASSES = classes(session_class(allowMCPServers=True, models=[{"match": "openai/*"}], agent={"model": "openai/none"}))
SERVER = {"name": "docs", "url": "https://docs.example/mcp", "tools": {"allow": ["x" * 100] * 11}}


def of(**spec: Any) -> Session:
    body = session_body()
    return Session.of({**body, "spec": {**body["spec"], **spec}})


def test_a_short_session_is_kept_whole() -> None:
    short = of(prompt="Say hello.", agent={"instructions": "Be brief."})
    assert Thrift().kept(short) == short


@pytest.mark.parametrize(
    "spec",
    [
        {"prompt": LONG},
        {"agent": {"model": "openai/none", "instructions": LONG}},
        {"agent": {"approvalPolicy": [{"tool": "bash", "action": "Ask", "reason": "x" * 500}] * 3}},
        {"agent": {"mcpServers": [SERVER]}},
    ],
    ids=["prompt", "instructions", "rules", "servers"],
)
def test_long_texts_are_left_out_and_the_verdict_stays(spec: dict[str, Any]) -> None:
    full = of(**spec)
    kept = Thrift().kept(full)
    assert not kept.whole
    assert len(kept.spec.model_dump_json(exclude_defaults=True)) < 300
    before, after = resolve(full.spec, CLASSES), resolve(kept.spec, CLASSES)
    assert type(before) is type(after)
    if isinstance(before, Misconfigured):
        assert before == after


def test_what_was_left_out_does_not_come_back_by_itself() -> None:
    thrift = Thrift()
    assert not thrift.kept(thrift.kept(of(prompt=LONG))).whole


def test_sessions_that_say_the_same_share_it() -> None:
    thrift = Thrift()
    first, second = thrift.kept(session("a")), thrift.kept(session("b"))
    assert first.spec.agent is second.spec.agent
    assert first.spec.budget is second.spec.budget
    assert [id(one) for one in first.status.conditions] == [id(one) for one in second.status.conditions]


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentsession_operator.cluster.thrift.KNOWN", 10)
    thrift = Thrift()
    for number in range(100):
        kept = thrift.kept(of(user=f"user-{number}", agent={"model": f"openai/{number}"}))
        assert (kept.spec.user, kept.spec.agent.model) == (f"user-{number}", f"openai/{number}")
    assert len(thrift._known) <= 10
    assert len(thrift._agents) <= 10
