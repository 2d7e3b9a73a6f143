"""Requests that the OpenAPI document allows, and some that it does not, at a running session: all of them get an answer that
the document knows, and none of them is an error of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from agent.testing import says
from session_runtime.http import problems
from support.runtime.harness import TOKEN, runtime

pytestmark = pytest.mark.anyio

EXAMPLES = 30
"""Requests for each operation, of each kind."""


async def test_no_request_breaks_the_server(short_path: Path) -> None:
    async with runtime(short_path, *[says("ok")] * 1000) as run:
        document = (await run.http.get("/v1/openapi.json")).json()
        tried = await asyncio.to_thread(fuzz, run.url, document)
        assert set(tried) == {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
        assert (await run.http.get("/readyz")).status_code == 200
        await run.submit("interrupt")


def fuzz(url: str, document: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """Send requests to every operation; how many were sent to each."""
    schema = schemathesis.openapi.from_dict(dict(document))
    tried: dict[tuple[str, str], int] = {}
    with requests.Session() as session:
        for result in schema.get_all_operations():
            assert isinstance(result, Ok), result
            operation = result.ok()
            varies = bool(operation.query or operation.headers or operation.body)
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if varies else (GenerationMode.POSITIVE,):
                attempt(url, session, operation.as_strategy(generation_mode=mode), tried)
    return tried


def attempt(url: str, session: requests.Session, cases: Any, tried: dict[tuple[str, str], int]) -> None:
    @seed(5)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def send(case: Case[Any]) -> None:
        # A shutdown works, and ends what is to be tried.
        assume(not (isinstance(case.body, dict) and case.body.get("type") == "shutdown"))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        key = case.method.upper(), case.path
        tried[key] = tried.get(key, 0) + 1
        request = case.as_transport_kwargs(base_url=url, headers=headers)
        with session.request(**request, stream=True, timeout=10) as response:
            assert response.status_code < 500, response.text
            if response.headers["content-type"].startswith("text/event-stream"):
                return  # it does not end
            if response.headers["content-type"] == problems.MEDIA_TYPE and response.json()["type"].endswith(":id-reused"):
                return  # what was said before is not for the document to say
            case.validate_response(response, headers=headers)

    send()
