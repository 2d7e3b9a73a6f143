"""The report endpoint as pods see it: who sends is asked before a byte of the body is read."""

from __future__ import annotations

import httpx
import pytest

from agentsession_operator.reports.http import MAX_REPORT_BYTES, make_app
from support.control_plane.builders import report
from support.control_plane.desk import desk
from support.control_plane.tokens import token

pytestmark = pytest.mark.anyio

PATH = "/v1/sessions/team/demo/report"


@pytest.fixture
def client() -> httpx.AsyncClient:
    at, _, _ = desk()
    app = make_app(at, healthy=lambda: None, ready=lambda: "not yet")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://operator")


def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {token()}"}


async def test_a_report_is_taken(client: httpx.AsyncClient) -> None:
    answer = await client.put(PATH, content=report().model_dump_json(), headers=bearer())
    assert answer.status_code == 204


async def test_without_a_token_the_body_is_not_read(client: httpx.AsyncClient) -> None:
    answer = await client.put(PATH, content=b"x" * (2 * MAX_REPORT_BYTES))
    assert answer.status_code == 401


async def test_a_body_beyond_a_reports_size_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.put(PATH, content=b" " * (MAX_REPORT_BYTES + 1), headers=bearer())
    assert answer.status_code == 413
    assert str(MAX_REPORT_BYTES) in answer.json()["detail"]


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '{"session_uid": 1}', report().model_dump_json().replace('"sequence":1', f'"sequence":{2**70}')]
)
async def test_what_is_no_report_is_refused_by_field(client: httpx.AsyncClient, body: str) -> None:
    answer = await client.put(PATH, content=body, headers=bearer())
    assert answer.status_code == 422
    assert answer.json()["detail"]


async def test_health_and_readiness_say_what_is_wrong(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).status_code == 200
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "not yet")
    assert "agentsession_slots_used" in (await client.get("/metrics")).text
